# SPDX-License-Identifier: LGPL-2.1-or-later

"""The ways to build pfn_zone_device(), and what each of them would get wrong."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import LAYOUTS, Altmap, FakeKernel, collision, in_flight, partial, teardown
from support.fakekernel.layouts import Member
from support.kernels import Device, each_layout, put_device

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memremap import for_each_dev_pagemap, pgmap_ref
from drgn_zonedev.lab.verdict.mistakes import Arranged, false_yes, taken_for_ram
from drgn_zonedev.model import Case
from drgn_zonedev.pfn_proposal import VARIANTS, ProposalReport, Verdict, Wrong, proposal
from drgn_zonedev.pfn_proposal.calls import Question
from drgn_zonedev.pfn_proposal.cost import Lookup, kmalloc_size, lookup_cost
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_proposal.variants import Asked

Scene = Callable[[str], FakeKernel]

SECTION, SUBSECTION = 0x8000, 0x200


def verdict(report: ProposalReport, name: str) -> Verdict:
    return next(v for v in report.verdicts if v.variant.name == name)


def yes(report: ProposalReport, name: str) -> Counter[str]:
    return Counter({c.value: n for c, n in verdict(report, name).pages(True).items()})


def no(report: ProposalReport, name: str) -> Counter[str]:
    return Counter({c.value: n for c, n in verdict(report, name).pages(False).items()})


def taken(report: ProposalReport, name: str) -> Counter[str]:
    return Counter({c.value: n for c, n in verdict(report, name).taken_for_ram.items()})


def wrong(report: ProposalReport, name: str) -> list[tuple[int, int, str, bool]]:
    return [(w.start_pfn, w.end_pfn, w.case.value, w.answer) for w in verdict(report, name).wrong]


def departed(layout: str) -> FakeKernel:
    """collision() after the device has left: ghosts in section 4."""
    kernel = FakeKernel(layout)
    kernel.section(4, online=True, early=True, taint=True, subsections=range(32))
    kernel.ram_pages(0x20000, 0x24000)
    kernel.device_pages(0x24000, 0x28000, 0xFFFF888012345600)
    kernel.grow_zone("ZONE_DEVICE", 0x24000, 0x30000)
    return kernel


def dying(layout: str) -> FakeKernel:
    """A map=dev device of one section whose driver is letting go of it."""
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), altmap=Altmap(0x40000, 0x47FFF, 2, 510), ref="dead")
    kernel.metadata_pages(0x40002, 0x40200)
    kernel.map_memmap(0x40000, 0x40002)
    kernel.device_pages(0x40200, 0x48000, pgmap)
    return kernel


def failed(layout: str) -> FakeKernel:
    """A section that a failed memremap_pages() left behind."""
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.map_memmap(0x40000, 0x48000)
    return kernel


ARRANGED: dict[str, tuple[Scene, list[Arranged]]] = {
    "collision": (
        collision,
        [
            (0x20000, 0x24000, "online"),
            (0x24000, 0x24002, "reserved"),
            (0x24002, 0x24400, "metadata"),
            (0x24400, 0x30000, "device"),
        ],
    ),
    "in_flight": (
        in_flight,
        [
            (0x20000, 0x24000, "online"),
            (0x24000, 0x24002, "reserved"),
            (0x24002, 0x24400, "metadata"),
            (0x24400, 0x30000, "initializing"),
        ],
    ),
    "partial": (
        partial,
        [
            (0x100000, 0x100002, "reserved"),
            (0x100002, 0x100600, "metadata"),
            (0x100600, 0x114000, "device"),
            (0x114000, 0x118000, "partial"),
        ],
    ),
    "departed": (departed, [(0x20000, 0x24000, "online"), (0x24000, 0x28000, "ghost")]),
    "failed": (failed, [(0x40000, 0x48000, "orphan")]),
}


@each_layout
@pytest.mark.parametrize("scene", ARRANGED)
def test_mistakes_are_those_of_the_arithmetic(layout: str, scene: str) -> None:
    build, arranged = ARRANGED[scene]
    report = proposal(build(layout).program())
    for name, expected in false_yes(arranged).items():
        assert yes(report, name) == expected, name
        assert no(report, name) == Counter(), name
        assert verdict(report, name).right == report.judged - sum(expected.values())
    for name, expected in taken_for_ram(arranged).items():
        assert taken(report, name) == expected, name
        assert verdict(report, name).lost_ram == false_yes(arranged)[name]["online"], name
    assert report.valid == sum(end - start for start, end, case in arranged if case == "device")
    assert report.broken == 0


@each_layout
def test_what_is_not_cleared_before_the_pages_go(layout: str) -> None:
    report = proposal(dying(layout).program())
    section = [(0x40000, 0x48000, "teardown", True)]
    assert wrong(report, "section-flag") == section
    assert wrong(report, "early-bit") == section
    assert wrong(report, "late-bit") == section
    assert wrong(report, "late-bit-data") == [(0x40200, 0x48000, "teardown", True)]
    for name in (
        "section-flag+pgmap",
        "taint+pgmap",
        "late-bit+reserve",
        "two-bits",
        "pgmap+range",
    ):
        assert wrong(report, name) == []


@each_layout
def test_beside_ram_only_an_early_bit_still_knows_a_dying_device(layout: str) -> None:
    # Of its 0xc000 pages, 0x4000 are in a section of RAM; 0x400 of these are its head.
    report = proposal(teardown(layout).program())
    assert {v.variant.name: dict(taken(report, v.variant.name)) for v in report.verdicts} == {
        "section-flag": {},
        "section-flag+pgmap": {"teardown": 0x4000},
        "taint+pgmap": {"teardown": 0x4000},
        "early-bit": {},
        "late-bit": {},
        "late-bit+reserve": {"teardown": 0x4000},
        "late-bit-data": {"teardown": 0x400},
        "two-bits": {},
        "pgmap+range": {"teardown": 0x4000},
    }
    assert [v.lost_ram for v in report.verdicts] == [0x4000] + [0] * 8


@each_layout
def test_a_head_that_ends_inside_of_a_subsection(layout: str) -> None:
    # 0x101 pages of metadata: the data begins at 0x40103.
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), altmap=Altmap(0x40000, 0x47FFF, 2, 0x101))
    kernel.metadata_pages(0x40002, 0x40103)
    kernel.map_memmap(0x40000, 0x40002)
    kernel.device_pages(0x40103, 0x48000, pgmap)
    report = proposal(kernel.program())
    head = [(0x40000, 0x40002, "reserved", True), (0x40002, 0x40103, "metadata", True)]
    assert wrong(report, "late-bit") == head
    assert wrong(report, "late-bit+reserve") == head[1:]
    # The rest of the subsection is lost, so that nobody reads its beginning.
    for name in ("late-bit-data", "two-bits"):
        assert wrong(report, name) == [(0x40103, 0x40200, "device", False)]
    assert wrong(report, "pgmap+range") == []


@each_layout
def test_a_device_between_ram_and_another_device(layout: str) -> None:
    # Section 8: RAM, a device, a hole, another device that is being initialised.
    kernel = FakeKernel(layout)
    bits = [*range(16), *range(16, 32), *range(48, 64)]
    kernel.section(8, online=True, early=True, taint=True, subsections=bits)
    kernel.ram_pages(0x40000, 0x42000)
    kernel.hole_pages(0x42000, 0x48000, "ZONE_NORMAL")
    done = kernel.pgmap((0x42000, 0x44000))
    kernel.pgmap((0x46000, 0x48000), in_flight=True)
    kernel.device_pages(0x42000, 0x44000, done)
    report = proposal(kernel.program())
    assert wrong(report, "section-flag") == [
        (0x40000, 0x42000, "online", True),
        (0x44000, 0x46000, "partial", True),
        (0x46000, 0x48000, "initializing", True),
    ]
    for name in ("section-flag+pgmap", "taint+pgmap", "early-bit"):
        assert wrong(report, name) == [(0x46000, 0x48000, "initializing", True)]
    for name in ("late-bit", "late-bit+reserve", "late-bit-data", "two-bits", "pgmap+range"):
        assert wrong(report, name) == []


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_without_taint_a_device_in_an_online_section_is_lost(layout: str) -> None:
    # Between sparse_add_section() and the taint: pfn_to_online_page() takes it for RAM.
    kernel = collision(layout)
    kernel.section(4, online=True, early=True, taint=False)
    report = proposal(kernel.program())
    assert (0x24400, 0x28000, "device", False) in wrong(report, "taint+pgmap")
    # The section of its own is told without taint.
    assert no(report, "taint+pgmap") == Counter(device=0x3C00)
    assert yes(report, "taint+pgmap") == Counter()


@each_layout
def test_broken_struct_pages_are_the_kernels_fault(layout: str) -> None:
    kernel = collision(layout)
    kernel.poke_page_word(0x25000, 1, 0)
    report = proposal(kernel.program())
    assert report.broken == 1
    assert verdict(report, "two-bits").right == report.judged


@each_layout
def test_what_is_not_known_is_not_judged(layout: str) -> None:
    kernel = collision(layout)
    kernel.section(6, has_mem_map=False)
    report = proposal(kernel.program())
    assert [(u.start_pfn, u.end_pfn) for u in report.unjudged] == [(0x30000, 0x38000)]
    assert report.judged == 0x40000 - 0x8000


@each_layout
def test_a_kernel_without_device_memory(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    report = proposal(kernel.program())
    assert (report.judged, report.valid) == (0x8000, 0)
    assert all(v.right == 0x8000 for v in report.verdicts)


@each_layout
def test_ram_that_boot_has_not_initialised_is_no_devices(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.set_variable("sections_per_block", 0)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    kernel.poke_member("pglist_data", kernel.nodes[0], "first_deferred_pfn", 0x4000)
    key = kernel.variables["deferred_pages"][1]
    kernel.poke_member("static_key_true", key, "key.enabled.counter", 1)
    report = proposal(kernel.program())
    assert all(v.right == 0x8000 for v in report.verdicts)
    assert all((v.taken_for_ram, v.lost_ram) == ({}, 0) for v in report.verdicts)


# Intervals against one PFN after the other.


@each_layout
@pytest.mark.parametrize("scene", [*ARRANGED, "dying"])
def test_intervals_answer_what_every_pfn_would(layout: str, scene: str) -> None:
    build = dying if scene == "dying" else ARRANGED[scene][0]
    prog = build(layout).program()
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    marks = Marks(snapshot, ranges)
    report_wrong = {v.variant.name: _by_pfn(v.wrong) for v in _verdicts(prog)}
    pfn = np.concatenate([np.arange(r.start_pfn, r.end_pfn) for r in ranges])
    truth = np.concatenate([np.full(r.pages, r.case is Case.DEVICE) for r in ranges])
    asked = Asked(snapshot, marks, snapshot.predicates(pfn))
    for variant in VARIANTS:
        answer = variant.lookup(asked)
        expected = set(pfn[answer != truth].tolist())
        assert report_wrong[variant.name] == expected, variant.name


def _verdicts(prog: Program) -> tuple[Verdict, ...]:
    from drgn_zonedev.pfn_proposal import try_variants

    snapshot = take_snapshot(prog)
    return try_variants(prog, snapshot, classify_snapshot(prog, snapshot))


def _by_pfn(found: tuple[Wrong, ...]) -> set[int]:
    return {pfn for w in found for pfn in range(w.start_pfn, w.end_pfn)}


@each_layout
@pytest.mark.parametrize("scene", ARRANGED)
def test_bitmaps_are_those_of_every_subsection(layout: str, scene: str) -> None:
    prog = ARRANGED[scene][0](layout).program()
    snapshot = take_snapshot(prog)
    marks = Marks(snapshot, classify_snapshot(prog, snapshot))
    for row, nr in enumerate(snapshot.sections.nr.tolist()):
        for bit in range(64):
            start = nr * SECTION + bit * SUBSECTION
            end = start + SUBSECTION
            populated = bool(int(snapshot.sections.subsection_map[row, 0]) >> bit & 1)
            claims = [r for p in snapshot.pgmaps for r in p.ranges]
            early = any(r.start_pfn < end and start < r.end_pfn for r in claims)
            if scene == "failed":
                early = True
            assert bool(int(marks.early[row, 0]) >> bit & 1) == (early and populated)
            done = [r for p in snapshot.pgmaps for r in p.ranges[: p.nr_range]]
            late = any(r.start_pfn < end and start < r.end_pfn for r in done)
            assert bool(int(marks.late[row, 0]) >> bit & 1) == (late and populated)


# What it costs.


@each_layout
def test_memory_is_8_bytes_a_section_for_each_bit(layout: str) -> None:
    report = proposal(collision(layout).program())
    sections_per_tib = (1 << 40) // (128 << 20)
    for v in report.verdicts:
        assert v.memory.per_section == 8 * v.variant.bitmaps
        assert v.memory.machine == 8 * 8 * v.variant.bitmaps
        assert v.memory.per_tib == 8 * sections_per_tib * v.variant.bitmaps
    assert verdict(report, "late-bit").memory.per_tib == 64 << 10
    assert verdict(report, "two-bits").memory.per_tib == 128 << 10


@pytest.mark.parametrize(
    ("size", "spent"), [(1, 8), (56, 64), (64, 64), (72, 96), (88, 96), (104, 128), (9000, 12288)]
)
def test_kmalloc_has_caches_between_powers_of_two(size: int, spent: int) -> None:
    assert kmalloc_size(size) == spent


def counted(kernel: FakeKernel, pfn: int) -> dict[str, Lookup]:
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    marks = Marks(snapshot, classify_snapshot(prog, snapshot))
    found = {v.name: lookup_cost(v, [Question(prog, marks, pfn)]) for v in VARIANTS}
    return {name: lookup for name, lookup in found.items() if lookup}


# In pgmap_array, [0x24000, 0x30000) is 12 slots of its only node: the first has the entry, the
# others refer to it. So xa_load() reads the head, the node's shift, a slot, and maybe the first.
XA_LOAD = {0x24400: 3, 0x2FFFF: 4}


@each_layout
@pytest.mark.parametrize("pfn", XA_LOAD)
def test_a_lookup_loads_what_its_functions_load(layout: str, pfn: int) -> None:
    costs = counted(collision(layout), pfn)
    # 5.10 has a pointer to the reference.
    pointer = 1 if layout == "5.10" else 0
    get, put = XA_LOAD[pfn] + 2 + pointer, 2 + pointer
    # Section 4 is early and online, and tainted; section 5 is the device's own.
    beside_ram = pfn < 0x28000
    pfn_valid = 3 if beside_ram else 5
    online = 6 if beside_ram else 3
    nested = get + put if beside_ram else 0
    # mem_section, its root, the usage and the bitmap.
    posted = pfn_valid + 4
    assert {name: cost.first.loads for name, cost in costs.items()} == {
        "section-flag": 3,
        "section-flag+pgmap": 3 + get + put,
        "taint+pgmap": pfn_valid + online + nested + get + put,
        "early-bit": 5,
        "late-bit": posted,
        # The flags, two words of the altmap, and the end of the range.
        "late-bit+reserve": posted + get + 4 + put,
        "late-bit-data": 5,
        "two-bits": 5,
        # nr_range, both ends, the flags, and two words of the altmap.
        "pgmap+range": get + 6 + put,
    }
    assert {name: cost.again.loads for name, cost in costs.items()} == {
        "section-flag": 3,
        "section-flag+pgmap": 3 + 2,
        "taint+pgmap": pfn_valid + online + nested + 2,
        "early-bit": 5,
        "late-bit": posted,
        "late-bit+reserve": posted,
        "late-bit-data": 5,
        "two-bits": 5,
        "pgmap+range": 2,
    }
    twice = {"taint+pgmap"} if beside_ram else set()
    once = {"section-flag+pgmap", "taint+pgmap", "late-bit+reserve", "pgmap+range"} - twice
    for name, cost in costs.items():
        walks = 2 if name in twice else 1 if name in once else 0
        assert (cost.walks, cost.depth) == (walks, min(walks, 1)), name
        # percpu_ref is in percpu mode: a counter of this CPU goes up, and down again.
        assert (cost.first.percpu, cost.first.atomics) == (2 * walks, 0), name
        assert (cost.again.percpu, cost.again.atomics) == (2 if name in twice else 0, 0), name


@each_layout
def test_lines_and_read_side_sections(layout: str) -> None:
    costs = counted(collision(layout), 0x2FFFF)
    # mem_section, its root, a section; bitmaps follow each other, in one line or two.
    assert costs["section-flag"].first.lines == 3
    assert costs["early-bit"].first.lines == costs["late-bit-data"].first.lines == 4
    assert costs["two-bits"].first.lines in (4, 5)
    assert {name: cost.first.rcu for name, cost in costs.items()} == {
        "section-flag": 0,
        "section-flag+pgmap": 2,
        "taint+pgmap": 3,
        "early-bit": 1,
        "late-bit": 1,
        "late-bit+reserve": 3,
        "late-bit-data": 1,
        "two-bits": 1,
        "pgmap+range": 2,
    }


@each_layout
def test_a_reference_in_atomic_mode_costs_atomic_operations(layout: str) -> None:
    kernel = collision(layout)
    prog = kernel.program()
    ((_, pgmap),) = for_each_dev_pagemap(prog)
    word = pgmap_ref(pgmap).percpu_count_ptr
    kernel.poke(word.address_of_().value_(), (word.value_() | 1).to_bytes(8, "little"))
    costs = counted(kernel, 0x24400)
    assert [costs["pgmap+range"].first.percpu, costs["pgmap+range"].first.atomics] == [0, 2]
    assert [costs["taint+pgmap"].first.percpu, costs["taint+pgmap"].first.atomics] == [0, 4]
    # The state is read twice, then the counter's pointer, and the counter; once for the put.
    pointer = 1 if layout == "5.10" else 0
    assert costs["section-flag+pgmap"].first.loads == 3 + (3 + 4 + pointer) + (3 + pointer)


@each_layout
def test_nobody_puts_a_reference_that_was_not_got(layout: str) -> None:
    costs = counted(teardown(layout), 0x24400)
    pointer = 1 if layout == "5.10" else 0
    path = costs["pgmap+range"].first.loads
    # The word that says that the reference is dead is read twice.
    assert path == XA_LOAD[0x24400] + 2 + pointer
    assert costs["section-flag+pgmap"].first.loads == 3 + path
    assert costs["pgmap+range"].again.loads == 0
    assert all(c.first.percpu == c.first.atomics == 0 for c in costs.values())


# Kernels that have the bits.


def carrying(*names: str) -> FakeKernel:
    """A kernel whose struct mem_section_usage has more bitmaps."""
    kernel = FakeKernel("6.12")
    kernel.layout = copy.deepcopy(kernel.layout)
    usage = kernel.layout.structs["mem_section_usage"]
    for i, name in enumerate(names):
        usage.members[name] = Member("unsigned long [1]", 24 + 8 * i)
    usage.members["pageblock_flags"] = Member("unsigned long [0]", 24 + 8 * len(names))
    usage.size += 8 * len(names)
    return kernel


def marked_device(kernel: FakeKernel, **bits: int) -> None:
    """A map=dev device that fills section 8, but for the last subsection; its head is one."""
    section = kernel.section(8, subsections=range(63))
    usage = kernel.member("mem_section", section, "usage")
    for name, value in bits.items():
        offset = kernel.layout.structs["mem_section_usage"].members[name].offset
        kernel.poke(usage + offset, value.to_bytes(8, "little"))
    put_device(kernel, Device(0x40000, 0x47E00, altmap=Altmap(0x40000, 0x47DFF, 2, 510)))


ALL = (1 << 63) - 1


def test_kernels_without_the_bits_carry_nothing() -> None:
    assert proposal(collision("6.12").program()).carried == ()


def test_both_bits_as_they_should_be() -> None:
    kernel = carrying("subsection_dev_map", "subsection_init_map")
    marked_device(kernel, subsection_dev_map=ALL, subsection_init_map=ALL & ~1)
    carried = {c.name: c for c in proposal(kernel.program()).carried}
    assert {name: (c.bits, c.different) for name, c in carried.items()} == {
        "subsection_dev_map": (63, 0),
        "subsection_init_map": (62, 0),
    }


def test_one_bit_too_many_and_some_too_few() -> None:
    kernel = carrying("subsection_dev_map", "subsection_init_map")
    marked_device(kernel, subsection_dev_map=ALL & ~0x30, subsection_init_map=ALL)
    carried = {c.name: c for c in proposal(kernel.program()).carried}
    (late,) = carried["subsection_init_map"].differences
    assert (late.start_pfn, late.end_pfn, late.found) == (0x40000, 0x40200, True)
    (early,) = carried["subsection_dev_map"].differences
    assert (early.start_pfn, early.end_pfn, early.found) == (0x40800, 0x40C00, False)


def test_alone_the_bit_is_the_late_one_of_2019() -> None:
    kernel = carrying("subsection_dev_map")
    marked_device(kernel, subsection_dev_map=ALL)
    (carried,) = proposal(kernel.program()).carried
    assert (carried.bits, carried.different) == (63, 0)
    assert "2019" in carried.meaning


def test_maps_of_online_and_of_active_subsections() -> None:
    kernel = carrying("subsection_online_map", "subsection_active_map")
    marked_device(kernel, subsection_active_map=ALL)
    ram = kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    usage = kernel.member("mem_section", ram, "usage")
    for name in ("subsection_online_map", "subsection_active_map"):
        offset = kernel.layout.structs["mem_section_usage"].members[name].offset
        kernel.poke(usage + offset, b"\xff" * 8)
    carried = {c.name: (c.bits, c.different) for c in proposal(kernel.program()).carried}
    assert carried == {"subsection_active_map": (127, 0), "subsection_online_map": (64, 0)}


def test_bits_that_cannot_be_read_are_not_wrong() -> None:
    kernel = carrying("subsection_dev_map")
    marked_device(kernel, subsection_dev_map=0)
    section = kernel.section(9)
    usage = kernel.member("mem_section", section, "usage")
    kernel.hide(usage + 24, 8)
    (carried,) = proposal(kernel.program()).carried
    assert [(u.start_pfn, u.end_pfn) for u in carried.unreadable] == [(0x48000, 0x50000)]
    assert carried.different == 63
