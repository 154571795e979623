# SPDX-License-Identifier: LGPL-2.1-or-later

"""Whole xarrays, healthy ones like drgn and damaged ones without getting lost."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from drgn import FaultError, Object, Program
from drgn.helpers.linux.xarray import xa_for_each, xa_load
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakekernel import FakeKernel
from support.fakekernel.layouts import TABLES, Layout, Member, Struct
from support.kernels import each_layout

from drgn_zonedev.export.store import stored_dumps
from drgn_zonedev.kernel.xarray import (
    XArrayEntries,
    xa_entries,
    xa_is_err,
    xa_is_internal,
    xa_is_node,
    xa_is_sibling,
    xa_lookup,
)

# Without CONFIG_ZONE_DEVICE, there is no such array.
DUMPS = [
    d for d in stored_dumps(Path(__file__).parents[2] / "vmcores") if "6.1-arm64" not in d.name
]
SLOTS, SHIFT, OFFSET, PARENT = 40, 0, 1, 8
POINTER = 0xFFFF888000100000
END = 1 << 64


def array(prog: Program, name: str = "pgmap_array") -> Object:
    return prog[name].address_of_()


def entries(kernel: FakeKernel) -> list[tuple[int, int, int]]:
    found = xa_entries(array(kernel.program()))
    assert found.gaps == ()
    return rows(found)


def rows(found: XArrayEntries) -> list[tuple[int, int, int]]:
    return list(zip(found.first.tolist(), found.last.tolist(), found.value.tolist()))


def gaps(kernel: FakeKernel) -> list[tuple[int, int, int]]:
    return [(g.start, g.end, g.node) for g in xa_entries(array(kernel.program())).gaps]


def head(kernel: FakeKernel) -> int:
    return int.from_bytes(kernel.memory.read(kernel.pgmap_array.address + 8, 8), "little")


def slot(node: int, offset: int) -> int:
    return node + SLOTS + 8 * offset


def child(kernel: FakeKernel, node: int, offset: int) -> int:
    value = int.from_bytes(kernel.memory.read(slot(node, offset), 8), "little")
    assert value & 3 == 2
    return value - 2


def poke(kernel: FakeKernel, address: int, value: int, size: int = 8) -> None:
    kernel.poke(address, value.to_bytes(size, "little"))


# Healthy arrays.


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.name)
def test_real_arrays_hold_what_drgn_finds(dump: object) -> None:
    with dump.program() as prog:  # type: ignore[attr-defined]
        for name in ("pgmap_array", "memory_blocks"):
            expected = [(i, entry.value_()) for i, entry in xa_for_each(array(prog, name))]
            found = xa_entries(array(prog, name))
            assert found.gaps == ()
            assert list(zip(found.first.tolist(), found.value.tolist())) == expected
            for first, last, value in rows(found):
                for index in (first, (first + last) // 2, last):
                    assert xa_load(array(prog, name), index).value_() == value
                    assert xa_lookup(array(prog, name), index) == value
                # What is behind belongs to the next entry or to nobody.
                assert xa_lookup(array(prog, name), last + 1) in {
                    0,
                    *(v for f, _, v in rows(found) if f == last + 1),
                }


def test_empty_array() -> None:
    assert entries(FakeKernel()) == []
    assert xa_lookup(array(FakeKernel().program()), 7) == 0


def test_entry_without_a_node() -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store(0, POINTER)
    assert entries(kernel) == [(0, 0, POINTER)]
    assert [xa_lookup(array(kernel.program()), i) for i in (0, 1)] == [POINTER, 0]


ranges = st.lists(
    st.one_of(st.integers(0, 1 << 13), st.integers(0, 1 << 40)).map(lambda n: n // 7 * 7),
    min_size=2,
    max_size=16,
    unique=True,
)


@settings(max_examples=60, deadline=None)
@given(cuts=ranges)
def test_ranges_come_back_as_they_were_stored(cuts: list[int]) -> None:
    kernel = FakeKernel()
    cuts = sorted(cuts)
    # Pairs with gaps between them, and neighbours with different pointers.
    spans = list(zip(cuts, cuts[1:]))
    stored = [(a, b, POINTER + 64 * i) for i, (a, b) in enumerate(spans) if i % 3 != 2]
    for start, end, pointer in stored:
        kernel.pgmap_array.store_range(start, end - 1, pointer)
    merged: list[tuple[int, int, int]] = []
    for first, last, value in entries(kernel):
        if merged and merged[-1][2] == value and merged[-1][1] == first:
            merged[-1] = (merged[-1][0], last + 1, value)
        else:
            merged.append((first, last + 1, value))
    assert merged == stored
    prog = kernel.program()
    assert [(first, value) for first, _, value in entries(kernel)] == [
        (i, entry.value_()) for i, entry in xa_for_each(array(prog))
    ]
    for index in {n for cut in cuts for n in (cut - 1, cut, cut + 1) if n >= 0}:
        assert xa_lookup(array(prog), index) == xa_load(array(prog), index).value_()


@pytest.mark.parametrize("last", [1 << 60, (1 << 63) + 5, END - 1])
def test_indices_reach_to_the_last_bit(last: int) -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store(3, POINTER)
    kernel.pgmap_array.store(last, POINTER + 64)
    assert entries(kernel) == [(3, 3, POINTER), (last, last, POINTER + 64)]
    assert xa_lookup(array(kernel.program()), last) == POINTER + 64


def test_entry_that_covers_all_indices_ends_with_them() -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store(END - 1, POINTER)
    root = head(kernel) - 2
    poke(kernel, slot(root, 0), POINTER + 64)
    for offset in range(1, 16):
        poke(kernel, slot(root, offset), 0 << 2 | 2)
    # Slots behind the sixteenth have no index at all.
    poke(kernel, slot(root, 20), POINTER + 128)
    assert entries(kernel) == [(0, END - 1, POINTER + 64)]


def test_zero_entries_are_reserved_and_not_there() -> None:
    kernel = FakeKernel()
    for index in range(4):
        kernel.pgmap_array.store(index, POINTER + 64 * index)
    root = head(kernel) - 2
    poke(kernel, slot(root, 1), 1030)
    poke(kernel, slot(root, 2), 1 << 2 | 2)
    assert entries(kernel) == [(0, 0, POINTER), (3, 3, POINTER + 192)]
    prog = kernel.program()
    assert [xa_lookup(array(prog), i) for i in range(4)] == [POINTER, 0, 0, POINTER + 192]
    assert [xa_load(array(prog), i).value_() for i in range(3)] == [POINTER, 0, 0]


def test_lone_zero_entry_is_an_empty_array() -> None:
    kernel = FakeKernel()
    poke(kernel, kernel.pgmap_array.address + 8, 1030)
    assert entries(kernel) == []
    assert xa_lookup(array(kernel.program()), 0) == 0


def test_values_are_entries() -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store(5, 77 << 1 | 1)
    assert entries(kernel) == [(5, 5, 77 << 1 | 1)]


def test_root_may_be_stale_in_its_parent_and_offset() -> None:
    # xas_expand() links the old root to the new one before anybody can see it.
    kernel = FakeKernel()
    kernel.pgmap_array.store_range(0x1000, 0x2FFF, POINTER)
    before = entries(kernel)
    poke(kernel, head(kernel) - 2 + PARENT, 0xFFFF888012345678)
    assert entries(kernel) == before
    assert xa_lookup(array(kernel.program()), 0x1000) == POINTER


# Damaged ones. The tree: root with shift 12, below it at offset 1 the node for
# 0x1000-0x1FFF with shift 6, and at offset 2 the one for 0x2000-0x2FFF.


class Tree:
    def __init__(self) -> None:
        self.kernel = FakeKernel()
        for i, index in enumerate((0x1000, 0x1041, 0x2000, 0x2FFF)):
            self.kernel.pgmap_array.store(index, POINTER + 64 * i)
        self.root = head(self.kernel) - 2
        self.first = child(self.kernel, self.root, 1)
        self.second = child(self.kernel, self.root, 2)
        self.leaf = child(self.kernel, self.first, 0)


REST = [(0x2000, 0x2000, POINTER + 128), (0x2FFF, 0x2FFF, POINTER + 192)]


def check_damage(tree: Tree, gap: tuple[int, int, int], left: list[tuple[int, int, int]]) -> None:
    found = xa_entries(array(tree.kernel.program()))
    assert [(g.start, g.end, g.node) for g in found.gaps] == [gap]
    assert rows(found) == left
    prog = tree.kernel.program()
    for index in (gap[0], (gap[0] + gap[1]) // 2, gap[1] - 1):
        with pytest.raises(FaultError):
            xa_lookup(array(prog), index)
    for first, last, value in left:
        assert xa_lookup(array(prog), first) == xa_lookup(array(prog), last) == value


def test_unreadable_array() -> None:
    tree = Tree()
    tree.kernel.hide(tree.kernel.pgmap_array.address, 16)
    check_damage(tree, (0, END, 0), [])


def test_unreadable_root() -> None:
    tree = Tree()
    tree.kernel.hide(tree.root, 8)
    check_damage(tree, (0, END, tree.root), [])


def test_unreadable_node() -> None:
    tree = Tree()
    tree.kernel.hide(tree.first + 100, 1)
    check_damage(tree, (0x1000, 0x2000, tree.first), REST)


@pytest.mark.parametrize("shift", [3, 66, 255])
def test_root_of_no_shift(shift: int) -> None:
    tree = Tree()
    poke(tree.kernel, tree.root + SHIFT, shift, 1)
    check_damage(tree, (0, END, tree.root), [])


Damage = Callable[[Tree], None]


def poke_node(member: int, value: int, size: int) -> Damage:
    return lambda tree: poke(tree.kernel, tree.first + member, value, size)


@pytest.mark.parametrize(
    "damage",
    [
        poke_node(SHIFT, 0, 1),
        poke_node(SHIFT, 12, 1),
        poke_node(OFFSET, 2, 1),
        poke_node(PARENT, 0xFFFF888001234500, 8),
    ],
)
def test_node_of_another_place(damage: Damage) -> None:
    tree = Tree()
    damage(tree)
    check_damage(tree, (0x1000, 0x2000, tree.first), REST)


@pytest.mark.parametrize("to", ["root", "first", "second"])
def test_cycle_and_shared_node(to: str) -> None:
    tree = Tree()
    target = getattr(tree, to)
    poke(tree.kernel, slot(tree.first, 0), target + 2)
    check_damage(tree, (0x1000, 0x1040, target), [(0x1041, 0x1041, POINTER + 64), *REST])


def test_node_below_the_lowest_level() -> None:
    tree = Tree()
    poke(tree.kernel, slot(tree.leaf, 0), tree.leaf + 2)
    check_damage(tree, (0x1000, 0x1001, tree.leaf), [(0x1041, 0x1041, POINTER + 64), *REST])


@pytest.mark.parametrize("value", [0xFFFFFFFFFFFFF002, 0xDEAD000000000102, 0xFFFFFFFFFFFFFFFE])
def test_pointer_to_nowhere(value: int) -> None:
    tree = Tree()
    poke(tree.kernel, slot(tree.root, 1), value)
    check_damage(tree, (0x1000, 0x2000, value - 2), REST)


@pytest.mark.parametrize("value", [1026, 254, 258, 4094])
def test_internal_entry_that_does_not_belong_there(value: int) -> None:
    # 1026 is the retry entry, which only a reader who came too late can see.
    tree = Tree()
    poke(tree.kernel, slot(tree.first, 7), value)
    left = [(0x1000, 0x1000, POINTER), (0x1041, 0x1041, POINTER + 64), *REST]
    check_damage(tree, (0x11C0, 0x1200, tree.first), left)


@pytest.mark.parametrize("value", [1026, 6])
def test_internal_entry_instead_of_a_root(value: int) -> None:
    tree = Tree()
    poke(tree.kernel, tree.kernel.pgmap_array.address + 8, value)
    check_damage(tree, (0, END, 0), [])


@pytest.mark.parametrize("target", [7, 20, 0, 5])
def test_sibling_of_nothing(target: int) -> None:
    # Of itself, of a slot behind it, of a node, of another sibling.
    tree = Tree()
    poke(tree.kernel, slot(tree.first, 4), POINTER)
    poke(tree.kernel, slot(tree.first, 5), 4 << 2 | 2)
    poke(tree.kernel, slot(tree.first, 7), target << 2 | 2)
    left = [
        (0x1000, 0x1000, POINTER),
        (0x1041, 0x1041, POINTER + 64),
        (0x1100, 0x117F, POINTER),
        *REST,
    ]
    check_damage(tree, (0x11C0, 0x1200, tree.first), left)


@pytest.mark.parametrize("hole", [0, 1030])
def test_siblings_of_an_empty_slot_are_empty(hole: int) -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store_range(0x1000, 0x13FF, POINTER)
    node = child(kernel, head(kernel) - 2, 1)
    poke(kernel, slot(node, 0), hole)
    assert entries(kernel) == []
    assert xa_lookup(array(kernel.program()), 0x1100) == 0
    assert xa_load(array(kernel.program()), 0x1100).value_() == 0


def test_sibling_far_from_its_slot_is_what_a_lookup_finds() -> None:
    kernel = FakeKernel()
    kernel.pgmap_array.store_range(0x1000, 0x13FF, POINTER)
    node = child(kernel, head(kernel) - 2, 1)
    poke(kernel, slot(node, 5), 0)
    assert entries(kernel) == [(0x1000, 0x113F, POINTER), (0x1180, 0x13FF, POINTER)]
    prog = kernel.program()
    for index in range(0x1000, 0x1400, 0x40):
        expected = xa_load(array(prog), index).value_()
        assert xa_lookup(array(prog), index) == expected == (POINTER if index != 0x1140 else 0)


def test_tree_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drgn_zonedev.kernel.xarray._MAX_NODES", 10)
    kernel = FakeKernel()
    for i in range(64):
        kernel.pgmap_array.store(i << 6, POINTER + 64 * i)
    found = xa_entries(array(kernel.program()))
    assert rows(found) == [(i << 6, i << 6, POINTER + 64 * i) for i in range(10)]
    assert [(g.start, g.end) for g in found.gaps] == [(10 << 6, 64 << 6)]


def test_number_of_gaps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drgn_zonedev.kernel.xarray._MAX_GAPS", 3)
    kernel = FakeKernel()
    for i in range(64):
        kernel.pgmap_array.store(i, POINTER + 64 * i)
    node = head(kernel) - 2
    for offset in range(0, 64, 2):
        poke(kernel, slot(node, offset), 1026)
    found = xa_entries(array(kernel.program()))
    assert [first for first, _, _ in rows(found)] == list(range(1, 64, 2))
    assert [(g.start, g.end) for g in found.gaps] == [(0, 1), (2, 3), (4, 5), (6, 63)]


@pytest.mark.parametrize("seed", range(40))
def test_garbage_ends_and_never_overlaps(seed: int) -> None:
    numbers = random.Random(seed)
    kernel = FakeKernel()
    for _ in range(6):
        start = numbers.randrange(1 << 24)
        kernel.pgmap_array.store(start, POINTER + numbers.randrange(1 << 10) * 64)
    nodes = [head(kernel) - 2]
    for node in nodes:
        for offset in range(64):
            value = int.from_bytes(kernel.memory.read(slot(node, offset), 8), "little")
            if value & 3 == 2 and value > 4096:
                nodes.append(value - 2)
    values = [0, 2, 6, 254, 1026, 1030, 4094, POINTER, END - 2, *(node + 2 for node in nodes)]
    for _ in range(numbers.randrange(1, 30)):
        node = numbers.choice(nodes)
        if numbers.random() < 0.3:
            poke(kernel, node + numbers.choice([SHIFT, OFFSET]), numbers.randrange(256), 1)
        else:
            poke(kernel, slot(node, numbers.randrange(64)), numbers.choice(values))
    start_time = time.monotonic()
    found = xa_entries(array(kernel.program()))
    assert time.monotonic() - start_time < 5
    spans = [(first, last + 1) for first, last, _ in rows(found)]
    spans += [(g.start, g.end) for g in found.gaps]
    spans.sort()
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
    assert all(0 <= start < end <= END for start, end in spans)
    # Where the walk found an entry, a lookup finds it; where it found none, nothing.
    prog = kernel.program()
    for start, end in spans:
        for index in {start, end - 1, min(end, END - 1)}:
            try:
                value = xa_lookup(array(prog), index)
            except FaultError:
                assert any(g.start <= index < g.end for g in found.gaps)
            else:
                covering = (found.first <= np.uint64(index)) & (found.last >= np.uint64(index))
                assert found.value[covering].tolist() == ([value] if value else [])


@each_layout
def test_every_layout_has_what_the_walk_needs(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    assert {value for _, _, value in entries(kernel)} == {pgmap}


@pytest.mark.parametrize("last", ["slots", "parent", "shift", "offset"])
def test_members_of_a_node_may_be_in_any_order(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = TABLES["6.1"]
    node = layout.structs["xa_node"]
    at = {**node.members, last: Member(node.members[last].type, node.size)}
    structs = {**layout.structs, "xa_node": Struct(2 * node.size, anonymous=False, members=at)}
    moved = dataclasses.replace(layout, structs=structs)
    monkeypatch.setitem(cast(dict[str, Layout], TABLES), "moved", moved)
    kernel = FakeKernel("moved")
    pgmap = kernel.pgmap((0x40000, 0x48000), (0x80000, 0x80200))
    found = entries(kernel)
    assert {value for _, _, value in found} == {pgmap}
    assert sum(end + 1 - start for start, end, _ in found) == 0x8000 + 0x200
    xa = array(kernel.program())
    looked_up = [xa_lookup(xa, pfn) for pfn in (0x40000, 0x47FFF, 0x48000, 0x801FF)]
    assert looked_up == [pgmap, pgmap, 0, pgmap]


# More than any array holds.


@pytest.mark.parametrize(("runs", "end"), [(1, 0x40), (2, 0x80), (3, 0x81), (4, None), (9, None)])
def test_runs_beyond_a_number_are_a_gap(runs: int, end: int | None) -> None:
    # Two entries that touch and are the same are one run.
    entries = XArrayEntries(
        first=np.array([0, 0x20, 0x40, 0x80, 0x100], np.uint64),
        last=np.array([0x1F, 0x3F, 0x7F, 0x80, 0x1FF], np.uint64),
        value=np.array([8, 8, 16, 8, 8], np.uint64),
        gaps=(),
    )
    found = entries.at_most(runs, "why")
    if end is None:
        assert found is entries
        return
    assert int(found.last[-1]) + 1 == end
    (gap,) = found.gaps
    assert (gap.start, gap.end, gap.reason) == ({0x81: 0x100}.get(end, end), 0x200, "why")


# include/linux/xarray.h: xa_mk_internal(v) is v << 2 | 2, of an unsigned long.
@pytest.mark.parametrize(
    ("entry", "true"),
    [
        (0, ""),
        (POINTER, ""),
        # xa_mk_value(5)
        (11, ""),
        # XA_RETRY_ENTRY, XA_ZERO_ENTRY
        (256 << 2 | 2, "internal"),
        (257 << 2 | 2, "internal"),
        (POINTER | 2, "internal node"),
        # Slots 0, 62 and 63: the last one has none behind it.
        (0 << 2 | 2, "internal sibling"),
        (62 << 2 | 2, "internal sibling"),
        (63 << 2 | 2, "internal"),
        # -EIO, -MAX_ERRNO, and the next
        (END - (5 << 2) | 2, "internal node err"),
        (END - (4095 << 2) | 2, "internal node err"),
        (END - (4096 << 2) | 2, "internal node"),
    ],
)
def test_kinds_of_entries(entry: int, true: str) -> None:
    tests: dict[str, Callable[[Any], Any]] = {
        "internal": xa_is_internal,
        "node": xa_is_node,
        "sibling": lambda entry: xa_is_sibling(entry, 64),
        "err": xa_is_err,
    }
    column = np.array([entry, 0], np.uint64)
    for name, test in tests.items():
        assert test(entry) is (name in true.split())
        assert test(column).tolist() == [name in true.split(), False]
