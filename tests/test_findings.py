# SPDX-License-Identifier: LGPL-2.1-or-later

"""The table of findings: complete, used, and what the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drgn_zonedev.findings import KINDS, UNDETECTABLE, Kind, make_finding
from drgn_zonedev.known_bugs.bugs import BUGS
from drgn_zonedev.model import Case, Evidence, Severity
from drgn_zonedev.pfn_proposal import VARIANTS
from drgn_zonedev.pfn_walkers import WALKERS
from drgn_zonedev.verification.rules import RULES
from scripts.findings_document import document

ROOT = Path(__file__).parents[1]
# Everything but the table itself; the laboratory, variants and walkers have words of their own.
OTHER_WORDS = {"lab", "proposal", "walkers"}
SOURCES = [
    path
    for path in sorted((ROOT / "drgn_zonedev").rglob("*.py"))
    if path.name != "findings.py" and not OTHER_WORDS.intersection(path.relative_to(ROOT).parts)
]
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def quoted() -> set[str]:
    """Every string in the sources that looks like a slug."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    found = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"', text)) | {
        # A slug of one word.
        slug
        for slug in KINDS
        if f'"{slug}"' in text
    }
    return found


def test_every_kind_is_used() -> None:
    assert set(KINDS) - quoted() == set()


def test_every_slug_in_the_code_is_a_kind() -> None:
    prefixes = {kind.split("-")[0] for kind in KINDS if "-" in kind}
    others = (
        {walker.name for walker in WALKERS} | {variant.name for variant in VARIANTS} | set(BUGS)
    )
    candidates = {slug for slug in quoted() - others if slug.split("-")[0] in prefixes}
    assert candidates - set(KINDS) == set()


@each_kind
def test_every_kind_says_everything(kind: Kind) -> None:
    assert KINDS[kind.slug] is kind
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", kind.slug)
    assert kind.message[0].islower()
    assert not kind.message.endswith(".")
    assert not kind.proof.endswith(".")
    for text in (kind.explanation, kind.cure):
        assert text.endswith(".")
    for text in (kind.message, kind.explanation, kind.proof, kind.cure):
        assert text == " ".join(text.split())


def test_documentation_is_complete() -> None:
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert text == document(), "run scripts/write-findings"
    assert re.findall("^### (.+)$", text, re.MULTILINE) == list(KINDS)
    for kind in KINDS.values():
        for part in (kind.message, kind.explanation, kind.proof, kind.cure):
            assert part in text
    for defect, reason in UNDETECTABLE:
        assert f"- {defect}: {reason}" in text


def test_documentation_has_every_rule() -> None:
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(RULES)
    for rule, row in zip(RULES, rows):
        assert row[0] == f"| [{rule.finding}](#{rule.finding})"
        assert row[2] == (rule.word.title or f"`{rule.word.name}`")
        assert f"{rule.commit.hash} ({rule.commit.release}) |" in row[-1]
        assert f'- {rule.commit.hash} ("{rule.commit.title}") (in {rule.commit.release})' in text


@each_kind
def test_findings_are_made_of_their_kind(kind: Kind) -> None:
    fact = Evidence("pgmap->nr_range", 0xFFFF888000001000, 1)
    finding = make_finding(kind.slug, Case.DEVICE, 7, 10, pgmap=3, evidence=(fact,))
    assert (finding.slug, finding.severity) == (kind.slug, kind.severity)
    assert (finding.start_pfn, finding.end_pfn, finding.count) == (7, 10, 3)
    assert (finding.message, finding.pgmap, finding.evidence) == (kind.message, 3, (fact,))


def test_a_detail_follows_the_message() -> None:
    finding = make_finding("teardown", Case.TEARDOWN, 7, 10, count=1, detail="5 are left")
    assert finding.count == 1
    assert finding.message == f"{KINDS['teardown'].message}; 5 are left"


def test_unknown_slugs_are_refused() -> None:
    with pytest.raises(KeyError):
        make_finding("no-such-thing", Case.DEVICE, 0, 1)


def test_worst_kinds_come_first() -> None:
    ranks = [kind.severity.rank for kind in KINDS.values()]
    assert ranks == sorted(ranks)
    assert {kind.severity for kind in KINDS.values()} == set(Severity)
