# SPDX-License-Identifier: LGPL-2.1-or-later

"""``docs/findings.md``, from the table of all kinds of findings and that of all rules."""

from __future__ import annotations

from collections.abc import Iterator

from drgn_zonedev.findings import KINDS, UNDETECTABLE, Kind
from drgn_zonedev.model import Severity
from drgn_zonedev.verification.promises import DEVICE_AREAS, TAIL_AREAS, Area, RamPages
from drgn_zonedev.verification.rule import Computed, Rule
from drgn_zonedev.verification.rules import NEVER_WRITTEN, RULES

__all__ = ("document",)


def document() -> str:
    """Get ``docs/findings.md``."""
    return "\n".join(_document()) + "\n"


def _document() -> Iterator[str]:
    yield "# Findings"
    yield ""
    yield "Everything that `zonedev check` can find, by slug. An *error* is a broken promise of the"
    yield "kernel, a *warning* a hazard that kernels allow, and an *info* is worth knowing."
    for severity in Severity:
        yield ""
        yield f"## {severity.value}"
        for kind in KINDS.values():
            if kind.severity is severity:
                yield from _section(kind)
    yield from _rules()
    yield ""
    yield "## Undetectable defects"
    yield ""
    yield "These defects look like a legal state, so `check` cannot find them:"
    yield ""
    for defect, reason in UNDETECTABLE:
        yield f"- {defect}: {reason}"


def _rules() -> Iterator[str]:
    never_written = " or ".join(
        f"[{slug}](#{slug})" for kind, slug in NEVER_WRITTEN.items() if kind is not RamPages
    )
    yield from f"""
## The rules

This is what a struct page must hold, word by word. A page that breaks both a rule about its zone
or node, and one about its pgmap or its list, was never written:
{never_written}.
A page that breaks only one of these is reported for that rule alone, because its other words then
mean nothing. `zonedev pfn` compares all of them.

In RAM, only a page and its neighbours show what kind of page it is. If `PG_head`, the order and
the links of tails disagree, the majority decides. If one page of a free block looks used, that
page is wrong; if several do, the order of the block is. A page that holds only a pattern is
reported as
[{NEVER_WRITTEN[RamPages]}](#{NEVER_WRITTEN[RamPages]}) and nothing else. A page in the wrong zone
or node, or a tail that leads elsewhere, is reported for that alone.

| finding | pages | word | promise | if | written by | kernel commit |
|---|---|---|---|---|---|---|""".split("\n")
    yield from map(_row, RULES)
    yield ""
    for commit in dict.fromkeys(rule.commit for rule in RULES):
        yield f'- {commit.hash} ("{commit.title}") (in {commit.release})'


def _row(rule: Rule) -> str:
    value = rule.value.name if isinstance(rule.value, Computed) else str(rule.value)
    cells = (
        f"[{rule.finding}](#{rule.finding})",
        _areas(rule.areas),
        rule.word.title or f"`{rule.word.name}`",
        rule.comparison.value.format(value),
        rule.condition.text if rule.condition else "",
        f"`{rule.function}`",
        f"{rule.commit.hash} ({rule.commit.release})",
    )
    return f"| {' | '.join(cells)} |"


def _areas(areas: tuple[Area, ...]) -> str:
    together = {DEVICE_AREAS: "every device page", TAIL_AREAS: "every tail"}
    return together.get(areas) or ", ".join(area.value for area in areas)


def _section(kind: Kind) -> Iterator[str]:
    yield ""
    yield f"### {kind.slug}"
    yield ""
    yield f"**Meaning**: {kind.message}. {kind.explanation}"
    yield ""
    yield f"**Proof**: {kind.proof}."
    yield ""
    yield f"**Cure**: {kind.cure}"
