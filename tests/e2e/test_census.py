# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a guest gives back is what its census lacks afterwards, in the right kind."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from drgn import Object, Program, TypeKind
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr, percpu_counter_sum
from drgn.helpers.linux.pid import for_each_task
from support.guests import BOOT_SECONDS, MIB, PAGE, boot_alone, debug_live

from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.census.listing import for_each_page_of_kind
from drgn_zonedev.census.total import page_census
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.lab import SCENARIOS, fetch_kernel
from drgn_zonedev.opening.core import open_dump

ANON, SHMEM, HUGE = 64 * MIB // PAGE, 1000, 4
SETTLED = 10
# Pages that the shell writes to meanwhile, and so has for itself.
SHELLS = 4
# MM_ANONPAGES
_ANONPAGES = 1
# Without the last command, the shell would become the one in front of it, and its memory be less.
GIVE_BACK = f"""
mkdir /s && mount -t tmpfs none /s && dd if=/dev/zero of=/s/file bs={PAGE} count={SHMEM}
echo {HUGE} >/proc/sys/vm/nr_hugepages
(sleep 40; rm /s/file; echo 0 >/proc/sys/vm/nr_hugepages; kill $(pidof busy); sleep 9999; true) &
"""
SCENARIO = dataclasses.replace(
    SCENARIOS["empty"],
    name="gives-back",
    kernel_args=("transparent_hugepage=never",),
    programs=("busy",),
    steps=(("anonymous", str(ANON * PAGE)), ("sh", "-c", GIVE_BACK)),
)


def anonymous_pages(prog: Program) -> list[int]:
    """What the kernel counts for each process of the scenario that has memory."""
    tasks = [t for t in for_each_task(prog) if t.comm.string_() == b"busy" and t.mm]
    return [_counted(task) for task in tasks]


def _counted(task: Object) -> int:
    counters = task.mm.rss_stat
    if counters.type_.kind == TypeKind.ARRAY:
        return percpu_counter_sum(counters[_ANONPAGES].address_of_())
    # A task kept up to 64 of them for itself until Linux kernel commit f1a7941243c1 ("mm: convert
    # mm's rss stats into percpu_counter") (in v6.2).
    return int(counters.count[_ANONPAGES].counter) + int(task.rss_stat.count[_ANONPAGES])


def counted_pages(prog: Program, name: str) -> int:
    """
    ``NR_*`` of all zones or nodes, with what each CPU has not added yet:
    ``zone_page_state_snapshot()``.
    """
    every = [Object(prog, "struct zone *", zone.address) for zone in zones(prog).found]
    try:
        item = prog.constant(name).value_()
        if prog.constant(name).type_.tag == "zone_stat_item":
            return sum(_counted_in_zone(zone, item) for zone in every)
    except LookupError:
        pytest.fail(f"this kernel does not have {name}")
    nodes = {zone.zone_pgdat.value_(): zone.zone_pgdat for zone in every}
    return sum(_counted_in_node(node, item) for node in nodes.values())


def _counted_in_zone(zone: Object, item: int) -> int:
    # Linux kernel commit 28f836b6777b ("mm/page_alloc: split per cpu page lists and zone stats")
    # (in v5.14).
    split = zone.type_.type.has_member("per_cpu_zonestats")
    each = zone.per_cpu_zonestats if split else zone.pageset
    cpus = for_each_online_cpu(zone.prog_)
    more = sum(int(per_cpu_ptr(each, cpu).vm_stat_diff[item]) for cpu in cpus)
    return int(zone.vm_stat[item].counter) + more


def _counted_in_node(node: Object, item: int) -> int:
    each, cpus = node.per_cpu_nodestats, for_each_online_cpu(node.prog_)
    more = sum(int(per_cpu_ptr(each, cpu).vm_node_stat_diff[item]) for cpu in cpus)
    return int(node.vm_stat[item].counter) + more


def mapped_anonymous_pages(prog: Program) -> int:
    """
    Anonymous pages without those that nobody maps any more, and that a batch of a CPU keeps until
    it is full: the kernel does not count them as ``NR_ANON_MAPPED``.
    """
    pages = for_each_page_of_kind(prog, PageKind.ANON)
    return sum(page._mapcount.counter.value_() >= 0 for page in pages)


COUNTERS = {
    PageKind.FREE: "NR_FREE_PAGES",
    PageKind.SHMEM: "NR_SHMEM",
    PageKind.PAGE_TABLE: "NR_PAGETABLE",
}


@pytest.mark.qemu
@pytest.mark.long("a minute of waiting; kinds agree with the kernel's own in every run")
@pytest.mark.parametrize("name", ["5.10", "6.12", "7.3"])
def test_pages_that_are_given_back_are_as_many_less(name: str, tmp_path: Path) -> None:
    kernel = fetch_kernel(name)
    with boot_alone(kernel, SCENARIO) as guest:
        # Of what reported that the guest is ready, nothing is left then.
        time.sleep(SETTLED)
        before = open_dump(guest.dump(tmp_path / "before"), kernel.vmlinux)
        (anon,) = anonymous_pages(before)
        deadline = time.monotonic() + BOOT_SECONDS
        while anonymous_pages(debug_live(guest)):
            assert time.monotonic() < deadline
            time.sleep(1)
        time.sleep(SETTLED)
        after = open_dump(guest.dump(tmp_path / "after"), kernel.vmlinux)
    for prog in (before, after):
        pages = page_census(prog).pages_by_kind
        for kind, counter in COUNTERS.items():
            assert pages.get(kind, 0) == counted_pages(prog, counter), counter
        assert mapped_anonymous_pages(prog) == counted_pages(prog, "NR_ANON_MAPPED")
    less = {
        kind: page_census(before).pages_by_kind.get(kind, 0)
        - page_census(after).pages_by_kind.get(kind, 0)
        for kind in (PageKind.SHMEM, PageKind.HUGETLB)
    }
    # A stack and some data besides.
    assert ANON <= anon <= ANON + 16
    less_anon = mapped_anonymous_pages(before) - mapped_anonymous_pages(after)
    assert abs(less_anon - anon) <= SHELLS
    assert less == {PageKind.SHMEM: SHMEM, PageKind.HUGETLB: HUGE * 512}
