# SPDX-License-Identifier: LGPL-2.1-or-later

"""What the kernel would say of one PFN, and where that is read from."""

from __future__ import annotations

import pytest
from drgn import Program
from drgn.helpers.linux.mmzone import nr_to_section
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.explanation.kernel_answers import Predicate, predicates
from drgn_zonedev.kernel.memmap import read_pages


def _ask(prog: Program, pfn: int) -> dict[str, Predicate]:
    page = next(read_pages(prog, pfn, pfn + 1))
    return {p.name: p for p in predicates(prog, pfn, page)}


SCENES = [
    (collision, (0x0, 0x24000, 0x24002, 0x24400, 0x2FFFF, 0x30000, 0x40000)),
    (in_flight, (0x24000, 0x24400, 0x2FFFF)),
    (partial, (0x100000, 0x100600, 0x113FFF, 0x114000, 0x117FFF)),
]


@each_layout
@pytest.mark.parametrize(("scene", "pfn"), [(scene, pfn) for scene, pfns in SCENES for pfn in pfns])
def test_every_word_is_what_is_in_memory(layout: str, scene: object, pfn: int) -> None:
    assert callable(scene)
    prog = scene(layout).program()
    facts = [e for p in _ask(prog, pfn).values() for e in p.evidence]
    assert facts
    for fact in facts:
        assert fact.address is not None
        size = 4 if fact.what == "pgmap->nr_range" else 8
        word = int.from_bytes(prog.read(fact.address, size), "little")
        assert word == fact.value, fact.what


@each_layout
def test_words_are_those_of_the_structures(layout: str) -> None:
    kernel = collision(layout)
    prog = kernel.program()
    asked = _ask(prog, 0x24400)
    section = nr_to_section(prog, 4)
    assert asked["valid_section"].evidence[0].address == section.section_mem_map.address_
    bits = asked["pfn_section_valid"].evidence[0].address
    assert bits == section.usage.subsection_map.address_
    reads = {e.what: e for e in asked["pgmap_pfn_valid"].evidence}
    assert reads["pgmap->altmap.reserve"].value == 2
    assert reads["pgmap->altmap.free"].value == 1022
    assert reads["pgmap->ranges[0].start"].value == 0x24000 << 12


def test_online_device_section_exists_since_the_taint() -> None:
    assert "online_device_section" not in _ask(collision("5.10").program(), 0x24400)
    assert _ask(collision("6.1").program(), 0x24400)["online_device_section"].answer is True


def test_zone_of_the_page_is_asked_of_the_page() -> None:
    prog = collision("6.1").program()
    assert _ask(prog, 0x24400)["is_zone_device_page"].answer is True
    assert _ask(prog, 0x24000)["is_zone_device_page"].answer is False


def test_section_that_is_not_present_has_no_flags() -> None:
    asked = _ask(collision("6.1").program(), 0x80000)
    assert asked["present_section"].answer is False
    assert not asked["present_section"].evidence[0].value
    assert asked["online_section"].because == "SECTION_IS_ONLINE (0x4) not set"
    assert asked["pfn_valid"].answer is False


def test_dead_reference_is_the_reason() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(0x20)
    kernel.map_memmap(0x100000, 0x108000)
    kernel.pgmap((0x100000, 0x108000), ref="dead")
    claim = _ask(kernel.program(), 0x100000)["get_dev_pagemap"]
    assert claim.answer == "NULL"
    assert claim.evidence[1].note == "__PERCPU_REF_DEAD"


def test_section_that_cannot_be_read_is_an_answer() -> None:
    kernel = collision("6.1")
    address = nr_to_section(kernel.program(), 4).value_()
    kernel.hide(address, 8)
    asked = _ask(kernel.program(), 0x24400)
    for name in ("valid_section", "pfn_valid", "pfn_to_online_page"):
        assert str(asked[name].answer).startswith("cannot be read")
    assert asked["get_dev_pagemap"].answer != "NULL"


def test_proposed_predicates_are_exact_to_the_page() -> None:
    prog = collision("6.1").program()
    answers = {
        pfn: tuple(
            _ask(prog, pfn)[name].answer for name in ("pfn_zone_device", "pfn_zone_device_reserved")
        )
        for pfn in (0x23FFF, 0x24001, 0x24002, 0x243FF, 0x24400)
    }
    assert answers == {
        0x23FFF: (False, False),
        0x24001: (False, True),
        0x24002: (False, False),
        0x243FF: (False, False),
        0x24400: (True, False),
    }
