# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The table
---------

The walkers, as data. Most guards have been the same for as long as pgmaps have had
ranges (v5.10); where one changed and left no trace in debugging information, the
release decides, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.walkers.outcome import Act

__all__ = ("WALKERS", "Guard", "Walker")

Release = tuple[int, int]


@dataclass(frozen=True)
class Guard:
    """
    What is asked before a struct page is used: names of ``STEPS`` and ``FILTERS``.

    It is that of kernels that have ``function``, or if there is none that tells, from
    the release ``since`` on; ``known`` says where that is from.
    """

    steps: tuple[str, ...]
    filters: tuple[str, ...] = ()
    since: Release = (0, 0)
    function: str = ""
    known: str = "the same in v5.10, v6.1, v6.12, v7.2 and v7.3"


@dataclass(frozen=True)
class Walker:
    """
    Code that looks at struct pages by PFN.

    ``function`` is the one that reads the struct page; ``functions`` are names by
    which debugging information shows that a kernel has the walker, in case that one
    is inlined, and ``module`` tells that a module can have them instead of vmlinux.
    ``guards`` are in the order of kernels. It looks at one PFN in
    ``stride``, the one at ``offset``. ``proof`` says what compared a prediction with
    what a kernel did; without it, everything here is reasoned.
    """

    name: str
    what: str
    file: str
    function: str
    functions: tuple[str, ...]
    guards: tuple[Guard, ...]
    acts: frozenset[Act]
    module: bool = False
    stride: int = 1
    offset: int = 0
    proof: str = ""
    note: str = ""


def _acts(*acts: Act) -> frozenset[Act]:
    return frozenset(acts)


_VALID = "pfn_valid()"
_ONLINE = "pfn_to_online_page()"
_IN_ZONE = "in a zone with RAM"
_ZONE = "page_zone() is the zone that is walked"
_LAST_SECTION = "below the end of max_pfn's section"

_SINCE_5_4 = (
    "aad5f69bc161 (\"fs/proc/page.c: don't access uninitialized memmaps in "
    'fs/proc/page.c") (in v5.4)'
)
_BEFORE_6_0 = "read in v5.10; changed in a release between that and v6.1, without a trace"

_KPAGE = (Guard((_LAST_SECTION, _ONLINE), known=_SINCE_5_4),)
# What "zonedev lab walk" compares (lab/trials.py).
_KPAGE_PROOF = "the lab's guests read the file: each word of what is not RAM is as predicted"
_VISIT_PROOF = (
    "the lab's guests (v6.12 on) send it to each kind of page: it takes the predicted ones"
)
_ONLINE_ONLY = (Guard((_ONLINE,)),)
_ONLINE_IN_ZONE = (Guard((_IN_ZONE, _ONLINE), (_ZONE,)),)

