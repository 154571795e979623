# SPDX-License-Identifier: LGPL-2.1-or-later

"""PFN walkers on unpromised memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from drgn import Program
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.fakekernel.kernel import PERCPU_FIRST
from support.fakekernel.layouts import Member
from support.kernels import each_layout, since_taint
from support.layoutmachine import layout_machine
from support.schema import validated

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.memremap import get_dev_pagemap, pgmap_pfn_valid
from drgn_zonedev.kernel.mmzone import pfn_to_online_page, pfn_valid
from drgn_zonedev.kernel.pageblock import max_order_nr_pages
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.model import Case
from drgn_zonedev.pfn_walkers import (
    WALKERS,
    Exposure,
    Judgement,
    WalkOutcome,
    guards,
    judge,
    memory,
    walkers,
)
from drgn_zonedev.pfn_walkers.guards import FILTERS, STEPS
from drgn_zonedev.pfn_walkers.memory import UNPROMISED
from drgn_zonedev.pfn_walkers.outcome import Act
from drgn_zonedev.pfn_walkers.table import ONLY_STABLE
from drgn_zonedev.render.walkers import walkers_document, walkers_text
from drgn_zonedev.report import check
from drgn_zonedev.verification.patterns import Contents

VMCORES = Path(__file__).parents[2] / "vmcores"


def judged(prog: Program, name: str) -> Judgement:
    """One walker, as walkers() judges it beside all the others."""
    table = tuple(walker for walker in WALKERS if walker.name == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "WALKERS", table)
        (found,) = walkers(prog).walkers
    return found


def seen(prog: Program, name: str) -> list[tuple[int, int, str, int, int]]:
    """(start, end, case, touched, used) of what a walker meets."""
    return [
        (e.start_pfn, e.end_pfn, e.case.value, e.touched, e.used)
        for e in judged(prog, name).exposures
    ]


def only(prog: Program, name: str) -> Exposure:
    (exposure,) = judged(prog, name).exposures
    return exposure


# The table.


def test_guards_are_made_of_what_there_is() -> None:
    for walker in WALKERS:
        assert walker.guards
        for guard in walker.guards:
            assert set(guard.steps) <= set(STEPS)
            assert set(guard.filters) <= set(FILTERS)


def test_names_are_distinct_and_guards_in_order() -> None:
    assert len({walker.name for walker in WALKERS}) == len(WALKERS)
    for walker in WALKERS:
        numbered = [guard.since for guard in walker.guards if any(guard.since)]
        since = [release for release in numbered if release != ONLY_STABLE]
        assert since == sorted(since)


@each_layout
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("unpoison", {"5.10": "pfn_valid()"}),
        ("split-huge-pages", {"5.10": "pfn_valid()"}),
        ("memory-failure-dax", {}),
    ],
)
def test_guards_that_changed(layout: str, name: str, steps: dict[str, str]) -> None:
    found = judged(collision(layout).program(), name)
    assert found.guard is not None
    if name == "memory-failure-dax":
        # A fake kernel has no function that would tell; it has a structure since v6.3.
        assert found.guard.steps[-1] == "get_dev_pagemap()"
        counts = layout not in ("5.10", "6.1")
        assert found.guard.filters == (("pgmap_pfn_valid()",) if counts else ())
        assert not found.by_release
    else:
        assert found.guard.steps[-1] == steps.get(layout, "pfn_to_online_page()")
        # A release cannot lack what Linus's tree had before; it can have what came later.
        later = ("5.10", "6.1") if name == "split-huge-pages" else ("5.10",)
        assert found.by_release is (layout in later)


def test_a_walker_is_younger_than_the_kernel() -> None:
    assert judged(collision("5.10").program(), "damon").guard is None
    assert judged(collision("6.1").program(), "damon").guard is not None


def test_what_is_in_the_kernel_is_not_known_without_its_functions() -> None:
    assert {j.present for j in walkers(collision("5.10").program()).walkers} == {None}


def test_kernel_has_what_vmlinux_has_and_may_have_what_can_be_a_module() -> None:
    # Debian's cloud kernels have CONFIG_PROC_PAGE_MONITOR, and not CONFIG_PAGE_OWNER.
    with StoredDump(VMCORES / "6.1-fsdax-collision").program() as prog:
        present = {j.walker.name: j.present for j in walkers(prog).walkers}
        counts = {j.walker.name: j.counts for j in walkers(prog).walkers}
    # The module depends on CONFIG_MEMORY_FAILURE, which these kernels do not have.
    names = "kpageflags", "page-owner", "memory-failure", "hwpoison-inject", "makedumpfile"
    assert [present[name] for name in names] == [True, False, False, False, None]
    assert [counts[name] for name in names] == [True, False, False, False, True]
    with StoredDump(VMCORES / "6.12-fsdax-collision").program() as prog:
        present = {j.walker.name: j.present for j in walkers(prog).walkers}
    assert [present[name] for name in names] == [True, False, True, None, None]


def test_only_what_the_lab_compared_on_that_very_kernel_is_proved() -> None:
    proved = {}
    for name in ("5.10", "6.1", "6.12", "7.2", "7.3"):
        with StoredDump(VMCORES / f"{name}-empty").program() as prog:
            proved[name] = {j.walker.name for j in walkers(prog).walkers if j.proof}
    files = {"kpageflags", "kpagecount"}
    visits = {"memory-failure", "memory-failure-dax", "soft-offline", "unpoison"}
    assert proved == {
        # Without CONFIG_MEMORY_FAILURE.
        **dict.fromkeys(("5.10", "6.1"), files),
        **dict.fromkeys(("6.12", "7.2", "7.3"), files | visits),
    }
    # Another kernel of that series.
    assert not any(j.proof for j in walkers(collision("5.10").program()).walkers)


def test_functions_are_where_that_kernel_has_them() -> None:
    found = {}
    for name in ("5.10", "6.1", "6.12"):
        with StoredDump(VMCORES / f"{name}-empty").program() as prog:
            (found[name],) = (
                j.file for j in walkers(prog).walkers if j.walker.name == "hibernation-free"
            )
    moved = "kernel/power/snapshot.c"
    assert found == {"5.10": "mm/page_alloc.c", "6.1": "mm/page_alloc.c", "6.12": moved}
    assert judged(collision("6.12").program(), "kcore").function == "read_kcore_iter"
    with StoredDump(VMCORES / "5.10-empty").program() as prog:
        assert judged(prog, "split-huge-pages").function == "split_huge_pages_set"


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("mm/other.c", "mm/other.c"),
        ("/usr/src/kernel/build/fs/mm/kernel/power/other.c", "kernel/power/other.c"),
        ("./debian/build/kernel/mm/damon/other.c", "mm/damon/other.c"),
        ("arch/x86/lib/other.S", "kernel/power/snapshot.c"),
    ],
)
def test_debugging_information_knows_the_file_best(line: str, file: str) -> None:
    class Lines:
        """What is asked of a program with line numbers."""

        def function(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(address_=0xFFFFFFFF81000000)

        def source_location(self, address: int) -> list[SimpleNamespace]:
            return [SimpleNamespace(filename="include/inlined.h"), SimpleNamespace(filename=line)]

    (walker,) = (w for w in WALKERS if w.name == "hibernation-free")
    assert judge._file(cast(Program, Lines()), walker, walker.function, (6, 12, 0)) == file


# Which memory passes which guard. 0x24000-0x28000 shares section 4 with RAM,
# 0x28000-0x30000 is section 5 of its own.

RESERVED = (0x24000, 0x24002, "reserved", 2, 2)
METADATA = (0x24002, 0x24400, "metadata", 0x3FE, 0x3FE)


@each_layout
@pytest.mark.parametrize("name", ["kpageflags", "kpagecount", "kpagecgroup", "soft-offline"])
def test_only_before_taint_is_a_device_in_an_online_section_online(layout: str, name: str) -> None:
    expected = [RESERVED, METADATA] if layout == "5.10" else []
    assert seen(collision(layout).program(), name) == expected


@each_layout
def test_while_it_is_initialised(layout: str) -> None:
    initializing = (0x24400, 0x28000, "initializing", 0x3C00, 0x3C00)
    expected = [RESERVED, METADATA, initializing] if layout == "5.10" else []
    assert seen(in_flight(layout).program(), "kpageflags") == expected


@each_layout
def test_pfn_valid_alone_lets_everything_pass(layout: str) -> None:
    initializing = (0x24400, 0x30000, "initializing", 0xBC00, 0xBC00)
    # From PFN 0x3ffe0 on there is no RAM, but a section.
    hole = (0x3FFE0, 0x40000, "partial", 0x20, 0x20)
    kernel = in_flight(layout)
    kernel.add_variable("hwpoison_filter_enable", "int", 1)
    found = seen(kernel.program(), "hwpoison-inject")
    assert found[:3] == [RESERVED, METADATA, initializing]
    assert set(found[3:]) <= {hole}


def test_valid_zones_reads_the_first_page_of_each_largest_block_of_an_online_memory_block() -> None:
    # MAX_ORDER_NR_PAGES is 0x400; the section of the device alone is not online.
    initializing = (0x24400, 0x28000, "initializing", 0x3C00 // 0x400, 0x3C00 // 0x400)
    prog = in_flight("5.10").program()
    assert seen(prog, "valid-zones") == [(0x24000, 0x24002, "reserved", 1, 1), initializing]


@pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])
def test_since_v5_18_valid_zones_reads_no_struct_page(layout: str) -> None:
    report = walkers(in_flight(layout).program())
    (found,) = (j for j in report.walkers if j.walker.name == "valid-zones")
    assert (found.guard, found.present, found.exposures) == (None, False, ())
    assert "none: the kernel is newer" in walkers_text(report)


@each_layout
def test_who_loads_a_word_and_discards_it_uses_nothing(layout: str) -> None:
    # By default, hwpoison_inject() works out the head, and goes on without it.
    kernel = in_flight(layout)
    kernel.poke_page_word(0x25001, 1, 0xDEAD0001)
    found = {e.start_pfn: e for e in judged(kernel.program(), "hwpoison-inject").exposures}
    assert (found[0x24400].touched, found[0x24400].used) == (0xBC00, 0)
    assert found[0x24400].outcomes == {WalkOutcome.DROPPED: 0xBC00}
    assert found[0x24002].outcomes == {WalkOutcome.HARMLESS: 0x3FE}
    # It loads it all the same.
    kernel = partial(layout)
    kernel.unmap_memmap(0x100000, 0x100040)
    worst = [e.worst for e in judged(kernel.program(), "hwpoison-inject").exposures]
    assert worst == [WalkOutcome.UNREADABLE, WalkOutcome.UNREADABLE]


@each_layout
def test_max_pfn_ends_what_is_read(layout: str) -> None:
    kernel = in_flight(layout)
    kernel.set_variable("max_pfn", 0x24001)
    assert seen(kernel.program(), "page-owner") == [(0x24000, 0x24001, "reserved", 1, 1)]
    # Up to the end of section 4.
    if layout == "5.10":
        assert seen(kernel.program(), "kpageflags")[-1][:2] == (0x24400, 0x28000)


@each_layout
def test_page_owner_asks_once_for_each_block(layout: str) -> None:
    # Of the 1024 pages of a block, the second half is not populated.
    kernel = FakeKernel(layout)
    kernel.section(8, subsections=[0])
    kernel.map_memmap(0x40000, 0x40200)
    kernel.pgmap((0x40000, 0x40200), in_flight=True)
    kernel.set_variable("max_pfn", 0x48000)
    found = judged(kernel.program(), "page-owner").exposures
    assert [(e.start_pfn, e.end_pfn, e.case) for e in found] == [
        (0x40000, 0x40200, Case.INITIALIZING),
        (0x40200, 0x40400, Case.PARTIAL),
    ]
    assert found[1].outcomes == {WalkOutcome.FAULT: 0x200}


@each_layout
def test_the_zone_of_a_page_is_a_filter(layout: str) -> None:
    # Metadata says ZONE_DEVICE; the reserve says what its hole said at boot.
    expected = [RESERVED, (*METADATA[:4], 0)] if layout == "5.10" else []
    assert seen(collision(layout).program(), "hibernation-saveable") == expected
    both = [RESERVED, (*METADATA[:4], 0)]
    assert seen(collision(layout).program(), "hibernation-free")[:2] == both


@pytest.mark.parametrize(
    ("release", "device"), [("5.10.98", METADATA), ("5.10.99", (*METADATA[:4], 0))]
)
def test_kmemleak_walked_nodes_where_it_walks_zones(
    release: str, device: tuple[int, int, str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The metadata's struct pages say the node that is walked, and ZONE_DEVICE.
    monkeypatch.setattr(judge, "kernel_release", lambda _: tuple(map(int, release.split("."))))
    assert seen(collision("5.10").program(), "kmemleak") == [RESERVED, device]
    elsewhere = collision("5.10")
    elsewhere.poke_member("pglist_data", elsewhere.node(0), "node_spanned_pages", 0x24000)
    assert seen(elsewhere.program(), "kmemleak") == (
        [] if device == METADATA else [RESERVED, device]
    )


@each_layout
def test_zones_without_ram_are_not_walked(layout: str) -> None:
    assert seen(partial(layout).program(), "hibernation-free") == []
    found = seen(partial(layout).program(), "hwpoison-inject")
    assert found == [
        (0x100000, 0x100002, "reserved", 2, 0),
        (0x100002, 0x100600, "metadata", 0x5FE, 0),
    ]


def hide_zone(kernel: FakeKernel, number: int) -> None:
    kernel.hide(kernel.zone(0, number), kernel.layout.structs["zone"].size)


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight])
def test_zone_that_cannot_be_read_keeps_nobody_out(
    scene: Callable[[str], FakeKernel], layout: str
) -> None:
    kernel = scene(layout)
    before = walkers(kernel.program())
    assert before.unreadable == ()
    for number in {z.number for z in zones(kernel.program()).found if z.present_pages}:
        hide_zone(kernel, number)
        after = walkers(kernel.program())
        kernel.memory.hidden.clear()
        assert after.unreadable == ("a zone of node 0",)
        for old, new in zip(before.walkers, after.walkers):
            assert touched(old) <= touched(new), old.walker.name


@each_layout
def test_any_memory_may_be_in_a_zone_that_cannot_be_read(layout: str) -> None:
    kernel = partial(layout)
    assert seen(kernel.program(), "hibernation-free") == []
    hide_zone(kernel, kernel.layout.constant("ZONE_NORMAL"))
    # The pages say that they are in another one.
    assert seen(kernel.program(), "hibernation-free") == [
        (0x100000, 0x100002, "reserved", 2, 0),
        (0x100002, 0x100600, "metadata", 0x5FE, 0),
    ]


def touched(judgement: Judgement) -> tuple[int, int]:
    return sum(e.touched for e in judgement.exposures), sum(e.used for e in judgement.exposures)


@each_layout
def test_zones_of_devices_are_not_walked_whether_they_can_be_read_or_not(layout: str) -> None:
    kernel = collision(layout)
    before = walkers(kernel.program())
    hide_zone(kernel, kernel.layout.constant("ZONE_DEVICE"))
    after = walkers(kernel.program())
    assert (after.walkers, after.unreadable) == (before.walkers, ())


def test_one_page_in_a_pageblock() -> None:
    found = seen(in_flight("5.10").program(), "pagetypeinfo")
    assert found == [
        (0x24000, 0x24002, "reserved", 1, 1),
        # PFN 0x24200.
        (0x24200, 0x24400, "metadata", 1, 0),
        (0x24400, 0x28000, "initializing", 0x3C00 // 512, 0x3C00 // 512),
    ]


def test_compaction_trusts_what_is_between_two_pages() -> None:
    # The first page of a pageblock is of the zone that its last one is of; one between
    # them is full of what it held before.
    kernel = in_flight("5.10")
    kernel.fill_pages(0x26010, 0x26011, 0xFE)
    found = {e.start_pfn: e for e in judged(kernel.program(), "compaction").exposures}
    assert found[0x24400].touched == 0x3C00
    # 0xfe says PG_lru, and bit 0 of no word is set.
    assert found[0x24400].used == 1
    assert WalkOutcome.CHANGES in found[0x24400].outcomes
    # The pageblock of the reserve ends with ZONE_DEVICE.
    assert 0x24000 not in found


def test_compaction_reads_the_last_page_of_a_pageblock_without_asking_for_it() -> None:
    found = seen(in_flight("5.10").program(), "compaction-ends")
    assert found == [
        # Of the pageblock at 0x24000. That at 0x24200 begins with ZONE_DEVICE.
        (0x24002, 0x24200, "metadata", 1, 1),
        (0x24400, 0x28000, "initializing", 0x3C00 // 512, 0x3C00 // 512),
    ]


@each_layout
def test_memory_failure_reaches_devices_only_through_pgmap_pfn_valid(layout: str) -> None:
    # A fake kernel has no such function: it is one from before v5.12.
    found = seen(in_flight(layout).program(), "memory-failure-dax")
    online = layout == "5.10"
    assert [f[:3] for f in found] == (
        [(0x28000, 0x30000, "initializing")]
        if online
        else [RESERVED[:3], METADATA[:3], (0x24400, 0x30000, "initializing")]
    )


@pytest.mark.parametrize(
    ("node", "outcome"),
    [(0, WalkOutcome.MISCOUNTS), (3, WalkOutcome.WILD_NODE)],
)
def test_a_memory_error_in_a_reserve_is_counted_for_the_node_that_its_memory_says(
    node: int, outcome: WalkOutcome
) -> None:
    # action_result() of v6.12, pfn_to_nid(): 10 bits of node on top of page->flags.
    kernel = in_flight("6.12")
    for pfn in range(RESERVED[0], RESERVED[1]):
        kernel.poke_page_word(pfn, 0, node << 54 | 0x5A)
    found = judged(kernel.program(), "memory-failure-dax").exposures
    reserve = next(e for e in found if e.case is Case.RESERVED)
    assert reserve.outcomes == {outcome: RESERVED[1] - RESERVED[0]}
    assert reserve.used == 0


def test_a_memory_error_of_older_kernels_or_without_numa_reads_no_node() -> None:
    for kernel in (in_flight("6.1"), layout_machine("x86-64-6.12-no-numa").kernel):
        guard = judged(kernel.program(), "memory-failure-dax").guard
        assert guard is not None
        assert Act.NODE not in guard.acts


@since_taint
def test_a_dying_pgmap_lets_its_pages_pass_as_ram(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(4, online=True, early=True, taint=True)
    kernel.ram_pages(0x20000, 0x24000)
    pgmap = kernel.pgmap((0x24000, 0x28000), ref="dead")
    kernel.device_pages(0x24000, 0x28000, pgmap)
    kernel.set_variable("max_pfn", 0x24000)
    found = only(kernel.program(), "kpageflags")
    assert (found.start_pfn, found.end_pfn, found.case) == (0x24000, 0x28000, Case.TEARDOWN)
    assert found.outcomes == {WalkOutcome.HARMLESS: 0x4000}
    assert found.contents == {Contents.INITIALIZED: 0x4000}


@each_layout
def test_offline_memory(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    kernel.section(8)
    kernel.memory_block(8, "MEM_OFFLINE")
    kernel.map_memmap(0x40000, 0x48000)
    kernel.set_variable("max_pfn", 0x48000)
    assert seen(kernel.program(), "kpageflags") == []
    found = only(kernel.program(), "page-owner")
    assert (found.case, found.touched) == (Case.OFFLINE, 0x8000)
    assert found.outcomes == {WalkOutcome.GARBAGE: 0x8000}


@each_layout
def test_an_orphan_section(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.map_memmap(0x40000, 0x48000)
    kernel.set_variable("max_pfn", 0x48000)
    assert seen(kernel.program(), "page-owner") == [(0x40000, 0x48000, "orphan", 0x8000, 0x8000)]


# What comes of it. The 15360 pages at 0x24400 are being initialised.


def outcome_of(kernel: FakeKernel, name: str) -> dict[WalkOutcome, int]:
    found = {e.start_pfn: e for e in judged(kernel.program(), name).exposures}
    return found[0x24400].outcomes


@pytest.mark.parametrize(
    ("byte", "expected"),
    [
        (0, WalkOutcome.GARBAGE),
        (0xFF, WalkOutcome.WILD_POINTER),
        (0xA5, WalkOutcome.WILD_POINTER),
        (0xA4, WalkOutcome.GARBAGE),
    ],
)
def test_what_the_memory_held_decides(byte: int, expected: WalkOutcome) -> None:
    kernel = in_flight("5.10")
    kernel.fill_pages(0x25000, 0x25007, byte)
    assert outcome_of(kernel, "kpageflags") == {expected: 7, WalkOutcome.STALE: 0x3C00 - 7}
    # Who follows no link reads flags that are none.
    assert outcome_of(kernel, "page-owner") == {
        WalkOutcome.GARBAGE: 7 + 0x8000,
        WalkOutcome.STALE: 0x3C00 - 7,
    }


def test_poison_is_a_bug_where_kernels_check_for_it() -> None:
    kernel = in_flight("5.10")
    kernel.add_variable("page_init_poisoning", "int", 1)
    kernel.fill_pages(0x25000, 0x25007, 0xFF)
    assert outcome_of(kernel, "kpageflags") == {WalkOutcome.BUG: 7, WalkOutcome.STALE: 0x3C00 - 7}


def test_a_memcg_of_garbage() -> None:
    kernel = in_flight("6.1")
    kernel.section(4, online=True, early=True, taint=False)
    kernel.fill_pages(0x25000, 0x25007, 0xA4)
    assert outcome_of(kernel, "kpagecgroup")[WalkOutcome.WILD_MEMCG] == 7


@each_layout
def test_a_link_to_a_struct_page_is_no_wild_pointer(layout: str) -> None:
    kernel = in_flight(layout)
    kernel.section(4, online=True, early=True)
    kernel.add_variable("hwpoison_filter_enable", "int", 1)
    link = kernel.compound_link(0x25000, 2) if layout == "7.2" else kernel.page(0x25000) | 1
    kernel.poke_page_word(0x25001, 1, link)
    found = outcome_of(kernel, "hwpoison-inject")
    assert WalkOutcome.WILD_POINTER not in found
    kernel.poke_page_word(0x25001, 1, 0xDEAD0001)
    found = outcome_of(kernel, "hwpoison-inject")
    assert found[WalkOutcome.WILD_POINTER] == 1


def untainted(layout: str) -> FakeKernel:
    """A collision that pfn_to_online_page() lets everybody into."""
    kernel = collision(layout)
    kernel.section(4, online=True, early=True, taint=False)
    return kernel


def outcomes_of(kernel: FakeKernel, name: str) -> dict[int, dict[WalkOutcome, int]]:
    return {e.start_pfn: e.outcomes for e in judged(kernel.program(), name).exposures}


@each_layout
def test_a_reference_leads_to_the_pgmap_while_pages_have_one(layout: str) -> None:
    found = outcomes_of(untainted(layout), "split-huge-pages")
    assert found[0x24000] == {WalkOutcome.CHANGES: 2}
    expected = WalkOutcome.CHANGES if layout == "7.2" else WalkOutcome.DANGLING_PGMAP
    assert found[0x24002] == {expected: 0x3FE}


@each_layout
def test_a_reference_comes_after_what_is_not_handled_is_dropped(layout: str) -> None:
    # HWPoisonHandlable(): neither on a list of the LRU nor free.
    kernel = untainted(layout)
    found = outcomes_of(kernel, "soft-offline")
    if layout == "5.10":
        assert found[0x24000] == {WalkOutcome.CHANGES: 2}
        assert found[0x24002] == {WalkOutcome.DANGLING_PGMAP: 0x3FE}
        return
    assert found[0x24000] == {WalkOutcome.DROPPED: 2}
    assert found[0x24002] == {WalkOutcome.HARMLESS: 0x3FE}
    lru = 1 << kernel.layout.constant("PG_lru")
    kernel.poke_page_word(0x24001, 0, kernel.page_word(0x24001, 0) | lru)
    (reserved, _) = judged(kernel.program(), "soft-offline").exposures
    assert reserved.outcomes == {WalkOutcome.CHANGES: 1, WalkOutcome.DROPPED: 1}
    assert reserved.used == 1


@each_layout
def test_a_memory_error_marks_whatever_is_online(layout: str) -> None:
    # 5.10 takes a reference, which me_kernel() keeps: no pgmap is followed.
    found = judged(untainted(layout).program(), "memory-failure").exposures
    assert [e.outcomes for e in found] == [{WalkOutcome.CHANGES: 2}, {WalkOutcome.CHANGES: 0x3FE}]
    used = [2, 0x3FE] if layout == "5.10" else [0, 0]
    assert [e.used for e in found] == used


@since_taint
def test_damon_takes_its_reference_before_it_asks_for_the_lru(layout: str) -> None:
    found = judged(untainted(layout).program(), "damon").exposures
    assert [(e.touched, e.used) for e in found] == [(2, 0), (0x3FE, 0)]
    expected = WalkOutcome.CHANGES if layout == "7.2" else WalkOutcome.DANGLING_PGMAP
    assert [e.outcomes for e in found] == [{WalkOutcome.CHANGES: 2}, {expected: 0x3FE}]


@since_taint
def test_damon_and_tails(layout: str) -> None:
    # Before folios, it took a reference to the page itself, and a tail has none.
    kernel = untainted(layout)
    link = kernel.compound_link(0x24000, 1) if layout == "7.2" else kernel.page(0x24000) | 1
    kernel.poke_page_word(0x24001, 1, link)
    kernel.poke_page_word(0x24001, 6, kernel.page_word(0x24001, 6) & 0xFFFFFFFF)
    (reserved, _) = judged(kernel.program(), "damon").exposures
    if layout == "6.1":
        assert reserved.outcomes == {WalkOutcome.CHANGES: 1, WalkOutcome.DROPPED: 1}
    else:
        assert reserved.outcomes == {WalkOutcome.CHANGES: 2}


@each_layout
def test_who_copies_follows_only_what_is_near(layout: str) -> None:
    kernel = untainted(layout)
    # snapshot_page() leaves a head alone that is more than a folio away. Nor is there a struct
    # page at the nearer one: it belongs to a section that is not present.
    kernel.poke_page_word(0x24001, 1, 0xFFFF888000000001)
    far = outcomes_of(kernel, "kpageflags")[0x24000]
    missing = FakeKernel(layout)
    missing.section(4, online=True, early=True, taint=False)
    missing.ram_pages(0x20000, 0x24000)
    missing.pgmap((0x24000, 0x28000), in_flight=True)
    missing.fill_pages(0x24000, 0x28000, 0)
    missing.set_variable("max_pfn", 0x28000)
    # Of 2 ** 26 bytes, it has struct pages for 2 ** 20 PFNs.
    mask = missing.page(0x24001) & ~((1 << 26) - 1) | 1
    missing.poke_page_word(0x24001, 1, mask)
    near = outcomes_of(missing, "kpageflags")[0x24000]
    if layout == "7.2":
        assert far == {WalkOutcome.GARBAGE: 1, WalkOutcome.STALE: 1}
    else:
        assert far == {WalkOutcome.WILD_POINTER: 1, WalkOutcome.STALE: 1}
    assert near[WalkOutcome.WILD_POINTER] == 1


@since_taint
def test_what_is_no_memcg_is_left_alone(layout: str) -> None:
    # Bit 0 means that it is something else.
    kernel = in_flight(layout)
    kernel.section(4, online=True, early=True, taint=False)
    kernel.fill_pages(0x25000, 0x25007, 0xA4)
    kernel.fill_pages(0x26000, 0x26003, 0xA4)
    offset, _ = kernel.layout.locate("page", "memcg_data")
    for pfn in range(0x26000, 0x26003):
        kernel.poke_page_word(pfn, offset // 8, 0xA4A4A4A4A4A4A4A5)
    found = outcomes_of(kernel, "kpagecgroup")[0x24400]
    assert (found[WalkOutcome.WILD_MEMCG], found[WalkOutcome.GARBAGE]) == (7, 3)


@each_layout
def test_a_contiguous_range_ends_at_what_is_reserved(layout: str) -> None:
    kernel = untainted(layout)
    reserved = 1 << kernel.layout.constant("PG_reserved")
    kernel.poke_page_word(0x24001, 0, kernel.page_word(0x24001, 0) & ~reserved)
    found = judged(kernel.program(), "alloc-contig").exposures[0]
    assert (found.touched, found.used) == (2, 1)


@each_layout
def test_what_a_device_left_is_not_initialised_for_what_is_there(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True, subsections=range(32))
    kernel.ram_pages(0x40000, 0x44000)
    kernel.hole_pages(0x44000, 0x44002)
    kernel.metadata_pages(0x44002, 0x48000)
    kernel.grow_zone("ZONE_DEVICE", 0x44000, 0x48000)
    kernel.add_variable("hwpoison_filter_enable", "int", 1)
    found = judged(kernel.program(), "hwpoison-inject").exposures
    assert [(e.start_pfn, e.end_pfn, e.case, e.outcomes) for e in found] == [
        (0x44000, 0x44002, Case.PARTIAL, {WalkOutcome.HARMLESS: 2}),
        (0x44002, 0x48000, Case.GHOST, {WalkOutcome.STALE: 0x3FFE}),
    ]


@pytest.mark.parametrize("name", ["5.10-ghost", "6.1-ghost", "7.3-ghost"])
def test_walkers_meet_what_the_check_found(name: str) -> None:
    with StoredDump(VMCORES / name).program() as prog:
        checked = check(prog).ranges
        found = judged(prog, "hwpoison-inject").exposures
        shown = {(e.start_pfn, e.end_pfn, e.case) for e in found}
        cases = {explain(prog, pfn).range.case for pfn in (0x24000, 0x24002)}  # type: ignore[union-attr]
    unpromised = {(r.start_pfn, r.end_pfn, r.case) for r in checked if r.case in UNPROMISED}
    assert shown == unpromised
    assert cases == {Case.PARTIAL, Case.GHOST}


def test_the_last_pages_of_subsections_are_looked_at_as_well() -> None:
    assert seen(in_flight("5.10").program(), "zone-shrink-ends") == [
        (0x24002, 0x24400, "metadata", 2, 0),
        (0x24400, 0x28000, "initializing", 0x3C00 // 512, 0x3C00 // 512),
    ]


# Other kernels.


def test_the_largest_order_is_that_of_this_kernel() -> None:
    # CONFIG_ARCH_FORCE_MAX_ORDER, on other architectures.
    kernel = in_flight("6.1")
    zone = kernel.layout.structs["zone"]
    members = {**zone.members, "free_area": Member("unsigned long [14]", 0)}
    structs = {**kernel.layout.structs, "zone": dataclasses.replace(zone, members=members)}
    kernel.layout = dataclasses.replace(kernel.layout, structs=structs)
    assert max_order_nr_pages(kernel.program()) == 1 << 13


def test_a_pfn_valid_of_its_own_and_an_unknown_pageblock_are_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prog = in_flight("5.10").program()
    monkeypatch.setattr(guards, "has_generic_pfn_valid", lambda prog: False)
    monkeypatch.setattr(memory, "pageblock_nr_pages", lambda prog, sections: None)
    report = walkers(prog)
    unjudged = {j.walker.name: j for j in report.walkers if j.unjudged}
    assert {"hwpoison-inject", "compaction", "page-owner", "pagetypeinfo"} <= set(unjudged)
    assert not {"kpageflags", "zone-shrink", "memory-failure"} & set(unjudged)
    assert not any(j.exposures or j.counts for j in unjudged.values())
    text = walkers_text(report)
    assert "not judged: this kernel has a pfn_valid() of its own" in text
    assert "not judged on this kernel: memory-failure-dax, " in text
    validated(walkers_document(report))


@each_layout
def test_what_could_not_be_read_is_not_judged(layout: str) -> None:
    kernel = partial(layout)
    kernel.unmap_memmap(0x100000, 0x100040)
    found = [e.outcomes for e in judged(kernel.program(), "hwpoison-inject").exposures]
    assert found == [
        {WalkOutcome.UNREADABLE: 2},
        {WalkOutcome.UNREADABLE: 62, WalkOutcome.HARMLESS: 0x5C0},
    ]


# Runs against one PFN after the other.


def slow_pass(prog: Program, judgement: Judgement, pfn: int) -> bool | None:
    """Whether a PFN passes the steps that one-by-one helpers can answer; None if one cannot."""
    if pfn % judgement.stride != judgement.offset:
        return False
    max_pfn = prog["max_pfn"].value_()
    pgmap = get_dev_pagemap(prog, pfn)
    answers: dict[str, Callable[[], bool]] = {
        "pfn_valid()": lambda: pfn_valid(prog, pfn),
        "pfn_to_online_page()": lambda: bool(pfn_to_online_page(prog, pfn)),
        "no pfn_to_online_page()": lambda: not pfn_to_online_page(prog, pfn),
        "get_dev_pagemap()": lambda: bool(pgmap),
        "pgmap_pfn_valid()": lambda: bool(pgmap) and pgmap_pfn_valid(pgmap, pfn),
        "below max_pfn": lambda: pfn < max_pfn,
        "below the end of max_pfn's section": lambda: pfn < -(-max_pfn // 0x8000) * 0x8000,
        "pfn_valid() of the first PFN of each MAX_ORDER block": lambda: pfn_valid(
            prog, pfn // 1024 * 1024
        ),
    }
    assert judgement.guard is not None
    if not set(judgement.guard.steps) <= set(answers):
        return None
    return all(answers[step]() for step in judgement.guard.steps)


SCENES: dict[str, Callable[[str], FakeKernel]] = {
    "collision": collision,
    "in_flight": in_flight,
    "partial": partial,
}


@each_layout
@pytest.mark.parametrize("scene", SCENES)
def test_runs_say_what_is_said_of_each_pfn(layout: str, scene: str) -> None:
    prog = SCENES[scene](layout).program()
    report = walkers(prog)
    borders = {0x24000, 0x24400, 0x28000, 0x30000, 0x3FFE0, 0x40000}
    borders |= {0x100000, 0x100600, 0x110000, 0x114000, 0x114200, 0x118000}
    sample = {pfn + d for pfn in borders for d in (-1024, -512, -2, -1, 0, 1, 2, 511, 512, 1023)}
    unpromised = {
        pfn for pfn in sample if any(e.start_pfn <= pfn < e.end_pfn for e in everything(prog))
    }
    compared = 0
    for judgement in report.walkers:
        if judgement.guard is None:
            continue
        for pfn in sorted(unpromised):
            expected = slow_pass(prog, judgement, pfn)
            if expected is None or judgement.stride > 1:
                continue
            inside = any(e.start_pfn <= pfn < e.end_pfn for e in judgement.exposures)
            assert inside is expected, (judgement.walker.name, hex(pfn))
            compared += 1
    assert compared > 50


def everything(prog: Program) -> list[Exposure]:
    from drgn_zonedev.classification.classify import classify_snapshot
    from drgn_zonedev.classification.reading import take_snapshot
    from drgn_zonedev.pfn_walkers.memory import UNPROMISED

    ranges = classify_snapshot(prog, take_snapshot(prog))
    return [
        Exposure(r.start_pfn, r.end_pfn, r.case, 0, 0, {}, {})
        for r in ranges
        if r.case in UNPROMISED
    ]


@each_layout
def test_a_kernel_without_device_memory(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    assert not any(j.exposures for j in walkers(kernel.program()).walkers)


def test_progress_counts_the_memmap() -> None:
    counted: list[tuple[int, int]] = []
    walkers(collision("6.1").program(), progress=lambda *done: counted.append(done))
    # The altmap's pages, and RAM that no zone spans.
    size = (0x400 + 0x20) * 64
    assert sum(done for done, _ in counted) == size
    assert {total for _, total in counted} == {size}


# RAM whose struct page says a zone that does not exist.
HOLE, ZONE_SHIFT, NODE_SHIFT = 0x3FFE0, 51, 54


def misplaced(layout: str, pfn: int = HOLE, *, zone: int = 5, node: int = 0) -> FakeKernel:
    kernel = collision(layout)
    links = 7 << ZONE_SHIFT | 1023 << NODE_SHIFT
    flags = kernel.page_word(pfn, 0) & ~links
    kernel.poke_page_word(pfn, 0, flags | zone << ZONE_SHIFT | node << NODE_SHIFT)
    return kernel


def pagesets(kernel: FakeKernel, zone: int, address: int) -> None:
    """Set what lies where a zone would have its per-CPU pagesets."""
    members = kernel.layout.structs["zone"].members
    # Since v5.14, it has that name.
    offset = members["per_cpu_pageset" if "per_cpu_pageset" in members else "pageset"].offset
    size = kernel.layout.sizeof("struct zone")
    kernel.poke(kernel.nodes[0] + zone * size + offset, address.to_bytes(8, "little"))


def in_ram(prog: Program, name: str) -> list[tuple[int, int, WalkOutcome]]:
    exposures = judged(prog, name).exposures
    return [(e.start_pfn, e.end_pfn, e.worst) for e in exposures if e.case is Case.ONLINE]


@each_layout
def test_memory_failure_changes_what_lies_behind_the_zones(layout: str) -> None:
    kernel = misplaced(layout)
    pagesets(kernel, 5, PERCPU_FIRST)
    for name in ("memory-failure", "soft-offline"):
        found = in_ram(kernel.program(), name)
        assert found == [(HOLE, HOLE + 1, WalkOutcome.FALSE_ZONE)]


@each_layout
@pytest.mark.parametrize("address", [0, 0x0000_7F00_0000_0000, (1 << 64) - (1 << 30)])
def test_memory_failure_dies_where_the_zone_leads_to_no_memory(layout: str, address: int) -> None:
    kernel = misplaced(layout)
    pagesets(kernel, 5, address)
    # 5.10 only takes the lock.
    expected = WalkOutcome.FALSE_ZONE if layout == "5.10" else WalkOutcome.WILD_ZONE
    for name in ("memory-failure", "soft-offline"):
        assert in_ram(kernel.program(), name) == [(HOLE, HOLE + 1, expected)]


@since_taint
def test_node_that_does_not_exist_leads_to_no_memory(layout: str) -> None:
    prog = misplaced(layout, zone=1, node=3).program()
    assert in_ram(prog, "memory-failure") == [(HOLE, HOLE + 1, WalkOutcome.WILD_ZONE)]


@each_layout
def test_walkers_that_do_not_look_up_the_zone_are_not_harmed(layout: str) -> None:
    prog = misplaced(layout).program()
    # DAMON takes a reference to the page, which is in use.
    for name in ("kpageflags", "page-idle", "unpoison", "damon", "hibernation-saveable"):
        assert {worst for _, _, worst in in_ram(prog, name)} <= {WalkOutcome.HARMLESS}
    assert in_ram(prog, "kpageflags") == [(HOLE, HOLE + 1, WalkOutcome.HARMLESS)]


@each_layout
def test_unpoison_stops_at_reserved_pages_before_it_looks_up_their_zone(layout: str) -> None:
    kernel = misplaced(layout)
    pagesets(kernel, 5, PERCPU_FIRST)
    poison = 1 << kernel.layout.constant("PG_hwpoison")
    reserved = 1 << kernel.layout.constant("PG_reserved")
    kernel.poke_page_word(HOLE, 0, kernel.page_word(HOLE, 0) | poison)
    worst = {w for *_, w in in_ram(kernel.program(), "unpoison")}
    assert worst == {WalkOutcome.HARMLESS}
    # 5.10 does not look it up at all.
    kernel.poke_page_word(HOLE, 0, kernel.page_word(HOLE, 0) & ~reserved)
    worst = {w for *_, w in in_ram(kernel.program(), "unpoison")}
    assert worst == {WalkOutcome.HARMLESS if layout == "5.10" else WalkOutcome.FALSE_ZONE}


@each_layout
def test_ram_that_a_zone_spans_is_not_read(layout: str) -> None:
    prog = misplaced(layout, 0x31000).program()
    assert in_ram(prog, "memory-failure") == []
    # Whoever asks for that page is answered.
    names = {w.name for w in explain(prog, 0x31000).walkers}
    assert "memory-failure" in names


@each_layout
def test_ram_in_its_zone_exposes_nothing(layout: str) -> None:
    prog = collision(layout).program()
    assert not [e for j in walkers(prog).walkers for e in j.exposures if e.case is Case.ONLINE]
    assert explain(prog, HOLE).walkers == ()


# Walkers that check the zone of the first page of a pageblock only, and trust the others.
FIRST_ONLY = (
    "compaction-hints",
    "page-isolation-pages",
    "page-isolation-test",
    "pagetypeinfo-mixed",
)


@each_layout
def test_walkers_that_trust_a_pageblock_take_what_a_removed_device_left(layout: str) -> None:
    kernel = collision(layout)
    # Section 4 is online. The pageblock at 0x24000 begins with the altmap's reserve, which says
    # a zone of RAM; its last page says ZONE_DEVICE.
    prog = kernel.program()
    assert seen(prog, "compaction-free") == []
    for name in FIRST_ONLY:
        touched = seen(prog, name)
        if layout == "5.10":
            # It does not know the taint, so all of the section is online.
            assert touched, name
        else:
            assert touched == [], name


@each_layout
def test_walker_of_one_page_in_eight_touches_an_eighth(layout: str) -> None:
    if layout != "5.10":
        assert seen(collision(layout).program(), "compaction-hints") == []
        return
    found = {e[0]: e[3] for e in seen(collision("5.10").program(), "compaction-hints")}
    # Only the pageblock of 0x200 pages at 0x24000 begins in a zone of RAM; its first page that
    # is read is in the reserve.
    assert (found[0x24000], found[0x24002]) == (1, 0x200 // 8 - 1)


def test_kho_takes_pages_with_its_magic_only() -> None:
    kernel = misplaced("7.2")
    assert only(kernel.program(), "kho-restore").used == 0
    # KHO_PAGE_MAGIC and an order.
    kernel.poke_page_word(HOLE, 5, 3 << 32 | 0x4B484F50)
    assert only(kernel.program(), "kho-restore").used == 1


def test_virtio_mem_walks_its_own_memory_only() -> None:
    kernel = misplaced("6.1")
    assert in_ram(kernel.program(), "virtio-mem-unplug") == []
    kernel.system_ram(0x38000, 0x40000, "System RAM (virtio_mem)")
    assert [e[:2] for e in in_ram(kernel.program(), "virtio-mem-unplug")] == [(HOLE, HOLE + 1)]
    # It reads the first page of a section for that.
    assert in_ram(kernel.program(), "virtio-mem-movable") == []


def test_walkers_that_looked_at_no_struct_page_before_are_younger_than_the_kernel() -> None:
    for name, layouts in (
        ("access-phys", ()),
        ("dma-debug", ("7.2",)),
        ("kho-restore", ("7.2",)),
        ("auto-movable", ("6.1", "6.12", "7.2")),
    ):
        for layout in ("5.10", "6.1", "6.12", "7.2"):
            guard = judged(collision(layout).program(), name).guard
            assert (guard is not None) is (layout in layouts), (name, layout)


def test_export_of_version_1_does_not_say_whether_there_are_walkers_that_it_did_not_know() -> None:
    with StoredDump(VMCORES / "6.1-empty").program() as prog:
        present = {j.walker.name: j.present for j in walkers(prog).walkers}
    # Compaction and page_owner are known by functions of walkers that it knew.
    assert present["compaction-hints"] is present["page-isolation"] is True
    assert present["pagetypeinfo-mixed"] is False
    assert present["shuffle"] is present["access-phys"] is None


@each_layout
def test_ram_that_no_zone_spans_is_unjudged_if_it_cannot_be_read(layout: str) -> None:
    kernel = collision(layout)
    assert walkers(kernel.program()).unjudged == ()
    kernel.unmap_memmap(HOLE, 0x40000)
    report = walkers(kernel.program())
    assert [(u.start_pfn, u.end_pfn) for u in report.unjudged] == [(HOLE, 0x40000)]
    assert "not judged: [0x3ffe0, 0x40000)" in walkers_text(report)
    validated(walkers_document(report))
