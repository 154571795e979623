# SPDX-License-Identifier: LGPL-2.1-or-later

"""Readings of structures that change, or that cannot be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.reading import changed_since, take_snapshot, with_devices
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import PgmapRange


class Changes:
    """
    Changes memory each time the plugin has read all of the structures.

    A reading ends with a look at mem_hotplug_lock.
    """

    def __init__(self, kernel: FakeKernel, change: Callable[[int], object], until: int) -> None:
        lock = kernel.variables["mem_hotplug_lock"][1]
        self.address = lock + kernel.layout.locate("percpu_rw_semaphore", "block")[0]
        self.change = change
        self.until = until
        self.readings = 0
        kernel.on_read = self.on_read

    def on_read(self, address: int, size: int) -> None:
        if address == self.address:
            self.readings += 1
            if self.readings <= self.until:
                self.change(self.readings)


FOREVER = 1 << 30


def cut(prog: Program) -> list[tuple[int, int, str]]:
    return [(r.start_pfn, r.end_pfn, r.case.value) for r in classify(prog)]


def ram_and_device(layout: str = "6.1") -> tuple[FakeKernel, int]:
    """RAM in section 8, a device in section 9, another in section 10."""
    kernel = FakeKernel(layout)
    kernel.section(8, online=True)
    kernel.section(9)
    kernel.section(10)
    pgmap = kernel.pgmap((0x48000, 0x50000))
    kernel.pgmap((0x50000, 0x58000))
    return kernel, pgmap


def toggle_progress(kernel: FakeKernel, pgmap: int) -> Callable[[int], None]:
    return lambda n: kernel.poke_member("dev_pagemap", pgmap, "nr_range", (n + 1) % 2)


@each_layout
def test_dump_is_read_once(layout: str) -> None:
    kernel, pgmap = ram_and_device(layout)
    changes = Changes(kernel, toggle_progress(kernel, pgmap), FOREVER)
    snapshot = take_snapshot(kernel.program())
    assert changes.readings == 1
    assert not snapshot.torn_pgmaps


@each_layout
def test_quiet_running_kernel_is_read_twice(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    changes = Changes(kernel, lambda n: None, 0)
    snapshot = take_snapshot(kernel.program(is_live=True))
    assert changes.readings == 2
    assert not snapshot.torn_sections
    assert not snapshot.torn_pgmaps


@each_layout
@pytest.mark.parametrize("until", [1, 2, 3])
def test_reading_settles_once_the_changes_stop(layout: str, until: int) -> None:
    kernel, pgmap = ram_and_device(layout)
    Changes(kernel, toggle_progress(kernel, pgmap), until)
    prog = kernel.program(is_live=True)
    final = "initializing" if until % 2 else "device"
    assert cut(prog) == [
        (0x40000, 0x48000, "online"),
        (0x48000, 0x50000, final),
        (0x50000, 0x58000, "device"),
    ]


@each_layout
def test_pgmap_that_never_settles_is_unknown_and_others_are_judged(layout: str) -> None:
    kernel, pgmap = ram_and_device(layout)
    Changes(kernel, toggle_progress(kernel, pgmap), FOREVER)
    prog = kernel.program(is_live=True)
    assert take_snapshot(prog).torn_pgmaps == {pgmap}
    assert cut(prog) == [
        (0x40000, 0x48000, "online"),
        (0x48000, 0x50000, "unknown"),
        (0x50000, 0x58000, "device"),
    ]


@each_layout
def test_section_that_never_settles_is_unknown_and_others_are_judged(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    Changes(kernel, lambda n: kernel.section(8, online=bool(n % 2)), FOREVER)
    prog = kernel.program(is_live=True)
    assert take_snapshot(prog).torn_sections == {8}
    assert cut(prog) == [
        (0x40000, 0x48000, "unknown"),
        (0x48000, 0x50000, "device"),
        (0x50000, 0x58000, "device"),
    ]


# Six readings: the last one sees the thing, or misses it.
either_parity = pytest.mark.parametrize("parity", [0, 1])


@each_layout
@either_parity
def test_section_that_comes_and_goes_is_unknown(layout: str, parity: int) -> None:
    kernel, _ = ram_and_device(layout)

    def change(n: int) -> None:
        kernel.section(8, online=True, present=n % 2 == parity)

    change(0)
    Changes(kernel, change, FOREVER)
    assert cut(kernel.program(is_live=True)) == [
        (0x40000, 0x48000, "unknown"),
        (0x48000, 0x50000, "device"),
        (0x50000, 0x58000, "device"),
    ]


@each_layout
@either_parity
def test_pgmap_that_comes_and_goes_is_unknown_and_no_orphan(layout: str, parity: int) -> None:
    kernel, pgmap = ram_and_device(layout)

    def change(n: int) -> None:
        _claim(kernel, pgmap, n % 2 == parity)

    change(0)
    Changes(kernel, change, FOREVER)
    assert cut(kernel.program(is_live=True)) == [
        (0x40000, 0x48000, "online"),
        (0x48000, 0x50000, "unknown"),
        (0x50000, 0x58000, "device"),
    ]


def _claim(kernel: FakeKernel, pgmap: int, claimed: bool) -> None:
    kernel.pgmap_array.store_range(0x48000, 0x4FFFF, pgmap if claimed else 0)


@each_layout
def test_subsection_that_never_settles(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    section = kernel.section(11, online=True)
    usage = kernel.member("mem_section", section, "usage")

    def change(n: int) -> None:
        kernel.poke(usage + 16, n.to_bytes(8, "little"))

    Changes(kernel, change, FOREVER)
    snapshot = take_snapshot(kernel.program(is_live=True))
    assert snapshot.torn_sections == {11}


@each_layout
def test_references_that_move_do_not_tear(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    pgmap = kernel.pgmap((0x60000, 0x68000), ref="dead", count=1, in_flight=True)
    ref = "internal_ref" if layout == "5.10" else "ref"
    data = kernel.member("dev_pagemap", pgmap, f"{ref}.data")
    changes = Changes(
        kernel, lambda n: kernel.poke_member("percpu_ref_data", data, "count.counter", n), FOREVER
    )
    assert not take_snapshot(kernel.program(is_live=True)).torn_pgmaps
    assert changes.readings == 2


@each_layout
def test_killed_reference_tears(layout: str) -> None:
    kernel, pgmap = ram_and_device(layout)
    ref = "internal_ref" if layout == "5.10" else "ref"
    word = kernel.member("dev_pagemap", pgmap, f"{ref}.percpu_count_ptr")

    def change(n: int) -> None:
        kernel.poke_member("dev_pagemap", pgmap, f"{ref}.percpu_count_ptr", word | 2 * (n % 2))

    Changes(kernel, change, FOREVER)
    assert take_snapshot(kernel.program(is_live=True)).torn_pgmaps == {pgmap}


@each_layout
def test_changed_since_names_what_came_went_or_changed(layout: str) -> None:
    kernel, pgmap = ram_and_device(layout)
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    assert not changed_since(prog, snapshot)
    came = kernel.pgmap((0x60000, 0x68000), in_flight=True)
    assert changed_since(prog, snapshot).pgmaps == {came}
    kernel.poke_member("dev_pagemap", pgmap, "nr_range", 0)
    assert changed_since(prog, snapshot).pgmaps == {came, pgmap}
    _claim(kernel, pgmap, False)
    assert changed_since(prog, snapshot).pgmaps == {came, pgmap}
    kernel.pgmap_array.store_range(0x60000, 0x67FFF, 0)
    assert changed_since(prog, snapshot).pgmaps == {pgmap}


@each_layout
def test_section_that_was_being_added_when_it_was_read_is_no_orphan(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    kernel.section(11)
    lock = kernel.variables["mem_hotplug_lock"][1]
    # It is over when the second reading gets to the lock, with which it ends.
    Changes(
        kernel,
        lambda n: kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", n % 2),
        2,
    )
    snapshot = take_snapshot(kernel.program(is_live=True))
    assert snapshot.hotplug_in_progress


@each_layout
def test_block_whose_state_never_settles_tears_its_section(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    block = kernel.memory_block(8)
    Changes(
        kernel, lambda n: kernel.poke_member("memory_block", block, "state", 1 + n % 2), FOREVER
    )
    assert take_snapshot(kernel.program(is_live=True)).torn_sections == {8}


# What cannot be read, or makes no sense.


def unusable(kernel: FakeKernel, pgmap: int) -> Snapshot:
    snapshot = take_snapshot(kernel.program())
    assert pgmap not in {p.address for p in snapshot.pgmaps}
    return snapshot


@each_layout
@pytest.mark.parametrize("end", [0x50000, 0x48001, 0x4FE00, 0x500000])
def test_unreadable_pgmap_is_unjudged_as_far_as_it_claims(layout: str, end: int) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x48000, end), (0x600000, 0x600200))
    kernel.pgmap((0x500000, 0x500200))
    kernel.hide(pgmap, kernel.layout.structs["dev_pagemap"].size)
    snapshot = unusable(kernel, pgmap)
    claims = [(0x48000, end), (0x600000, 0x600200)]
    assert snapshot.stray_claims == tuple((pgmap, PgmapRange(*claim)) for claim in claims)
    assert [(u.start_pfn, u.end_pfn) for u in snapshot.unjudged] == claims
    assert all(f"{pgmap:#x}" in u.reason for u in snapshot.unjudged)


@each_layout
def test_pgmap_with_an_absurd_number_of_ranges_is_unjudged(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x48000, 0x50000), nr_range=-1)
    snapshot = unusable(kernel, pgmap)
    (unjudged,) = snapshot.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (0x48000, 0x50000)
    assert "nr_range" in unjudged.reason


@each_layout
def test_entry_that_points_nowhere_is_unjudged(layout: str) -> None:
    kernel, _ = ram_and_device(layout)
    kernel.pgmap_array.store_range(0x60000, 0x67FFF, 0xFFFF8880DEADBE00)
    (unjudged,) = take_snapshot(kernel.program()).unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (0x60000, 0x68000)


@each_layout
def test_claim_outside_of_the_ranges_is_unjudged_and_the_rest_is_kept(layout: str) -> None:
    kernel, pgmap = ram_and_device(layout)
    kernel.pgmap_array.store_range(0x60000, 0x67FFF, pgmap)
    snapshot = take_snapshot(kernel.program())
    assert pgmap in {p.address for p in snapshot.pgmaps}
    assert snapshot.stray_claims == ((pgmap, PgmapRange(0x60000, 0x68000)),)
    assert "lie elsewhere" in snapshot.unjudged[0].reason


@each_layout
def test_healthy_scene_has_nothing_unjudged(layout: str) -> None:
    snapshot = take_snapshot(collision(layout).program())
    assert snapshot.unjudged == ()
    assert snapshot.stray_claims == ()
    assert snapshot.zone_device_spans == {0: (0x24000, 0x30000)}
    assert not snapshot.hotplug_in_progress


def test_kernel_without_device_list_names_no_devices() -> None:
    prog = collision("6.1").program()
    pgmaps = take_snapshot(prog).pgmaps
    assert with_devices(prog, pgmaps) == pgmaps
