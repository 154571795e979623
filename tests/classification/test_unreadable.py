# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A structure that a dump does not have: what depends on it is unknown, the address
that is missing is told, and everything else is as it was.
"""

from __future__ import annotations

import functools

import pytest
from drgn import Object, Program, offsetof, sizeof
from support import kernels
from support.fakekernel import FakeKernel
from support.kernels import Device, each_layout

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.explanation.resolve import resolve_pfn
from drgn_zonedev.kernel.memory_blocks import memory_blocks
from drgn_zonedev.kernel.memremap import pgmap_ref
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.kernel.xarray import xa_entries
from drgn_zonedev.model import Case, Report
from drgn_zonedev.report import check

PAGE = 4096
DEVICE = (0x100000, 0x109000)
OFFLINE = 0x40


# A device in boot RAM, one in sections of its own, the second in part, and RAM offline.
machine = functools.partial(kernels.machine, devices=(Device(*DEVICE),), offline=OFFLINE)


def address_of_pgmap(prog: Program) -> int:
    (pgmap,) = (
        int(value)
        for first, value in zip(*columns(prog, "pgmap_array"))
        if DEVICE[0] <= first < DEVICE[1]
    )
    return pgmap


def columns(prog: Program, name: str) -> tuple[list[int], list[int]]:
    entries = xa_entries(prog[name].address_of_())
    return entries.first.tolist(), entries.value.tolist()


def pgmap(prog: Program) -> tuple[int, int]:
    return address_of_pgmap(prog), sizeof(prog.type("struct dev_pagemap"))


def reference(prog: Program) -> tuple[int, int]:
    object_ = Object(prog, "struct dev_pagemap *", address_of_pgmap(prog))
    return pgmap_ref(object_).value_(), sizeof(prog.type("struct percpu_ref"))


def usage(prog: Program) -> tuple[int, int]:
    found = sections(prog)
    row = found.nr.tolist().index(DEVICE[0] // 0x8000)
    return int(found.usage[row]), sizeof(prog.type("struct mem_section_usage"))


def block(prog: Program) -> tuple[int, int]:
    found = memory_blocks(prog).find(OFFLINE)
    assert found
    return found[0], sizeof(prog.type("struct memory_block"))


def node_of_device(prog: Program) -> tuple[int, int]:
    # The child of pgmap_array's root that has the device.
    node_type = prog.type("struct xa_node")
    root = prog["pgmap_array"].xa_head.value_() - 2
    shift = prog.read_u8(root + offsetof(node_type, "shift"))
    slot = root + offsetof(node_type, "slots") + 8 * (DEVICE[0] >> shift)
    entry = prog.read_u64(slot)
    assert entry & 3 == 2
    return entry - 2, sizeof(node_type)


STRUCTURES = {
    "dev_pagemap": (pgmap, DEVICE),
    "percpu_ref": (reference, DEVICE),
    "mem_section_usage": (usage, (DEVICE[0], DEVICE[0] + 0x8000)),
    "memory_block": (block, (OFFLINE * 0x8000, (OFFLINE + 1) * 0x8000)),
    "xa_node": (node_of_device, (0x100000, 0x140000)),
}


def case_at(report: Report, pfn: int) -> Case | None:
    found = [r.case for r in report.ranges if r.start_pfn <= pfn < r.end_pfn]
    return found[0] if found else None


def cases(report: Report, but: tuple[int, int] = (0, 0)) -> dict[int, Case | None]:
    """The case of the first and the last PFN of each range, but for those in a span."""
    pfns = {pfn for r in report.ranges for pfn in (r.start_pfn, r.end_pfn - 1)}
    return {pfn: case_at(report, pfn) for pfn in pfns if not but[0] <= pfn < but[1]}


def errors(report: Report) -> set[tuple[str, int]]:
    return {(f.slug, f.start_pfn) for f in report.findings if f.severity.value == "error"}


@each_layout
@pytest.mark.parametrize("structure", STRUCTURES)
def test_structure_that_is_missing_is_told_with_its_address(layout: str, structure: str) -> None:
    place, span = STRUCTURES[structure]
    kernel = machine(layout)
    before = check(kernel.program())
    address, size = place(kernel.program())
    kernel.hide(address, size)
    after = check(kernel.program())
    told = [u for u in after.unjudged if u.address == address]
    assert told
    assert all(u.start_pfn >= span[0] and u.end_pfn <= span[1] for u in told)
    assert f"{address:#x}" in " ".join(u.reason for u in told)
    assert [m.holds for m in after.missing] == [f"a structure at {address:#x}"]
    for pfn, case in cases(before, span).items():
        assert case_at(after, pfn) is case, f"{pfn:#x}"
    assert errors(after) == errors(before) == set()


# Predicates that need each of them for the first PFN that it is about.
NEEDED_BY = {
    "dev_pagemap": {"get_dev_pagemap", "pgmap_pfn_valid"},
    "percpu_ref": {"get_dev_pagemap"},
    "mem_section_usage": {"pfn_section_valid", "pfn_valid", "pfn_zone_device_reserved"},
    "memory_block": set(),
    "xa_node": {"get_dev_pagemap", "pgmap_pfn_valid", "pfn_zone_device"},
}


def answers(prog: Program, pfn: int) -> dict[str, bool | str]:
    return {p.name: p.answer for p in explain(prog, pfn).predicates}


@functools.cache
def answers_of_whole_machine(layout: str) -> dict[int, dict[str, bool | str]]:
    prog = machine(layout).program()
    return {pfn: answers(prog, pfn) for pfn in cases(check(prog))}


def is_unread(answer: bool | str) -> bool:
    return str(answer).startswith("cannot be read: ")


@each_layout
@pytest.mark.parametrize("structure", STRUCTURES)
def test_page_is_explained_without_the_structure(layout: str, structure: str) -> None:
    place, span = STRUCTURES[structure]
    kernel = machine(layout)
    address, size = place(kernel.program())
    kernel.hide(address, size)
    prog = kernel.program()
    after = check(prog)
    for pfn, old in answers_of_whole_machine(layout).items():
        explanation = explain(prog, pfn)
        assert explanation.range is not None
        assert explanation.range.case is case_at(after, pfn)
        new = {p.name: p.answer for p in explanation.predicates}
        for name, answer in new.items():
            assert is_unread(answer) or answer == old.get(name, answer), f"{name} of {pfn:#x}"
        assert old.keys() <= new.keys()
        if not span[0] <= pfn < span[1]:
            assert new == old
    unread = {name for name, answer in answers(prog, span[0]).items() if is_unread(answer)}
    assert NEEDED_BY[structure] <= unread


@each_layout
def test_page_is_explained_by_what_is_left_of_a_damaged_node(layout: str) -> None:
    kernel = machine(layout)
    address, _ = node_of_device(kernel.program())
    kernel.poke(address + offsetof(kernel.program().type("struct xa_node"), "shift"), b"\x3f")
    found = answers(kernel.program(), DEVICE[0])
    unread = {name for name, answer in found.items() if is_unread(answer)}
    assert {"get_dev_pagemap", "pgmap_pfn_valid", "pfn_zone_device"} <= unread
    assert found["pfn_valid"] is True


@each_layout
def test_number_is_a_pfn_where_nothing_tells_what_else_it_is(layout: str) -> None:
    kernel = machine(layout)
    kernel.hide(kernel.program()["pgmap_array"].xa_head.value_() - 2, 8)
    prog = kernel.program()
    assert resolve_pfn(prog, 0x60000000) == (0x60000000, "PFN")
    assert resolve_pfn(prog, DEVICE[0] << 12) == (DEVICE[0], "physical address")


@each_layout
def test_node_that_begins_in_memory_that_is_there_is_told_by_where_it_ends(layout: str) -> None:
    # A struct xa_node is 576 bytes in slab pages of 16 KiB: some lie across two pages,
    # of which makedumpfile 1.7.8 leaves out the second one on 7.3.
    kernel = machine(layout)
    address, size = node_of_device(kernel.program())
    moved = kernel.allocate(2 * PAGE) + PAGE - 64
    kernel.poke(moved, kernel.memory.read(address, size))
    parent = kernel.program()["pgmap_array"].xa_head.value_() - 2
    raw = kernel.memory.read(parent, size)
    kernel.poke(
        parent, raw.replace((address + 2).to_bytes(8, "little"), (moved + 2).to_bytes(8, "little"))
    )
    before = check(kernel.program())
    assert cases(before) == cases(check(machine(layout).program()))
    kernel.hide(moved + 64, PAGE)
    after = check(kernel.program())
    assert [u.address for u in after.unjudged] == [moved + 64]
    assert f"struct xa_node at {moved:#x}" in after.unjudged[0].reason
    assert [m.holds for m in after.missing] == [f"a structure at {moved + 64:#x}"]


@each_layout
def test_any_page_that_is_missing_makes_unknown_what_needs_it(layout: str) -> None:
    kernel = machine(layout)
    whole = check(kernel.program())
    unknown = 0
    for page in heap_pages(kernel):
        kernel.hide(page, PAGE)
        found = check(kernel.program())
        kernel.memory.hidden.clear()
        assert errors(found) <= errors(whole), f"{page:#x}"
        for pfn, case in cases(whole).items():
            now = case_at(found, pfn)
            if now is case:
                continue
            unknown += 1
            told = [u.address for u in found.unjudged if u.start_pfn <= pfn < u.end_pfn]
            assert now in (None, Case.UNKNOWN), f"{page:#x}: {pfn:#x} is {now}"
            assert any(a and page <= a < page + PAGE for a in told), f"{page:#x}: {pfn:#x}"
    assert unknown


def heap_pages(kernel: FakeKernel) -> list[int]:
    """Pages that ``check`` reads of the kernel's heap."""
    seen: set[int] = set()

    def watch(address: int, count: int) -> None:
        seen.update(range(address // PAGE * PAGE, address + count, PAGE))

    kernel.on_read = watch
    check(kernel.program())
    kernel.on_read = None
    heap = kernel.allocate(1)
    return sorted(page for page in seen if abs(page - heap) < 1 << 20)


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_what_only_zones_could_tell_is_unknown_without_them(layout: str) -> None:
    kernel = FakeKernel(layout)
    # RAM ends in mid-section. A device was behind it, and left.
    kernel.section(8, online=True, early=True, taint=True, subsections=range(40))
    kernel.memory_block(8)
    kernel.ram_pages(0x40000, 0x45000)
    kernel.grow_zone("ZONE_DEVICE", 0x45000, 0x48000)
    before = {r.start_pfn: r.case for r in check(kernel.program()).ranges}
    assert before == {0x40000: Case.ONLINE, 0x45000: Case.GHOST}
    prog = kernel.program()
    zone = kernel.zone(0, prog.constant("ZONE_DEVICE").value_())
    kernel.hide(zone, kernel.layout.structs["zone"].size)
    report = check(prog)
    after = {r.start_pfn: r.case for r in report.ranges}
    assert after == {0x40000: Case.ONLINE, 0x45000: Case.UNKNOWN}
    (unjudged,) = (u for u in report.unjudged if u.start_pfn <= 0x45000 < u.end_pfn)
    assert unjudged.address is not None
    assert zone <= unjudged.address < zone + kernel.layout.structs["zone"].size
