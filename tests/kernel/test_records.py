# SPDX-License-Identifier: LGPL-2.1-or-later

"""Many small structures, in few reads."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FaultError, Object
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.records import read_records, read_words

SIZE = 24


def make(offsets: list[int]) -> tuple[FakeKernel, int]:
    # Memory whose every byte tells where it is.
    kernel = FakeKernel()
    base = kernel._heap.alloc(1 << 16, 4096)
    kernel.poke(base, (np.arange(1 << 14, dtype="<u4") * np.uint32(2654435761)).tobytes())
    return kernel, base


def expected(kernel: FakeKernel, addresses: list[int]) -> list[bytes]:
    return [kernel.memory.read(address, SIZE) for address in addresses]


@settings(max_examples=60, deadline=None)
@given(
    offsets=st.lists(st.integers(0, (1 << 16) - SIZE), max_size=30),
    gap=st.sampled_from([0, 8, 4096]),
)
def test_rows_are_in_the_order_of_the_addresses(offsets: list[int], gap: int) -> None:
    kernel, base = make(offsets)
    addresses = [base + offset for offset in offsets]
    rows, readable = read_records(
        kernel.program(), np.array(addresses, np.uint64), SIZE, max_gap=gap
    )
    assert [row.tobytes() for row in rows] == expected(kernel, addresses)
    assert readable.all()


@pytest.mark.parametrize("gap", [0, 4096])
def test_what_cannot_be_read_does_not_disturb_the_rest(gap: int) -> None:
    kernel, base = make([])
    offsets = [0, 24, 48, 48, 72, 100, 5000, 40, 5024]
    kernel.hide(base + 60, 1)
    addresses = [base + offset for offset in offsets] + [(1 << 64) - 8]
    rows, readable = read_records(
        kernel.program(), np.array(addresses, np.uint64), SIZE, max_gap=gap
    )
    bad = [60 in range(offset, offset + SIZE) for offset in offsets] + [True]
    assert readable.tolist() == [not b for b in bad]
    for row, address, is_bad in zip(rows, addresses, bad):
        assert row.tobytes() == (bytes(SIZE) if is_bad else kernel.memory.read(address, SIZE))


def count_reads(addresses: list[int], kernel: FakeKernel, gap: int) -> list[tuple[int, int]]:
    reads: list[tuple[int, int]] = []
    kernel.on_read = lambda address, count: reads.append((address, count))
    read_records(kernel.program(), np.array(addresses, np.uint64), SIZE, max_gap=gap)
    return reads


def test_neighbours_are_fetched_together() -> None:
    kernel, base = make([])
    addresses = [base + SIZE * i for i in range(100)]
    assert count_reads(addresses, kernel, 0) == [(base, 100 * SIZE)]


def test_nothing_in_between_is_read_unless_allowed() -> None:
    kernel, base = make([])
    addresses = [base, base + SIZE + 8]
    assert count_reads(addresses, kernel, 0) == [(base, SIZE), (base + SIZE + 8, SIZE)]
    assert count_reads(addresses, kernel, 8) == [(base, 2 * SIZE + 8)]


def test_one_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drgn_zonedev.kernel.records._MAX_READ", 4096)
    kernel, base = make([])
    addresses = [base + SIZE * i for i in range(2000)]
    assert max(count for _, count in count_reads(addresses, kernel, 0)) <= 4096 + SIZE


def test_no_addresses() -> None:
    rows, readable = read_records(FakeKernel().program(), np.empty(0, np.uint64), SIZE)
    assert rows.shape == (0, SIZE)
    assert len(readable) == 0


def test_words_of_a_structure_are_one_read() -> None:
    kernel = FakeKernel()
    members = ("present_pages", "zone_start_pfn", "managed_pages")
    zone = kernel.zone(0, 2)
    for value, member in enumerate(members, (1 << 64) - 3):
        kernel.poke_member("zone", zone, member, value)
    reads: list[tuple[int, int]] = []
    kernel.on_read = lambda address, size: reads.append((address, size))
    prog = kernel.program()
    objects = [Object(prog, "struct zone", address=zone).member_(name) for name in members]
    reads.clear()
    assert read_words(prog, objects) == [(1 << 64) - 3, (1 << 64) - 2, (1 << 64) - 1]
    offsets = [kernel.layout.locate("zone", member)[0] for member in members]
    assert reads == [(zone + min(offsets), max(offsets) + 8 - min(offsets))]
    kernel.hide(zone + offsets[0], 1)
    with pytest.raises(FaultError):
        read_words(prog, objects)
