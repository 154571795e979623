# SPDX-License-Identifier: LGPL-2.1-or-later

"""Results lead to drgn objects, and are plain data all the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys

import drgn
import pytest
from drgn import Program
from support.fakekernel import collision
from support.kernels import each_layout

from drgn_zonedev import check, classify, dev_pagemap_info, explain, find_dev_pagemap, verify
from drgn_zonedev.model import Finding
from drgn_zonedev.render import as_json


@pytest.fixture
def prog() -> Program:
    return collision("6.1").program()


@each_layout
def test_finding_leads_to_its_struct_page(layout: str) -> None:
    kernel = collision(layout)
    kernel.poke_page_word(0x25000, 1, 0)
    report = check(kernel.program())
    (finding,) = (f for f in report.findings if f.slug == "device-page-pgmap")
    assert finding.page.type_.type_name() == "struct page *"
    assert finding.page.value_() == kernel.page(0x25000)
    # The object can be read on.
    assert finding.page._refcount.counter.value_() == kernel.idle_refcount("MEMORY_DEVICE_FS_DAX")
    assert finding.pgmap_object is not None
    assert finding.pgmap_object.nr_range.value_() == 1


def test_every_way_to_a_result_binds_it(prog: Program) -> None:
    ranges = classify(prog)
    device = next(r for r in ranges if r.pgmap)
    assert device.page.prog_ is prog
    assert verify(prog, ranges).findings[0].page.prog_ is prog
    assert explain(prog, 0x24400).page_object.value_() == explain(prog, 0x24400).page_address
    explained = explain(prog, 0x24000)
    assert explained.range is not None
    assert explained.range.page.prog_ is explained.findings[0].page.prog_ is prog
    report = check(prog)
    pgmap = dev_pagemap_info(find_dev_pagemap(prog, 0x24400))
    assert report.pgmaps[0].object.value_() == pgmap.object.value_() == device.pgmap
    assert report.ranges[0].pgmap_object is None


def test_two_programs_are_kept_apart() -> None:
    one, two = collision("6.1").program(), collision("6.1").program()
    a, b = check(one), check(two)
    assert a == b
    assert hash(a.findings[0]) == hash(b.findings[0])
    assert a.findings[0].page.prog_ is one
    assert b.findings[0].page.prog_ is two


def test_program_is_neither_pickled_nor_written(prog: Program) -> None:
    report = check(prog)
    again = pickle.loads(pickle.dumps(report))
    assert again == report == copy.deepcopy(report)
    assert as_json.report_document(again) == as_json.report_document(report)
    assert "_prog" not in dataclasses.asdict(report.findings[0])


def test_unbound_result_takes_the_default_program(prog: Program) -> None:
    finding = dataclasses.replace(check(prog).findings[0])
    with pytest.raises(drgn.NoDefaultProgramError):
        _ = finding.page
    drgn.set_default_prog(prog)
    try:
        assert finding.page.prog_ is prog
    finally:
        drgn.set_default_prog(None)


def test_representations_are_short(prog: Program) -> None:
    report = check(prog)
    assert repr(report).startswith("<Report Linux ")
    assert repr(report.findings[0]) == "<Finding warning case5-reserved [0x24000, 0x24002)>"
    assert repr(report.ranges[1]) == "<Range [0x24000, 0x24002) reserved>"
    assert repr(report.pgmaps[0]).startswith(f"<Pgmap {report.pgmaps[0].address:#x} MEMORY_DEV")
    assert repr(explain(prog, 0x24000)) == "<Explanation of PFN 0x24000: reserved>"
    assert all(len(repr(x)) < 100 for x in (report, *report.ranges, *report.pgmaps))


def test_repl_is_not_loaded_for_the_sake_of_its_display() -> None:
    code = "import drgn_zonedev.model, sys; print('drgn.cli' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_fields_are_still_fields() -> None:
    names = [f.name for f in dataclasses.fields(Finding)]
    assert names[:5] == ["slug", "severity", "case", "start_pfn", "end_pfn"]
    assert "_prog" not in names
