# SPDX-License-Identifier: LGPL-2.1-or-later

"""
`pins` names the processes and files that a scenario started, and nothing else: the guest says
itself which these are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from support.guests import MIB, PAGE, Booted, each_guest, long_guest, on_kernels

from drgn_zonedev.kernel.page_holders import HolderKind
from drgn_zonedev.lab import KERNELS, SCENARIOS
from drgn_zonedev.lab.truth.guest_facts import Started
from drgn_zonedev.page_users.find_pins import find_pins
from drgn_zonedev.page_users.pins import Awaited, Pins, UsedPages

pytestmark = pytest.mark.qemu

# What a pipe has room for, and is registered, and is written to the slow disk.
KEPT = 16

# Path and PID of a process.
User = tuple[str, int]


def pins_of(booted: Booted) -> Pins:
    found = find_pins(booted.program())
    assert found.gaps == ()
    for pgmap in found.pgmaps:
        assert pgmap.references is not None
        assert pgmap.references.found == pgmap.references.expected
    return found


def uses(found: Pins) -> list[UsedPages]:
    return [use for pgmap in found.pgmaps for use in pgmap.uses]


def mapped(found: Pins) -> Counter[User]:
    """How many pages of each file each process maps."""
    counted: Counter[User] = Counter()
    for use in uses(found):
        for user in use.mapped_by:
            for process in user.processes:
                assert process.name == "busy"
                counted[use.owner.path or "", process.pid] += user.pages or 0
    return counted


def held(found: Pins, kind: HolderKind) -> Counter[User]:
    """How many references each process holds by way of an open file."""
    counted: Counter[User] = Counter()
    for use in uses(found):
        for holder in use.held_by:
            if holder.holder.kind is kind:
                for pid in {opened.process.pid for opened in holder.opened_by}:
                    counted[use.owner.path or "", pid] += holder.references
    return counted


def started(booted: Booted, *kinds: str) -> list[User]:
    facts: Iterable[Started] = booted.guest.facts["started"]
    return [(process.path, process.pid) for process in facts if process.kind in kinds]


def is_counted(booted: Booted) -> bool:
    """Whether mappings take references."""
    return booted.kernel.name not in ("5.10", "6.1", "6.12")


# The last without and the first with references of mappings.
@each_guest(on_kernels("busy", ["6.12", "7.2"]))
def test_processes_that_map_files_and_a_device(booted: Booted) -> None:
    found = pins_of(booted)
    # Each maps 8 MiB.
    assert mapped(found) == dict.fromkeys(started(booted, "map"), 8 * MIB // PAGE)
    assert {use.owner.path for use in uses(found)} == {"/mnt/file", "/dev/dax1.0"}
    for use in uses(found):
        assert use.is_held is is_counted(booted)
        assert use.mappings == int(is_counted(booted))
        assert not use.held_by
        assert not use.has_unknown_user
    assert not any(pgmap.waiters for pgmap in found.pgmaps)


@each_guest(on_kernels("pinned", ["7.3"]))
def test_two_processes_a_pipe_direct_io_and_a_file_system_that_waits(booted: Booted) -> None:
    found = pins_of(booted)
    first, second, of_device = started(booted, "map")
    (written,) = started(booted, "direct")
    (piped,) = started(booted, "pipe")
    (truncated,) = started(booted, "truncate")
    assert first[0] == second[0] == "/mnt/file"
    # The file system has unmapped the file that it is to truncate.
    assert mapped(found) == {
        first: 4 * MIB // PAGE,
        second: 2 * MIB // PAGE,
        of_device: 4 * MIB // PAGE,
        written: MIB // PAGE,
    }
    assert held(found, HolderKind.PIPE) == {piped: KEPT}
    assert held(found, HolderKind.IO_URING) == {}
    ((waiter,),) = (pgmap.waiters for pgmap in found.pgmaps if pgmap.waiters)
    assert (waiter.process.pid, waiter.awaited) == (truncated[1], Awaited.PAGE)
    assert "ext4_break_layouts" in waiter.stack
    (pages,) = (use for use in uses(found) if use.start_pfn <= (waiter.pfn or 0) < use.end_pfn)
    assert pages.owner.path == piped[0] == truncated[0]
    # Nothing says who does the direct I/O, but who maps the pages and waits.
    unknown = [use for use in uses(found) if use.has_unknown_user]
    assert {use.owner.path for use in unknown} == {written[0]}
    assert sum(use.pages for use in unknown) == KEPT
    assert sum(use.unknown_references + use.unknown_pins for use in unknown) == KEPT
    assert not any(use.unknown_mappings for use in unknown)
    for use in unknown:
        (sleeper,) = use.sleepers
        assert sleeper.process.pid == written[1]
        assert any("blkdev" in function for function in sleeper.stack)


@each_guest(
    long_guest(kernel, "pinned-xfs", "pinned on 7.3 has ext4, and is in every run")
    for kernel in KERNELS
)
def test_files_of_xfs(booted: Booted) -> None:
    found = pins_of(booted)
    first, second = started(booted, "map")
    (piped,) = started(booted, "pipe")
    (truncated,) = started(booted, "truncate")
    assert mapped(found) == {first: 4 * MIB // PAGE, second: 2 * MIB // PAGE}
    assert held(found, HolderKind.PIPE) == {piped: KEPT}
    ((waiter,),) = (pgmap.waiters for pgmap in found.pgmaps)
    assert (waiter.process.pid, waiter.awaited) == (truncated[1], Awaited.PAGE)
    assert "schedule" in waiter.stack
    assert not any(use.has_unknown_user for use in uses(found))


REGISTERED = [
    long_guest(kernel, "registered", "unit tests have registered buffers of each layout")
    for kernel in KERNELS
    if kernel not in ("5.10", "6.1")
]


@each_guest(REGISTERED)
def test_a_registered_buffer_that_nothing_maps(booted: Booted) -> None:
    found = pins_of(booted)
    (ring,) = started(booted, "ring")
    assert mapped(found) == dict.fromkeys(started(booted, "map"), 2 * MIB // PAGE)
    (pinned,) = (use for use in uses(found) if use.pins)
    assert held(found, HolderKind.IO_URING) == {ring: pinned.pins}
    assert pinned.pages == 2 * MIB // PAGE
    assert not any(use.has_unknown_user for use in uses(found))


# Devices of a driver: the driver has the pages, and a process maps some of the private ones.


def in_order(found: Pins) -> list[tuple[int, int]]:
    """Where the used pages of the only device that no process maps are, and how many."""
    (pgmap,) = found.pgmaps
    first = pgmap.pgmap.ranges[0].start_pfn
    uses = [use for use in pgmap.uses if not use.mapped_by]
    for use in uses:
        assert not use.held_by
        assert use.unknown_references == use.folios
    return [(use.start_pfn - first, use.pages) for use in uses]


# What the scenario has the driver hand out, after it took some back.
HANDED_OUT = [(0, 1), (2, 1), (0x10, 16), (0x200, 512), (0x600, 1), (0x605, 1)]


def of_a_driver(*scenarios: str) -> pytest.MarkDecorator:
    return each_guest(
        long_guest(kernel, scenario, "unit tests have each kind of reference")
        for scenario in scenarios
        for kernel in KERNELS
        if kernel not in SCENARIOS[scenario].impossible
    )


@of_a_driver("device-private", "device-coherent")
def test_pages_that_a_driver_has_handed_out(booted: Booted) -> None:
    found = pins_of(booted)
    assert in_order(found) == HANDED_OUT
    assert not any(pgmap.waiters for pgmap in found.pgmaps)


@of_a_driver("in-use-teardown")
def test_two_pages_that_a_removal_waits_for(booted: Booted) -> None:
    found = find_pins(booted.program())
    assert found.gaps == ()
    assert in_order(found) == [(0, 1), (0x1234, 1)]
    (pgmap,) = found.pgmaps
    (waiter,) = pgmap.waiters
    assert waiter.awaited is Awaited.REMOVAL
    assert "memunmap_pages" in waiter.stack
    # The driver holds a reference to the pgmap for each.
    assert pgmap.references is not None
    counted_by_page = 2 if booted.kernel.name == "5.10" else 0
    assert (pgmap.references.expected, pgmap.references.found) == (
        counted_by_page,
        counted_by_page + 2,
    )


@of_a_driver("p2pdma")
def test_a_process_that_maps_the_memory_of_a_controller(booted: Booted) -> None:
    found = find_pins(booted.program())
    assert found.gaps == ()
    (pgmap,) = found.pgmaps
    (use,) = pgmap.uses
    (user,) = use.mapped_by
    ((_, pid),) = started(booted, "map")
    assert [process.pid for process in user.processes] == [pid]
    assert (user.path or "").endswith("/p2pmem/allocate")
    assert use.pages == user.pages == pgmap.pages // 2
    assert not use.has_unknown_user
    # One is the queue that the driver has there.
    assert pgmap.references is not None
    assert pgmap.references.found == pgmap.references.expected + 1


PRIVATE = [
    long_guest(kernel, "device-private", "swap entries are decoded on a synthetic kernel")
    for kernel in ("7.2", "7.3")
]


@each_guest(PRIVATE)
def test_a_process_whose_memory_is_device_private(booted: Booted) -> None:
    found = pins_of(booted)
    (step,) = (step for step in booted.guest.scenario.steps if step[0] == "migrate")
    index, count = (int(word, 0) for word in step[1:])
    (use,) = (use for use in uses(found) if use.mapped_by)
    assert list(mapped(found).values()) == [count]
    assert (use.end_pfn - use.start_pfn, use.start_pfn % 0x10000) == (count, index)
    assert not use.has_unknown_user
