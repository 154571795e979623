# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which layouts were booted: a fact from data, not from a version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.fakekernel import FakeKernel
from support.fakekernel.layouts import LAYOUT_FILES
from support.layoutmachine import JUDGED, layout_machine
from support.schema import validated

from drgn_zonedev.classification.layout_parts import PARTS, layout_parts, never_booted
from drgn_zonedev.export.store import unpacked
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.render.as_json import report_document
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.kernel_knowledge import kernel_knowledge_document, kernel_knowledge_text
from drgn_zonedev.report import check
from drgn_zonedev.verification.kernel_knowledge import kernel_knowledge

DUMPS = Path(__file__).parents[2] / "vmcores"
FROM_FILES = [name for name in JUDGED if name in LAYOUT_FILES]
BOOTED = sorted(n for n in FROM_FILES if LAYOUT_FILES[n].parent.name == "booted")
# Structures that decide are those of 6.12; only the number of nodes is another. Those of ppc64 are
# Debian's for ppc64el.
LIKE_BOOTED = {"x86-64-6.12-no-numa", "ppc64-4k", "ppc64-6.14"}
NEVER_BOOTED = sorted(set(JUDGED) - set(BOOTED) - LIKE_BOOTED)


BOOTED_DUMPS = [
    *(f"{kernel}-empty" for kernel in ("5.10", "6.1", "6.12", "7.2", "7.3")),
    "6.1-arm64-empty",
    *(f"{kernel}-fsdax-collision" for kernel in ("6.12-arm64-16k", "7.3-arm64", "7.3-arm64-64k")),
]


@pytest.mark.parametrize("dump", BOOTED_DUMPS)
def test_layout_of_a_booted_kernel_is_known(dump: str) -> None:
    with unpacked(DUMPS / dump) as files:
        prog = open_dump(files / "vmcore", files / "vmlinux")
        release = prog["UTS_RELEASE"].string_().decode()
        assert [part.name for part in layout_parts(prog)] == list(PARTS)
        assert all(release in part.booted for part in layout_parts(prog))
        report = check(prog)
        assert "booted" not in report_text(report)
        assert "never_booted" not in json.dumps(report_document(report))
        assert all(rule.is_proven for rule in kernel_knowledge(prog).rules)


@pytest.mark.parametrize("name", BOOTED)
def test_machine_of_a_booted_layout_has_its_fingerprints(name: str) -> None:
    assert never_booted(FakeKernel(name).program()) == ()


@pytest.mark.parametrize("name", NEVER_BOOTED)
def test_layout_that_was_never_booted_is_visible(name: str) -> None:
    prog = layout_machine(name).kernel.program()
    missing = never_booted(prog)
    assert missing
    report = check(prog)
    line = f"no kernel with this layout was ever booted ({', '.join(missing)}): see zonedev kernel"
    assert line in report_text(report).split("\n")
    assert validated(report_document(report))["kernel"]["never_booted"] == list(missing)
    known = kernel_knowledge(prog)
    text, document = kernel_knowledge_text(known), validated(kernel_knowledge_document(known))
    assert "by reading" in text
    assert {rule["proven"] for rule in document["rules"]} <= {"struct pages" not in missing}
    assert {part["part"] for part in document["layout"] if not part["booted"]} == set(missing)


def test_a_member_elsewhere_makes_another_layout() -> None:
    kernel = FakeKernel("6.12")
    prog = kernel.program(hidden=frozenset(["struct dev_pagemap.vmemmap_shift"]))
    assert never_booted(prog) == ("pgmaps",)


def test_presence_checks_say_which_way_was_taken() -> None:
    found = {
        name: {c.name: c.is_present for c in kernel_knowledge(FakeKernel(name).program()).checks}
        for name in ("5.10", "7.2", "x86-64-res-ms32")
    }
    assert found["7.2"]["page.compound_info"]
    assert not found["7.2"]["page.pgmap"]
    assert found["5.10"]["dev_pagemap.internal_ref"]
    assert found["5.10"]["dev_pagemap.nr_range"]
    assert not found["x86-64-res-ms32"]["dev_pagemap.nr_range"]
    assert not found["x86-64-res-ms32"]["percpu_ref.data"]
