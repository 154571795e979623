# SPDX-License-Identifier: LGPL-2.1-or-later

"""Arguments that make no sense are refused, and never answered."""

from __future__ import annotations

from typing import Any

import pytest
from drgn import NULL, Object, Program
from support.fakekernel import collision

import drgn_zonedev as zd

OF_PGMAP = (
    zd.dev_pagemap_info,
    zd.dev_pagemap_ranges,
    zd.dev_pagemap_type,
    zd.pgmap_altmap,
    zd.pgmap_is_alive,
    zd.pgmap_vmemmap_shift,
)
OF_PFN = (
    zd.find_dev_pagemap,
    zd.get_dev_pagemap,
    zd.pfn_section_valid,
    zd.pfn_to_online_page,
    zd.pfn_valid,
    zd.pfn_zone_device,
    zd.pfn_zone_device_reserved,
    zd.subsection_map_index,
)


@pytest.fixture(scope="module")
def prog() -> Program:
    return collision("6.1").program()


@pytest.mark.parametrize("helper", OF_PGMAP)
def test_helper_of_a_pgmap_takes_nothing_else(prog: Program, helper: Any) -> None:
    pgmap = zd.find_dev_pagemap(prog, 0x24000)
    helper(pgmap)
    for wrong in (5, prog, prog["mem_section"], Object(prog, "struct page *", pgmap.value_())):
        with pytest.raises(TypeError, match=r"expected a struct dev_pagemap \*, got "):
            helper(wrong)
    with pytest.raises(ValueError, match="got NULL"):
        helper(NULL(prog, pgmap.type_))
    with pytest.raises(ValueError, match="got NULL"):
        helper(zd.get_dev_pagemap(prog, 0x10))


def test_program_is_not_taken_for_a_pgmap(prog: Program) -> None:
    with pytest.raises(TypeError, match=r"expected a struct dev_pagemap \*, got Program"):
        zd.pgmap_pfn_valid(prog, 0x24000)
    with pytest.raises(TypeError, match=r"expected a struct dev_pagemap \*, got Program"):
        zd.pgmap_pfn_first(prog, 0)


@pytest.mark.parametrize("helper", OF_PFN)
def test_helper_of_a_pfn_takes_nothing_else(prog: Program, helper: Any) -> None:
    helper(prog, 0x24000)
    helper(prog, Object(prog, "unsigned long", 0x24000))
    for wrong in ("0x24000", 1.5, prog["mem_section"], zd.find_dev_pagemap(prog, 0x24000)):
        with pytest.raises(TypeError, match=r"expected a PFN \(an integer\), got "):
            helper(prog, wrong)
    with pytest.raises(ValueError, match=r"expected a PFN \(0 or more\), got -0x1"):
        helper(prog, -1)


def test_sections_have_no_negative_numbers(prog: Program) -> None:
    with pytest.raises(ValueError, match=r"expected a section number \(0 or more\), got -0x1"):
        list(zd.for_each_subsection(prog, -1))
    with pytest.raises(ValueError, match=r"expected a section number \(0 or more\), got -0x1"):
        zd.section_memory_block(prog, -1)


def test_pages_have_no_negative_pfns(prog: Program) -> None:
    with pytest.raises(ValueError, match=r"expected a PFN \(0 or more\), got -0x1"):
        list(zd.read_pages(prog, -1, 1))


def test_reports_refuse_what_they_are_not_about(prog: Program) -> None:
    with pytest.raises(TypeError, match="expected a Range of classify\\(\\), got int"):
        zd.verify(prog, [1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="unknown kind of number 'foo': give one of pfn, ph"):
        zd.explain(prog, 0x24000, kind="foo")
    for jobs in (0, -1):
        with pytest.raises(ValueError, match=f"expected 1 process or more, got {jobs}"):
            zd.check(prog, jobs=jobs)
    for pfns in (5, (1,), (1, 2, 3)):
        with pytest.raises(TypeError, match="expected a pair, the first PFN and the end, got"):
            zd.check(prog, pfns=pfns)  # type: ignore[arg-type]
