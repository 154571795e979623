# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a guest gives back is what its census lacks afterwards, in the right kind."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from drgn import Object, Program, TypeKind
from drgn.helpers.linux.percpu import percpu_counter_sum
from drgn.helpers.linux.pid import for_each_task
from support.guests import BOOT_SECONDS, MIB, PAGE, boot_alone, debug_live

from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.census.total import page_census
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


@pytest.mark.qemu
@pytest.mark.long("a minute of waiting; kinds agree with the kernel's own in every run")
@pytest.mark.parametrize("name", ["5.10"])
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
    less = {
        kind: page_census(before).pages_by_kind.get(kind, 0)
        - page_census(after).pages_by_kind.get(kind, 0)
        for kind in (PageKind.ANON, PageKind.SHMEM, PageKind.HUGETLB)
    }
    # A stack and some data besides.
    assert ANON <= anon <= ANON + 16
    assert abs(less.pop(PageKind.ANON) - anon) <= SHELLS
    assert less == {PageKind.SHMEM: SHMEM, PageKind.HUGETLB: HUGE * 512}
