# SPDX-License-Identifier: LGPL-2.1-or-later

"""The words behind a verdict can be checked by hand: they are where it says they are."""

from __future__ import annotations

from typing import Callable

import pytest
from drgn import FaultError
from support.fakekernel import FakeKernel, collision, far, in_flight, partial, teardown
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.model import Evidence, Range

Scene = Callable[[str], FakeKernel]


def evidence(kernel: FakeKernel, pfn: int) -> dict[str, Evidence]:
    """What decided the range of a PFN, by what it is about."""
    (range_,) = (r for r in classify(kernel.program()) if r.start_pfn <= pfn < r.end_pfn)
    return {e.what: e for e in range_.evidence}


@each_layout
@pytest.mark.parametrize("scene", [collision, far, in_flight, partial, teardown])
def test_every_word_is_at_its_address(layout: str, scene: Scene) -> None:
    kernel = scene(layout)
    prog, checked = kernel.program(), 0
    for range_ in classify(prog):
        for fact in range_.evidence:
            if fact.address is None or fact.value is None:
                continue
            word = prog.read_u64(fact.address)
            # nr_range is an int, all others are longs.
            is_int = fact.what == "pgmap->nr_range"
            assert (word & 0xFFFFFFFF if is_int else word) == fact.value, fact
            checked += 1
    assert checked > 2


def test_device_shows_its_pgmap_and_altmap() -> None:
    kernel = collision("6.1")
    found = evidence(kernel, 0x24400)
    pgmap = found["pgmap_array[0x24400]"].value
    assert pgmap is not None
    assert found["pgmap->nr_range"].value == 1
    assert found["pgmap->nr_range"].note == "all ranges are initialised"
    altmap = {
        name: found[f"pgmap->altmap.{name}"].value for name in ("base_pfn", "reserve", "free")
    }
    assert altmap == {"base_pfn": 0x24000, "reserve": 2, "free": 1022}
    assert "0x24400" in str(found["pgmap->altmap.free"].note)
    assert found["pgmap->ref"].note == "live"


def test_range_in_progress_is_said() -> None:
    found = evidence(in_flight("6.1"), 0x24400)
    assert found["pgmap->nr_range"].value == 0
    assert found["pgmap->nr_range"].note == "a range is in progress"


def test_ram_shows_its_memory_block() -> None:
    kernel = collision("6.1")
    found = evidence(kernel, 0)
    assert found["pgmap_array[0x0]"].value == 0
    block = found["memory_blocks[0]"]
    assert block.value
    assert kernel.member("memory_block", block.value, "start_section_nr") == 0


def test_ram_without_a_memory_block_says_so() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    block = evidence(kernel, 0x40000)["memory_blocks[8]"]
    assert (block.value, block.note) == (0, "no memory block")


@pytest.mark.parametrize(("pfn", "bit", "state"), [(0x110000, 0, "set"), (0x114000, 32, "clear")])
def test_bit_of_the_subsection_decides(pfn: int, bit: int, state: str) -> None:
    # partial() populates the first half of section 0x22.
    found = evidence(partial("6.1"), pfn)
    # A device's range begins in another section.
    facts = [f for what, f in found.items() if what.endswith("usage->subsection_map")]
    assert facts
    if state == "clear":
        assert facts[0].what == "mem_section[34].usage->subsection_map"
        assert facts[0].note == f"bit {bit} is clear"
        assert facts[0].value == (1 << 32) - 1
    else:
        assert str(facts[0].note).endswith("is set")


def test_sections_alike_are_one_fact() -> None:
    kernel = FakeKernel("6.1")
    for nr in (8, 9, 10):
        kernel.section(nr, online=True)
        kernel.memory_block(nr)
    kernel.section(11, online=True, early=True)
    kernel.memory_block(11)
    facts = [f for what, f in evidence(kernel, 0x40000).items() if what.endswith("section_mem_map")]
    assert facts[0].what == "mem_section[8].section_mem_map"
    assert str(facts[0].note).endswith("(and 2 more sections)")
    assert "IS_EARLY" not in str(facts[0].note)


def test_usage_that_cannot_be_read_is_said() -> None:
    kernel = FakeKernel("6.1")
    section = kernel.section(8)
    usage = kernel.member("mem_section", section, "usage")
    kernel.hide(usage, 64)
    fact = evidence(kernel, 0x40000)["mem_section[8].usage->subsection_map"]
    assert (fact.address, fact.value, fact.note) == (usage, None, "cannot be read")
    with pytest.raises(FaultError):
        kernel.program().read(usage, 8)


def test_section_without_usage_is_said() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8, usage=False)
    fact = evidence(kernel, 0x40000)["mem_section[8].usage->subsection_map"]
    assert (fact.address, fact.note) == (None, "bit 0 is clear: usage is NULL")


def test_ranges_have_evidence() -> None:
    ranges: list[Range] = classify(collision("6.1").program())
    assert all(range_.evidence for range_ in ranges)