WALKERS = (
    Walker(
        name="kpageflags",
        what="/proc/kpageflags",
        file="fs/proc/page.c",
        function="stable_page_flags",
        functions=("stable_page_flags", "kpageflags_read"),
        guards=_KPAGE,
        acts=_acts(Act.FLAGS, Act.HEAD),
        proof=_KPAGE_PROOF,
    ),
    Walker(
        name="kpagecount",
        what="/proc/kpagecount",
        file="fs/proc/page.c",
        function="kpagecount_read",
        functions=("kpagecount_read",),
        guards=_KPAGE,
        acts=_acts(Act.FLAGS, Act.HEAD),
        proof=_KPAGE_PROOF,
    ),
    Walker(
        name="kpagecgroup",
        what="/proc/kpagecgroup",
        file="fs/proc/page.c",
        function="page_cgroup_ino",
        functions=("kpagecgroup_read",),
        guards=_KPAGE,
        acts=_acts(Act.HEAD, Act.MEMCG),
    ),
    Walker(
        name="memory-failure",
        what="memory errors, as RAM",
        file="mm/memory-failure.c",
        function="memory_failure",
        functions=("memory_failure",),
        guards=_ONLINE_ONLY,
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE, Act.MARK),
        proof=_VISIT_PROOF,
    ),
    Walker(
        name="memory-failure-dax",
        what="memory errors, as device memory",
        file="mm/memory-failure.c",
        function="memory_failure_dev_pagemap",
        functions=("memory_failure",),
        guards=(
            Guard(("no pfn_to_online_page()", _VALID, "get_dev_pagemap()"), known="before that"),
            Guard(
                ("no pfn_to_online_page()", _VALID, "get_dev_pagemap()", "pgmap_pfn_valid()"),
                function="pgmap_pfn_valid",
                known='34dc45be4563 ("mm: fix memory_failure() handling of dax-namespace '
                'metadata") (in v5.12), which brought pgmap_pfn_valid()',
            ),
        ),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.MARK),
        proof=_VISIT_PROOF,
        note="the only walker that asks everything there is to ask",
    ),
    Walker(
        name="soft-offline",
        what="/sys/devices/system/memory/soft_offline_page",
        file="mm/memory-failure.c",
        function="soft_offline_page",
        functions=("soft_offline_page",),
        guards=(Guard((_VALID, _ONLINE)),),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE),
        proof=_VISIT_PROOF,
    ),
    Walker(
        name="unpoison",
        what="unpoison-pfn in debugfs",
        file="mm/memory-failure.c",
        function="unpoison_memory",
        functions=("unpoison_memory",),
        guards=(
            Guard((_VALID,), known="read in v5.10"),
            Guard((_ONLINE,), since=(6, 1), known=_BEFORE_6_0),
        ),
        acts=_acts(Act.FLAGS, Act.HEAD),
        proof=_VISIT_PROOF,
        note="it changes only pages that are marked as poisoned",
    ),
    Walker(
        name="hwpoison-inject",
        what="corrupt-pfn in debugfs",
        file="mm/hwpoison-inject.c",
        function="hwpoison_inject",
        functions=("hwpoison_inject",),
        guards=(Guard((_VALID,)),),
        acts=_acts(Act.HEAD),
        module=True,
        note="with a filter set, it reads more than the compound link",
    ),
    Walker(
        name="compaction",
        what="compaction: is a pageblock one zone's?",
        file="mm/page_alloc.c",
        function="__pageblock_pfn_to_page",
        functions=("__pageblock_pfn_to_page",),
        guards=(Guard((_IN_ZONE, "__pageblock_pfn_to_page()"), ("!PageTail()", "PageLRU()")),),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE),
        note="both ends are asked, what is between them is taken on trust",
    ),
    Walker(
        name="compaction-ends",
        what="compaction: the last page of a pageblock",
        file="mm/page_alloc.c",
        function="__pageblock_pfn_to_page",
        functions=("__pageblock_pfn_to_page",),
        guards=(Guard((_IN_ZONE, "the pageblock begins online", _VALID)),),
        acts=_acts(Act.FLAGS),
        stride=512,
        offset=511,
        note="its zone is compared with that of the first page, which is all that is read",
    ),
    Walker(
        name="page-owner",
        what="/sys/kernel/debug/page_owner",
        file="mm/page_owner.c",
        function="read_page_owner",
        functions=("read_page_owner", "init_pages_in_zone"),
        guards=(Guard(("below max_pfn", "pfn_valid() of the first PFN of each MAX_ORDER block")),),
        acts=_acts(Act.FLAGS),
        note="device memory has no page_ext, at which it stops; with one, its contents are used",
    ),
    Walker(
        name="pagetypeinfo",
        what="/proc/pagetypeinfo",
        file="mm/vmstat.c",
        function="pagetypeinfo_showblockcount_print",
        functions=("pagetypeinfo_showblockcount_print", "pagetypeinfo_show"),
        guards=_ONLINE_IN_ZONE,
        acts=_acts(Act.FLAGS),
        stride=512,
    ),
    Walker(
        name="page-idle",
        what="/sys/kernel/mm/page_idle/bitmap",
        file="mm/page_idle.c",
        function="page_idle_get_folio",
        functions=("page_idle_get_folio", "page_idle_get_page", "page_idle_bitmap_read"),
        guards=(Guard((_ONLINE,), ("!PageTail()", "PageLRU()")),),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE),
    ),
    Walker(
        name="kmemleak",
        what="kmemleak's scan of struct pages",
        file="mm/kmemleak.c",
        function="kmemleak_scan",
        functions=("kmemleak_scan",),
        guards=(Guard((_IN_ZONE, _ONLINE), (_ZONE, "page_count() != 0")),),
        acts=_acts(Act.FLAGS, Act.SCAN),
        note="what it takes for pointers hides leaks",
    ),
    Walker(
        name="damon",
        what="DAMON on physical addresses",
        file="mm/damon/ops-common.c",
        function="damon_get_folio",
        functions=("damon_get_folio", "damon_get_page"),
        guards=(Guard((_ONLINE,), ("!PageTail()",), since=(5, 15), known="DAMON is of v5.15"),),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE),
    ),
    Walker(
        name="split-huge-pages",
        what="/sys/kernel/debug/split_huge_pages",
        file="mm/huge_memory.c",
        function="split_huge_pages_all",
        functions=("split_huge_pages_all", "split_huge_pages_set"),
        guards=(
            Guard((_IN_ZONE, _VALID), ("page_count() != 0",), known="read in v5.10"),
            Guard(
                (_IN_ZONE, _ONLINE),
                ("!PageTail()", "page_count() != 0"),
                since=(6, 0),
                known='2b7aa91ba0e8 ("mm/huge_memory: use pfn_to_online_page() in '
                'split_huge_pages_all()") (in v6.0), in some stable trees before that',
            ),
        ),
        acts=_acts(Act.FLAGS, Act.HEAD, Act.REFERENCE),
        note="it takes the reference before it looks at the zone",
    ),
    Walker(
        name="hibernation-saveable",
        what="hibernation: which pages to save",
        file="kernel/power/snapshot.c",
        function="saveable_page",
        functions=("saveable_page", "count_data_pages"),
        guards=(Guard((_IN_ZONE, _VALID, _ONLINE), (_ZONE,)),),
        acts=_acts(Act.FLAGS),
    ),
    Walker(
        name="hibernation-free",
        what="hibernation: which pages are free",
        file="kernel/power/snapshot.c",
        function="mark_free_pages",
        functions=("mark_free_pages",),
        guards=(Guard((_IN_ZONE, _VALID), (_ZONE,)),),
        acts=_acts(Act.FLAGS),
    ),
    Walker(
        name="memory-offline",
        what="offlining a memory block: what can be moved",
        file="mm/memory_hotplug.c",
        function="scan_movable_pages",
        functions=("scan_movable_pages", "offline_pages"),
        guards=(Guard(("a section of System RAM without holes", _ONLINE, _VALID)),),
        acts=_acts(Act.FLAGS, Act.HEAD),
    ),
    Walker(
        name="alloc-contig",
        what="alloc_contig_pages(): gigantic pages",
        file="mm/page_alloc.c",
        function="pfn_range_valid_contig",
        functions=(
            "pfn_range_valid_contig",
            "pfn_range_valid_gigantic",
            "alloc_contig_pages",
            "alloc_contig_pages_noprof",
            "alloc_contig_frozen_pages_noprof",
        ),
        guards=_ONLINE_IN_ZONE,
        acts=_acts(Act.FLAGS, Act.HEAD),
        note="it stops at pages that are reserved",
    ),
    Walker(
        name="zone-shrink",
        what="removing memory: where a zone ends now",
        file="mm/memory_hotplug.c",
        function="find_smallest_section_pfn",
        functions=("find_smallest_section_pfn", "find_biggest_section_pfn", "shrink_zone_span"),
        guards=_ONLINE_IN_ZONE,
        acts=_acts(Act.FLAGS),
        stride=512,
    ),
    Walker(
        name="kcore",
        what="/proc/kcore",
        file="fs/proc/kcore.c",
        function="read_kcore_iter",
        functions=("read_kcore_iter", "read_kcore"),
        guards=(
            Guard(("System RAM", _ONLINE), since=(5, 14), known="no struct page before v5.14"),
        ),
        acts=_acts(Act.FLAGS),
    ),
    Walker(
        name="makedumpfile",
        what="makedumpfile, in the capture kernel",
        file="makedumpfile.c",
        function="__exclude_unnecessary_pages",
        functions=(),
        guards=(Guard(("System RAM", _VALID)),),
        acts=_acts(Act.FLAGS, Act.HEAD),
        note="a program, not part of the kernel: it sees what /proc/vmcore has",
    ),
)
