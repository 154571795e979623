# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The table
---------

The walkers, as data. Most guards have not changed since pgmaps got ranges (v5.10). If a guard
changed without a trace in the debugging information, the release decides which one applies, and the
output says so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Union

from drgn_zonedev.pfn_walkers.kernel_release import Release, StableRelease
from drgn_zonedev.pfn_walkers.outcome import Act

__all__ = (
    "NEVER_INLINED",
    "ONLY_STABLE",
    "TRACES",
    "WALKERS",
    "Guard",
    "Proof",
    "Stride",
    "Trace",
    "Walker",
)

Does = tuple[Union[Act, str], ...]

ONLY_STABLE: Release = (1 << 16, 0)
"""``since`` of a guard that only stable trees have."""

_IN_BOOTED = "the same in v5.10, v6.1, v6.12, v7.2 and v7.3"


class Stride(enum.Enum):
    """Which PFNs a walker reads, if not all."""

    EIGHT = "one in eight pages"
    PAGEBLOCK = "one in a pageblock"
    MAX_ORDER = "one in a MAX_ORDER block"
    SUBSECTION = "one in a subsection"
    SECTION = "one in a section"


@dataclass(frozen=True)
class Guard:
    """
    The checks before a struct page is used.

    ``steps`` are names of ``STEPS``. ``does`` is what happens to a struct page that
    passes them: acts, and between them names of ``FILTERS``, which drop pages before the
    following acts. A kernel has this guard if it has the ``feature`` (one of ``FEATURES``)
    or the ``function``, with as many ``parameters``; if neither decides, from the release
    ``since`` on, and from the releases ``stable`` of their trees. ``commit`` introduced the guard,
    if that was found; ``known`` says which sources were read. Nothing else is known about a guard;
    ``proof`` of the walker names the kernels that were booted.
    """

    steps: tuple[str, ...]
    does: Does
    since: Release = (0, 0)
    stable: tuple[StableRelease, ...] = ()
    feature: str = ""
    function: str = ""
    parameters: int | None = None
    commit: str = ""
    known: str = _IN_BOOTED

    @property
    def source(self) -> str:
        """The source of everything known about it."""
        return "; ".join(filter(None, (self.commit, self.known)))

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of ``FILTERS``, in the order in which they are applied."""
        return tuple(each for each in self.does if isinstance(each, str))

    @property
    def acts(self) -> tuple[Act, ...]:
        """What the walker does with struct pages, in that order."""
        return tuple(each for each in self.does if isinstance(each, Act))


@dataclass(frozen=True)
class Proof:
    """How a prediction was compared with what kernels did, and which kernels (``uname -r``)."""

    what: str
    releases: tuple[str, ...]


@dataclass(frozen=True)
class Walker:
    """
    Code that reads struct pages by PFN.

    ``function`` reads the struct page; ``older`` is its former name. ``file`` is where it is;
    ``moved`` is the release since which it is there, and the file where it was before.
    ``functions`` are names by which the debugging information shows that a kernel has the
    walker, in case ``function`` is inlined; exports have them if they have ``beside``, which
    every kernel has. If ``module`` is true, a module can have them
    instead of vmlinux; that requires the functions ``needs`` in the kernel. ``guards`` are
    in the order of releases. Releases since ``until`` do not have the walker, unless the
    function shows that they do. The walker reads all PFNs, or the first one in each
    ``stride``, or the ``last`` one. Without a ``proof``, all of this is
    reasoned from the sources.
    """

    name: str
    what: str
    file: str
    function: str
    functions: tuple[str, ...]
    guards: tuple[Guard, ...]
    older: str = ""
    until: Release | None = None
    moved: tuple[Release, str] | None = None
    module: bool = False
    needs: tuple[str, ...] = ()
    stride: Stride | None = None
    last: bool = False
    proof: Proof | None = None
    note: str = ""
    beside: str = "vfree"


@dataclass(frozen=True)
class Trace:
    """A function that a kernel has exactly if it has another one, which the first one calls."""

    function: str
    parameters: int | None = None
    """How many parameters it has, if it had another number before it called the other one."""


# BTF and kallsyms have no trace of a function that is inlined wherever it is called.
TRACES = {
    # Linux kernel commit fa6c02315f74 ("mm: huge_memory: a new debugfs interface for
    # splitting THP tests") (in v5.13)
    "split_huge_pages_all": Trace("split_huge_pages_write"),
    "saveable_page": Trace("swsusp_save"),
    "count_data_pages": Trace("swsusp_save"),
    "mark_free_pages": Trace("swsusp_save"),
    "kmemleak_scan": Trace("kmemleak_write"),
    "find_smallest_section_pfn": Trace("remove_pfn_range_from_zone"),
    "find_biggest_section_pfn": Trace("remove_pfn_range_from_zone"),
    "shrink_zone_span": Trace("remove_pfn_range_from_zone"),
    # It has two parameters since Linux kernel commit 0ed950d1f281 ("mm,hwpoison: make
    # get_hwpoison_page() call get_any_page()") (in v5.14). HWPoisonHandlable() came in v5.13, where
    # get_hwpoison_page() has three parameters, as in v5.11: it leaves no trace there.
    "HWPoisonHandlable": Trace("get_hwpoison_page", parameters=2),
    "__reset_isolation_pfn": Trace("reset_isolation_suitable"),
    "isolate_freepages_block": Trace("reset_isolation_suitable"),
    "shuffle_valid_page": Trace("__shuffle_zone"),
    "set_migratetype_isolate": Trace("start_isolate_page_range"),
    "has_unmovable_pages": Trace("start_isolate_page_range"),
    "__test_page_isolated_in_pageblock": Trace("test_pages_isolated"),
    "try_offline_memory_block": Trace("offline_and_remove_memory"),
    # It has the group of memory blocks since Linux kernel commit 445fcf7c7214
    # ("mm/memory_hotplug: memory group aware "auto-movable" online policy") (in v5.15).
    "auto_movable_zone_for_pfn": Trace("zone_for_pfn_range", parameters=5),
    # It has gfp_flags since Linux kernel commit b2c9e2fbba32 ("mm: make alloc_contig_range work
    # at pageblock granularity") (in v5.19).
    "isolate_single_pageblock": Trace("start_isolate_page_range", parameters=5),
    "kho_restore_page": Trace("kho_restore_folio"),
    "__ioremap_check_ram": Trace("__ioremap_collect_map_flags"),
}

# If a kernel has one of these functions, it is among the symbols: other files call it, or data has
# its address, so it cannot be inlined everywhere.
NEVER_INLINED = frozenset(
    (
        *("kpageflags_read", "kpagecount_read", "kpagecgroup_read", "read_page_owner"),
        *("pagetypeinfo_show", "page_idle_bitmap_read", "kmemleak_write", "hwpoison_inject"),
        *("memory_failure", "soft_offline_page", "unpoison_memory", "offline_pages"),
        *("__pageblock_pfn_to_page", "damon_get_folio", "damon_get_page", "swsusp_save"),
        *("split_huge_pages_write", "split_huge_pages_set", "remove_pfn_range_from_zone"),
        *("alloc_contig_pages", "alloc_contig_pages_noprof", "alloc_contig_frozen_pages_noprof"),
        *("read_kcore", "read_kcore_iter", "vfree", "kvfree", "pgmap_pfn_valid"),
        *("reset_isolation_suitable", "__shuffle_zone", "start_isolate_page_range"),
        *("test_pages_isolated", "offline_and_remove_memory", "generic_access_phys"),
        *("dma_debug_device_change", "zone_for_pfn_range", "test_pages_in_a_zone"),
        *("kho_restore_folio", "__ioremap_collect_map_flags"),
    )
)

_VALID = "pfn_valid()"
_ONLINE = "pfn_to_online_page()"
_IN_ZONE = "in a zone with RAM"
_ZONE = "page_zone() is the zone that is walked"
_RAM_SECTION = "a section of System RAM without holes"
_ONLINE_BLOCK = "a memory block that is online"
_BLOCK_BEGINS_ONLINE = "the pageblock begins online"
_LAST_SECTION = "below the end of max_pfn's section"

_SINCE_5_4 = (
    "aad5f69bc161 (\"fs/proc/page.c: don't access uninitialized memmaps in "
    'fs/proc/page.c") (in v5.4)'
)
_SINCE_5_6 = (
    'abec749facff ("fs/proc/page.c: allow inspection of last section and fix end '
    'detection") (in v5.6)'
)
_SINCE_5_13 = '25182f05ffed ("mm,hwpoison: fix race with hugetlb page allocation") (in v5.13)'
# get_hwpoison_page() begins with zone_pcp_disable(page_zone(page)).
_SINCE_5_11 = '2f7141600d67 ("mm,hwpoison: disable pcplists before grabbing a refcount") (in v5.11)'
_SINCE_6_17 = (
    'd613f53c83ec ("mm/memory-failure: fix VM_BUG_ON_PAGE(PagePoisoned(page)) when unpoison '
    'memory") (in v6.17), in stable trees, too'
)
_READ_LATER = "read in v6.12, v7.2 and v7.3"

_DAMON_FIX = (
    'd6b8b02a27b3 ("mm/damon/ops-common: call folio_test_lru() after folio_get()") (in v7.1), '
    "in stable trees, too"
)
_VIRTIO_MEM = "memory of virtio-mem"
_VIRTIO_MEM_KNOWN = "read in v6.1, v6.12, v7.2 and v7.3"
# These are vendors' trees, and for v6.6 one from the weeks between it and v6.7-rc1.
_IN_6_6_TOO = f"{_IN_BOOTED}; read in a tree of v6.6, too"
_IN_5_15_TOO = f"{_IN_BOOTED}; read in trees of v5.15 and v6.6, too"
_IN_5_4_TOO = f"{_IN_BOOTED}; read in trees of v5.4, v5.15 and v6.6, too"
_BELOW_MAX_PFN = "below max_pfn"
# Without one of these functions, the kernel does not isolate pages.
_ISOLATION = (
    *("start_isolate_page_range", "offline_pages", "alloc_contig_pages"),
    *("alloc_contig_pages_noprof", "alloc_contig_frozen_pages_noprof"),
)
# Exports of version 0.1 do not say which of these walkers the kernel has.
_SINCE_0_2 = "kvfree"
# Exports of its development versions do not say it for this one.
_SINCE_VALID_ZONES = "vunmap"

# What "zonedev lab walk" compares (lab/verdict/trials.py), and the kernels on which it did so. On
# those without CONFIG_MEMORY_FAILURE, it compared only the files in /proc.
_PROVED_6_12 = (
    "6.12.107+deb13-cloud-amd64",
    "7.2.12+deb14-cloud-amd64",
    "7.3.4+deb13-cloud-amd64",
)
_PROVED = ("5.10.0-32-cloud-amd64", "6.1.0-56-cloud-amd64", *_PROVED_6_12)
_KPAGE_PROOF = Proof(
    "a guest of the lab with this kernel read the file: each word outside RAM is as predicted",
    _PROVED,
)
_VISIT_PROOF = Proof(
    "a guest of the lab with this kernel ran it on each kind of page: its guard is as stated here; "
    "what it does after that is reasoned",
    _PROVED_6_12,
)

_KPAGE = (
    Guard((_BELOW_MAX_PFN, _ONLINE), (Act.FLAGS, Act.HEAD), commit=_SINCE_5_4, known=""),
    Guard(
        (_LAST_SECTION, _ONLINE),
        (Act.FLAGS, Act.HEAD),
        since=(5, 6),
        commit=_SINCE_5_6,
        known="read in v5.10, v6.1 and v6.12",
    ),
    Guard(
        (_LAST_SECTION, _ONLINE),
        (Act.COPY,),
        feature="kpage_read() looks at copies",
        known="kpage_read() uses snapshot_page(): read in v7.2 and v7.3",
    ),
)
_ZONE_ONLY = (Guard((_IN_ZONE, _ONLINE), (Act.FLAGS, _ZONE), known=_IN_5_15_TOO),)
# PageHWPoison() reads the page itself, not its head.
_UNPOISON: Does = (
    *(Act.FLAGS, Act.LINK, "PageHWPoison()"),
    *(Act.HEAD, Act.MARK, Act.REFERENCE),
)
_UNPOISON_5_11: Does = (
    *(Act.FLAGS, Act.LINK, "PageHWPoison()", Act.HEAD, Act.ZONE),
    *(Act.MARK, Act.REFERENCE),
)
# It checks PageReserved() now, so it does not use the zone of reserved pages.
_UNPOISON_LATER: Does = (
    *(Act.FLAGS, Act.LINK, "PageHWPoison()", Act.HEAD, "!PageReserved()", Act.ZONE),
    *(Act.MARK, Act.REFERENCE),
)

WALKERS = (
    Walker(
        name="kpageflags",
        what="/proc/kpageflags",
        file="fs/proc/page.c",
        function="stable_page_flags",
        functions=("stable_page_flags", "kpageflags_read"),
        guards=_KPAGE,
        proof=_KPAGE_PROOF,
    ),
    Walker(
        name="kpagecount",
        what="/proc/kpagecount",
        file="fs/proc/page.c",
        function="kpagecount_read",
        functions=("kpagecount_read",),
        guards=_KPAGE,
        proof=_KPAGE_PROOF,
    ),
    Walker(
        name="kpagecgroup",
        what="/proc/kpagecgroup",
        file="fs/proc/page.c",
        function="kpagecgroup_read",
        functions=("kpagecgroup_read",),
        guards=(
            Guard(
                (_BELOW_MAX_PFN, _ONLINE),
                (Act.FLAGS, Act.HEAD, Act.MEMCG),
                commit=_SINCE_5_4,
                known="a slab's memcg is that of its cache: read at the commits that changed it",
            ),
            Guard(
                (_LAST_SECTION, _ONLINE),
                (Act.FLAGS, Act.HEAD, Act.MEMCG),
                since=(5, 6),
                commit=_SINCE_5_6,
                known="a slab's memcg is that of its cache: read at the commits that changed it",
            ),
            Guard(
                (_LAST_SECTION, _ONLINE),
                (Act.MEMCG,),
                since=(5, 9),
                commit='286e04b8ed7a ("mm: memcg/slab: allocate obj_cgroups for non-root slab '
                'pages") (in v5.9)',
                known="read in v5.10 and v6.1",
            ),
            Guard(
                (_LAST_SECTION, _ONLINE),
                (Act.LINK, "!PageTail()", Act.MEMCG),
                since=(6, 3),
                commit='becacb04fdd4 ("mm: memcg: add folio_memcg_check()") (in v6.3)',
                known="read at that commit",
            ),
            Guard(
                (_LAST_SECTION, _ONLINE),
                (Act.HEAD, Act.MEMCG),
                since=(6, 4),
                commit='ec342603e6d7 ("memcg: page_cgroup_ino() get memcg from the page\'s folio") '
                "(in v6.4)",
                known=_READ_LATER,
            ),
        ),
    ),
    Walker(
        name="memory-failure",
        what="memory errors, as RAM",
        file="mm/memory-failure.c",
        function="memory_failure",
        functions=("memory_failure",),
        guards=(
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, Act.MARK, Act.GET, Act.ZONE_LOCK),
                known="read in v5.10: is_free_buddy_page() takes the lock",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, Act.MARK, Act.ZONE, Act.GET, Act.ZONE_LOCK),
                since=(5, 11),
                commit=_SINCE_5_11,
                known="",
            ),
            Guard(
                (_ONLINE,),
                (
                    *(Act.FLAGS, Act.HEAD, Act.MARK, Act.ZONE),
                    *("HWPoisonHandlable() of v5.13", Act.GET),
                ),
                since=(5, 13),
                function="HWPoisonHandlable",
                parameters=1,
                commit=_SINCE_5_13,
                known="read in v5.15",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, Act.MARK, Act.ZONE, "HWPoisonHandlable()", Act.GET),
                since=(5, 18),
                function="HWPoisonHandlable",
                parameters=2,
                commit='"mm/memory-failure.c: make non-LRU movable pages unhandlable" (in v5.18)',
                known="read in v6.1, v6.12, v7.2 and v7.3",
            ),
        ),
        proof=_VISIT_PROOF,
    ),
    Walker(
        name="memory-failure-dax",
        what="memory errors, as device memory",
        file="mm/memory-failure.c",
        function="memory_failure_dev_pagemap",
        functions=("memory_failure",),
        guards=(
            Guard(
                ("no pfn_to_online_page()", _VALID, "get_dev_pagemap()"),
                (Act.FLAGS, Act.HEAD, Act.MARK),
                known="before that",
            ),
            Guard(
                ("no pfn_to_online_page()", _VALID, "get_dev_pagemap()", "pgmap_pfn_valid()"),
                (Act.FLAGS, Act.HEAD, Act.MARK),
                function="pgmap_pfn_valid",
                commit='34dc45be4563 ("mm: fix memory_failure() handling of dax-namespace '
                'metadata") (in v5.12), which brought pgmap_pfn_valid()',
                known="",
            ),
            # action_result() comes after it, but also for what pgmap_pfn_valid() refuses.
            Guard(
                ("no pfn_to_online_page()", _VALID, "get_dev_pagemap()"),
                (Act.NODE, "pgmap_pfn_valid()", Act.FLAGS, Act.HEAD, Act.MARK),
                feature="memory errors are counted by node",
                commit='18f41fa616ee ("mm: memory-failure: bump memory failure stats to '
                'pglist_data") (in v6.3)',
                known="read in v6.6, v6.12.117 and v7.3.4",
            ),
        ),
        proof=_VISIT_PROOF,
        note="up to v6.2, it checks everything that can be checked before it reads; since v6.3, "
        "action_result() calls pfn_to_nid() for every PFN of a live pgmap, initialised or not",
    ),
    Walker(
        name="soft-offline",
        what="/sys/devices/system/memory/soft_offline_page",
        file="mm/memory-failure.c",
        function="soft_offline_page",
        functions=("soft_offline_page",),
        guards=(
            Guard(
                (_VALID, _ONLINE),
                (Act.FLAGS, Act.HEAD, Act.REFERENCE, Act.ZONE_LOCK),
                known="read in v5.10: is_free_buddy_page() takes the lock",
            ),
            Guard(
                (_VALID, _ONLINE),
                (Act.FLAGS, Act.ZONE, Act.HEAD, Act.REFERENCE, Act.ZONE_LOCK),
                since=(5, 11),
                commit=_SINCE_5_11,
                known="",
            ),
            Guard(
                (_VALID, _ONLINE),
                (
                    *(Act.FLAGS, Act.ZONE, Act.HEAD),
                    *("HWPoisonHandlable() for soft offline", Act.REFERENCE),
                ),
                since=(5, 13),
                function="HWPoisonHandlable",
                commit=_SINCE_5_13,
                known="read in v5.15, v5.17, v6.1, v6.12, v7.2 and v7.3",
            ),
        ),
        proof=_VISIT_PROOF,
    ),
    Walker(
        name="unpoison",
        what="unpoison-pfn in debugfs",
        file="mm/memory-failure.c",
        function="unpoison_memory",
        functions=("unpoison_memory",),
        guards=(
            Guard((_VALID,), _UNPOISON, known="read in v5.10"),
            Guard(
                (_ONLINE,),
                _UNPOISON,
                since=ONLY_STABLE,
                stable=((5, 4, 300), (5, 10, 245)),
                commit=_SINCE_6_17,
                known="",
            ),
            Guard(
                (_VALID,),
                _UNPOISON_5_11,
                since=(5, 11),
                commit=_SINCE_5_11,
                known="read in v5.17",
            ),
            Guard(
                (_VALID,),
                _UNPOISON_LATER,
                since=(6, 1),
                commit='"mm, hwpoison: avoid trying to unpoison reserved page" (in v6.1)',
                known="read in v6.1, but for the first check",
            ),
            Guard(
                (_ONLINE,),
                _UNPOISON_LATER,
                since=(6, 17),
                stable=((6, 1, 153), (6, 6, 107), (6, 12, 48)),
                commit=_SINCE_6_17,
                known="read in v6.1.192, v6.12.117, v7.2 and v7.3",
            ),
        ),
        proof=_VISIT_PROOF,
        note="it changes only pages that are marked as poisoned",
    ),
    Walker(
        name="hwpoison-inject",
        what="corrupt-pfn in debugfs",
        file="mm/hwpoison-inject.c",
        function="hwpoison_inject",
        functions=("hwpoison_inject",),
        guards=(
            Guard(
                (_VALID,),
                (Act.HEAD, "folio_try_get()", Act.GET, Act.FLAGS),
                known="it takes the reference that memory_failure() then has: read before v5.10",
            ),
            Guard(
                (_VALID,),
                (Act.LINK, "corrupt-filter-enable is set", Act.FLAGS, Act.HEAD),
                since=(5, 10),
                commit='fd476720c9ba ("mm,hwpoison-inject: don\'t pin for hwpoison_filter") '
                "(in v5.10)",
                known=_IN_5_15_TOO,
            ),
        ),
        module=True,
        needs=("memory_failure",),
        note="without a filter, it computes the head but does not use it, and calls "
        "memory_failure()",
    ),
    Walker(
        name="compaction",
        what="compaction: is a pageblock in one zone?",
        file="mm/page_alloc.c",
        function="__pageblock_pfn_to_page",
        functions=("__pageblock_pfn_to_page",),
        guards=(
            Guard(
                (_IN_ZONE, "__pageblock_pfn_to_page()"),
                (Act.FLAGS, "!PageTail()", "PageLRU()", Act.PAGE_REFERENCE),
                known="read in v5.10",
            ),
            # It asks PageHuge() first.
            Guard(
                (_IN_ZONE, "__pageblock_pfn_to_page()"),
                (Act.FLAGS, Act.HEAD, "!PageTail()", "PageLRU()", Act.PAGE_REFERENCE),
                since=(5, 13),
                commit='369fa227c219 ("mm: make alloc_contig_range handle free hugetlb pages") '
                "(in v5.13)",
                known="read in v6.1, v6.12, v7.2 and v7.3",
            ),
        ),
        note="it checks both ends of the pageblock, and trusts the pages between them",
    ),
    Walker(
        name="compaction-ends",
        what="compaction: the last page of a pageblock",
        file="mm/page_alloc.c",
        function="__pageblock_pfn_to_page",
        functions=("__pageblock_pfn_to_page",),
        guards=(Guard((_IN_ZONE, _BLOCK_BEGINS_ONLINE, _VALID), (Act.FLAGS,), known=_IN_5_4_TOO),),
        stride=Stride.PAGEBLOCK,
        last=True,
        note="it only compares the zone with that of the first page",
    ),
    Walker(
        name="page-owner",
        what="/sys/kernel/debug/page_owner",
        file="mm/page_owner.c",
        function="read_page_owner",
        functions=("read_page_owner", "init_pages_in_zone"),
        guards=(
            Guard(
                (_BELOW_MAX_PFN, "pfn_valid() of the first PFN of each MAX_ORDER block"),
                (Act.FLAGS,),
                known=_IN_5_4_TOO,
            ),
        ),
        note="it checks PageBuddy(), and skips as many pages as a buddy's order says; it stops at "
        "device memory in sections without RAM, which has no page_ext; in sections with RAM, the "
        "page_ext of device memory is empty",
    ),
    Walker(
        name="pagetypeinfo",
        what="/proc/pagetypeinfo",
        file="mm/vmstat.c",
        function="pagetypeinfo_showblockcount_print",
        functions=("pagetypeinfo_showblockcount_print", "pagetypeinfo_show"),
        guards=_ZONE_ONLY,
        stride=Stride.PAGEBLOCK,
    ),
    Walker(
        name="page-idle",
        what="/sys/kernel/mm/page_idle/bitmap",
        file="mm/page_idle.c",
        function="page_idle_get_folio",
        older="page_idle_get_page",
        functions=("page_idle_get_folio", "page_idle_get_page", "page_idle_bitmap_read"),
        guards=(
            Guard(
                (_VALID,),
                (Act.FLAGS, Act.HEAD, "PageLRU()", Act.PAGE_REFERENCE),
                known="read before v5.8",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, "PageLRU()", Act.PAGE_REFERENCE),
                since=(5, 8),
                commit='"mm/page_idle.c: skip offline pages" (in v5.8)',
                known="read in v5.10 and v6.1",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, "!PageTail()", "PageLRU()", Act.REFERENCE),
                since=(6, 3),
                function="page_idle_get_folio",
                commit='5acc17fd35e6 ("mm: page_idle: convert page idle to use a folio") (in v6.3)',
                known=_READ_LATER,
            ),
        ),
    ),
    Walker(
        name="kmemleak",
        what="kmemleak's scan of struct pages",
        file="mm/kmemleak.c",
        function="kmemleak_scan",
        functions=("kmemleak_scan",),
        guards=(
            Guard(
                ("in a node that is online", _ONLINE),
                (
                    *(Act.FLAGS, "page_to_nid() is the node that is walked"),
                    *(Act.HEAD, "page_count() != 0", Act.SCAN),
                ),
                known="read before v5.17",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                (Act.FLAGS, _ZONE, Act.HEAD, "page_count() != 0", Act.SCAN),
                since=(5, 17),
                stable=((5, 4, 178), (5, 10, 99), (5, 15, 22)),
                commit='c10a0f877fe0 ("mm/kmemleak: avoid scanning potential huge holes") (in '
                "v5.17), in stable trees, too",
                known="read in v5.10.223, v6.1, v6.12, v7.2 and v7.3",
            ),
        ),
        note="words that look like pointers hide leaks",
    ),
    Walker(
        name="damon",
        what="DAMON on physical addresses",
        file="mm/damon/ops-common.c",
        function="damon_get_folio",
        older="damon_get_page",
        functions=("damon_get_folio", "damon_get_page"),
        guards=(
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, "PageLRU()", Act.PAGE_REFERENCE),
                since=(5, 16),
                commit='a28397beb55b ("mm/damon: implement primitives for physical address space '
                'monitoring") (in v5.16)',
                known="read at the commits that changed it",
            ),
            Guard(
                (_ONLINE,),
                ("get_page_unless_zero()", Act.PAGE_REFERENCE, Act.FLAGS, "PageLRU()"),
                since=ONLY_STABLE,
                stable=((6, 1, 176),),
                commit=_DAMON_FIX,
                known="read in v6.1.192",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, "!PageTail()", "PageLRU()", Act.REFERENCE),
                since=(6, 3),
                commit='5e012bba019a ("mm/damon: introduce damon_get_folio()") (in v6.3)',
                known="read at the commits that changed it",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.HEAD, "PageLRU()", Act.REFERENCE),
                since=(6, 15),
                stable=((6, 12, 24),),
                commit='3a06696305e7 ("mm/damon/ops: have damon_get_folio return folio even for '
                'tail pages") (in v6.15), in stable trees, too',
                known="read at that commit",
            ),
            Guard(
                (_ONLINE,),
                (Act.HEAD, "folio_try_get()", Act.REFERENCE, Act.FLAGS, "PageLRU()"),
                since=(7, 1),
                stable=((6, 12, 94), (6, 18, 36)),
                commit=_DAMON_FIX,
                known="read in v6.12.117, v7.2 and v7.3",
            ),
        ),
    ),
    Walker(
        name="split-huge-pages",
        what="/sys/kernel/debug/split_huge_pages",
        file="mm/huge_memory.c",
        function="split_huge_pages_all",
        older="split_huge_pages_set",
        functions=("split_huge_pages_all", "split_huge_pages_set"),
        guards=(
            Guard(
                (_IN_ZONE, _VALID),
                ("get_page_unless_zero()", Act.PAGE_REFERENCE, Act.FLAGS, _ZONE),
                known="read in v5.10",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                ("get_page_unless_zero()", Act.PAGE_REFERENCE, Act.FLAGS, _ZONE),
                since=(6, 0),
                stable=((5, 15, 73),),
                commit='2b7aa91ba0e8 ("mm/huge_memory: use pfn_to_online_page() in '
                'split_huge_pages_all()") (in v6.0), in the stable tree of v5.15, too',
                known="read in v6.1",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                ("!PageTail()", "folio_try_get()", Act.REFERENCE, Act.FLAGS, _ZONE),
                since=(6, 3),
                commit='630e7c5ee339 ("mm: huge_memory: convert split_huge_pages_all() to use a '
                'folio") (in v6.3)',
                known=_READ_LATER,
            ),
        ),
        note="it takes the reference before it checks the zone",
    ),
    Walker(
        name="hibernation-saveable",
        what="hibernation: which pages to save",
        file="kernel/power/snapshot.c",
        function="saveable_page",
        functions=("saveable_page", "count_data_pages"),
        guards=(Guard((_IN_ZONE, _VALID, _ONLINE), (Act.FLAGS, _ZONE), known=_IN_6_6_TOO),),
    ),
    Walker(
        name="hibernation-free",
        what="hibernation: which pages are free",
        file="kernel/power/snapshot.c",
        moved=((6, 5), "mm/page_alloc.c"),
        function="mark_free_pages",
        functions=("mark_free_pages",),
        guards=(Guard((_IN_ZONE, _VALID), (Act.FLAGS, _ZONE), known=_IN_6_6_TOO),),
    ),
    Walker(
        name="memory-offline",
        what="offlining a memory block: which pages can be moved",
        file="mm/memory_hotplug.c",
        function="scan_movable_pages",
        functions=("scan_movable_pages", "offline_pages"),
        guards=(
            Guard(
                ("a section with System RAM", _VALID),
                (Act.FLAGS, Act.HEAD),
                known="a memory block may have holes: read in v5.4",
            ),
            Guard(
                (_RAM_SECTION, _ONLINE, _VALID),
                (Act.FLAGS, Act.HEAD),
                since=(5, 5),
                commit="c5e79ef561b0 (\"mm/memory_hotplug.c: don't allow to online/offline memory "
                'blocks with holes") (in v5.5)',
                known="the same in v5.10, v6.1 and v6.12, and in trees of v5.15 and v6.6; "
                "for_each_valid_pfn() since v6.16, read between v6.17 and v7.1",
            ),
            Guard(
                (_RAM_SECTION, _ONLINE),
                (Act.FLAGS, Act.HEAD),
                since=(7, 1),
                commit='9d80de66a046 ("mm/memory_hotplug: remove for_each_valid_pfn() usage") (in '
                "v7.1)",
                known="read in v7.2 and v7.3",
            ),
        ),
    ),
    Walker(
        name="alloc-contig",
        what="alloc_contig_pages(): gigantic pages",
        file="mm/page_alloc.c",
        moved=((5, 5), "mm/hugetlb.c"),
        function="pfn_range_valid_contig",
        older="pfn_range_valid_gigantic",
        functions=(
            "pfn_range_valid_contig",
            "pfn_range_valid_gigantic",
            "alloc_contig_pages",
            "alloc_contig_pages_noprof",
            "alloc_contig_frozen_pages_noprof",
        ),
        guards=(
            Guard(
                (_IN_ZONE, _ONLINE),
                (Act.FLAGS, _ZONE, "!PageReserved()", Act.HEAD),
                commit="f231fe4235e2 (\"hugetlbfs: don't access uninitialized memmaps in "
                'pfn_range_valid_gigantic()") (in v5.4)',
                known="page_count() and PageHuge(): read in v5.10",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                (Act.FLAGS, _ZONE, "!PageReserved()"),
                since=(5, 13),
                commit='eb14d4eefdc4 ("mm,page_alloc: drop unnecessary checks from '
                'pfn_range_valid_contig") (in v5.13)',
                known="neither of them: read at that commit and between v5.15 and v5.19",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                (Act.FLAGS, _ZONE, "!PageReserved()", Act.HEAD),
                since=(6, 3),
                stable=((5, 15, 109), (6, 1, 26), (6, 2, 13)),
                commit='4d73ba5fa710 ("mm: page_alloc: skip regions with hugetlbfs pages when '
                'allocating 1G pages") (in v6.3), in stable trees, too',
                known="PageHuge(): the same in v6.1.192, v6.12, v7.2 and v7.3; read in trees of "
                "v5.15.y and v6.6, and between v6.16 and v7.0, too",
            ),
        ),
        note="it gives up on a block at the first page that a filter drops",
    ),
    Walker(
        name="zone-shrink",
        what="removing memory: where a zone begins now",
        file="mm/memory_hotplug.c",
        function="find_smallest_section_pfn",
        functions=("find_smallest_section_pfn", "find_biggest_section_pfn", "shrink_zone_span"),
        guards=_ZONE_ONLY,
        stride=Stride.SUBSECTION,
    ),
    Walker(
        name="zone-shrink-ends",
        what="removing memory: where a zone ends now",
        file="mm/memory_hotplug.c",
        function="find_biggest_section_pfn",
        functions=("find_biggest_section_pfn", "find_smallest_section_pfn", "shrink_zone_span"),
        guards=(Guard((_IN_ZONE, _ONLINE), (Act.FLAGS, _ZONE), known=_IN_5_4_TOO),),
        stride=Stride.SUBSECTION,
        last=True,
    ),
    Walker(
        name="kcore",
        what="/proc/kcore",
        file="fs/proc/kcore.c",
        function="read_kcore_iter",
        older="read_kcore",
        functions=("read_kcore_iter", "read_kcore"),
        guards=(
            Guard(
                ("System RAM", _ONLINE),
                (Act.FLAGS, Act.HEAD),
                since=(5, 14),
                commit="\"fs/proc/kcore: don't read offline sections, logically offline pages and "
                'hwpoisoned pages" (in v5.14)',
                known="no struct page before that",
            ),
        ),
    ),
    Walker(
        name="compaction-free",
        what="compaction: free pages to move to",
        file="mm/compaction.c",
        function="isolate_freepages_block",
        functions=("isolate_freepages_block", "__pageblock_pfn_to_page"),
        guards=(
            Guard(
                (_IN_ZONE, "__pageblock_pfn_to_page()"), (Act.FLAGS, Act.LINK), known=_IN_5_4_TOO
            ),
        ),
        note="it checks both ends of the pageblock, and trusts the pages between them",
    ),
    Walker(
        name="compaction-hints",
        what="compaction: is a skipped pageblock worth another look?",
        file="mm/compaction.c",
        function="__reset_isolation_pfn",
        functions=("__reset_isolation_pfn", "__pageblock_pfn_to_page"),
        guards=(
            Guard(
                (_IN_ZONE, "both ends of the pageblock are online"),
                (Act.FLAGS, Act.HEAD),
                known=_IN_5_4_TOO,
            ),
        ),
        stride=Stride.EIGHT,
        note="it checks both ends of the pageblock, and trusts the pages between them",
    ),
    Walker(
        name="shuffle",
        what="shuffling of free pages, at boot and when memory goes online",
        file="mm/shuffle.c",
        function="shuffle_valid_page",
        functions=("shuffle_valid_page", "__shuffle_zone"),
        guards=(
            Guard(
                (_IN_ZONE, "a section that is present"),
                (Act.FLAGS,),
                known="read before v5.9",
            ),
            Guard(
                (_IN_ZONE, _ONLINE),
                (Act.FLAGS, _ZONE),
                since=(5, 9),
                commit="4a93025cbe4a (\"mm/shuffle: don't move pages between zones and don't read "
                'garbage memmaps") (in v5.9), in stable trees, too, but not of v5.4',
            ),
        ),
        stride=Stride.MAX_ORDER,
        note="only with page_alloc.shuffle",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="page-isolation",
        what="isolating a pageblock: its first page",
        file="mm/page_isolation.c",
        function="set_migratetype_isolate",
        functions=("set_migratetype_isolate", *_ISOLATION),
        guards=(Guard((_IN_ZONE, _ONLINE), (Act.FLAGS, Act.ZONE_LOCK), known=_IN_5_4_TOO),),
        stride=Stride.PAGEBLOCK,
        note="for alloc_contig_range() and offlining; it takes the first page that is online",
    ),
    Walker(
        name="page-isolation-pages",
        what="isolating a pageblock: can its pages be moved?",
        file="mm/page_isolation.c",
        moved=((5, 19), "mm/page_alloc.c"),
        function="has_unmovable_pages",
        functions=("has_unmovable_pages", *_ISOLATION),
        guards=(
            Guard(
                (_IN_ZONE, _BLOCK_BEGINS_ONLINE),
                ("!PageReserved()", Act.FLAGS, Act.HEAD),
                known=_IN_5_4_TOO,
            ),
        ),
        note="it gives up on the pageblock at the first page that is reserved",
    ),
    Walker(
        name="page-isolation-edges",
        what="isolating pages: compound pages across the edges",
        file="mm/page_isolation.c",
        function="isolate_single_pageblock",
        functions=("isolate_single_pageblock",),
        guards=(
            Guard(
                (_IN_ZONE, _BLOCK_BEGINS_ONLINE),
                (Act.FLAGS, Act.HEAD),
                since=(5, 19),
                function="isolate_single_pageblock",
                commit='b2c9e2fbba32 ("mm: make alloc_contig_range work at pageblock granularity") '
                "(in v5.19)",
                known="read in v6.1, v6.12, v7.2 and v7.3, and in a tree of v6.6; before v7.3, it "
                "trusts any order",
            ),
        ),
        beside=_SINCE_0_2,
    ),
    Walker(
        name="page-isolation-test",
        what="isolated pages: are they all free?",
        file="mm/page_isolation.c",
        function="__test_page_isolated_in_pageblock",
        functions=("__test_page_isolated_in_pageblock", *_ISOLATION),
        guards=(Guard((_IN_ZONE, _BLOCK_BEGINS_ONLINE), (Act.FLAGS,), known=_IN_5_4_TOO),),
    ),
    Walker(
        name="valid-zones",
        what="/sys/devices/system/memory/memoryN/valid_zones, and offlining: is it one zone?",
        file="mm/memory_hotplug.c",
        function="test_pages_in_a_zone",
        functions=("test_pages_in_a_zone",),
        until=(5, 18),
        guards=(
            Guard(
                (_ONLINE_BLOCK,),
                (Act.FLAGS,),
                known="read before v5.5, before v5.15 and at the commit that removed it: "
                '395f6081bad4 ("drivers/base/memory: determine and store zone for single-zone '
                'memory blocks") (in v5.18)',
            ),
        ),
        stride=Stride.MAX_ORDER,
        note="anyone who can read sysfs can call it; it reads the span and the name of what it "
        "takes for the zone. With CONFIG_HOLES_IN_ZONE (before v5.15, not on x86), it asks "
        "pfn_valid()",
        beside=_SINCE_VALID_ZONES,
    ),
    Walker(
        name="memory-offline-zone",
        what="offlining and removing memory: the zone of a memory block",
        file="mm/memory_hotplug.c",
        function="try_offline_memory_block",
        functions=("try_offline_memory_block", "offline_and_remove_memory"),
        guards=(
            Guard(
                (_RAM_SECTION, _ONLINE),
                (Act.FLAGS,),
                since=(5, 11),
                stable=((5, 10, 223),),
                function="try_offline_memory_block",
                commit='8dc4bb58a146 ("mm/memory_hotplug: extend offline_and_remove_memory() to '
                'handle more than one memory block") (in v5.11), in the stable tree of v5.10, too',
                known="the same in v5.10.223, v6.1, v6.12, v7.2 and v7.3; read in trees of v5.15 "
                "and v6.6, too",
            ),
        ),
        stride=Stride.SECTION,
        note="for virtio-mem and dax; it reads the first page of a memory block",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="auto-movable",
        what="the online policy auto-movable: what is online already",
        file="mm/memory_hotplug.c",
        function="auto_movable_zone_for_pfn",
        functions=("auto_movable_zone_for_pfn",),
        guards=(
            Guard(
                (_ONLINE,),
                (Act.FLAGS,),
                since=(5, 15),
                function="auto_movable_zone_for_pfn",
                commit='"mm/memory_hotplug: improved dynamic memory group aware "auto-movable" '
                'online policy" (in v5.15)',
                known="read in v6.1, v6.12, v7.2 and v7.3, and in a tree of v6.6",
            ),
        ),
        stride=Stride.SECTION,
        note="within a unit of memory that goes online together",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="virtio-mem-movable",
        what="virtio-mem: is a block in ZONE_MOVABLE?",
        file="drivers/virtio/virtio_mem.c",
        function="virtio_mem_bbm_bb_is_movable",
        functions=("virtio_mem_bbm_bb_is_movable",),
        guards=(
            Guard(
                (_VIRTIO_MEM, _ONLINE),
                (Act.FLAGS,),
                since=(5, 14),
                commit='db7b337709a1 ("virtio-mem: prioritize unplug from ZONE_MOVABLE in Big '
                'Block Mode") (in v5.14)',
                known=_VIRTIO_MEM_KNOWN,
            ),
        ),
        module=True,
        needs=("offline_and_remove_memory",),
        stride=Stride.SECTION,
        beside=_SINCE_0_2,
    ),
    Walker(
        name="virtio-mem-unplug",
        what="virtio-mem: unplugging a block",
        file="drivers/virtio/virtio_mem.c",
        function="virtio_mem_bbm_offline_remove_and_unplug_bb",
        functions=("virtio_mem_bbm_offline_remove_and_unplug_bb",),
        guards=(
            Guard(
                (_VIRTIO_MEM, _ONLINE),
                (Act.FLAGS, Act.HEAD, "!PageReserved()", Act.MARK),
                since=(5, 11),
                commit='3711387a7543 ("virtio-mem: Big Block Mode (BBM) - safe memory hotunplug") '
                "(in v5.11)",
                known=_VIRTIO_MEM_KNOWN,
            ),
        ),
        module=True,
        needs=("offline_and_remove_memory",),
        note="it allocates the section and sets PageOffline; it asks only for the first page",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="pagetypeinfo-mixed",
        what="/proc/pagetypeinfo with page_owner: mixed pageblocks",
        file="mm/page_owner.c",
        function="pagetypeinfo_showmixedcount_print",
        functions=("pagetypeinfo_showmixedcount_print", "read_page_owner"),
        guards=(Guard((_IN_ZONE, _BLOCK_BEGINS_ONLINE), (Act.FLAGS, _ZONE), known=_IN_5_4_TOO),),
        note="it checks the first page of a pageblock, and trusts the others",
    ),
    Walker(
        name="access-phys",
        what="/proc/PID/mem and ptrace of mapped physical memory",
        file="mm/memory.c",
        function="generic_access_phys",
        functions=("generic_access_phys",),
        guards=(
            Guard(
                (_ONLINE,),
                (Act.FLAGS,),
                since=(7, 3),
                known="read in v7.3; no struct page in v5.10, v6.1, v6.12 and v7.2",
            ),
        ),
        note="it refuses online memory whose page is not reserved",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="kho-restore",
        what="memory that a kexec handed over",
        file="kernel/liveupdate/kexec_handover.c",
        moved=((6, 19), "kernel/kexec_handover.c"),
        function="kho_restore_page",
        functions=("kho_restore_page",),
        guards=(
            Guard(
                (_ONLINE,),
                (Act.FLAGS, Act.MARK),
                since=(6, 16),
                function="kho_restore_page",
                known="read before v6.18",
            ),
            Guard(
                (_ONLINE,),
                (Act.FLAGS, "KHO's magic in page->private", Act.MARK),
                since=(6, 18),
                commit='89a3ecca49ee ("kho: make sure page being restored is actually from KHO") '
                "(in v6.18)",
                known="read in v6.18, v7.2 and v7.3",
            ),
        ),
        note="since v6.18, it reads only page->private, unless that has the magic number",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="dma-debug",
        what="the DMA API's debugging: is memory that is mapped as MMIO really RAM?",
        file="kernel/dma/debug.c",
        function="debug_dma_map_phys",
        # Without CONFIG_DMA_API_DEBUG, debug_dma_map_phys() is an empty inline function.
        functions=("dma_debug_device_change",),
        guards=(
            Guard(
                (_VALID,),
                (Act.FLAGS,),
                since=(7, 1),
                stable=((6, 18, 34), (7, 0, 11)),
                commit='af0c3f058662 ("dma-mapping: move dma_map_resource() sanity check into '
                'debug code") (in v7.1), in stable trees, too',
                known="read in v7.2 and v7.3; no struct page in v5.10, v6.1 and v6.12",
            ),
        ),
        note="it reports what is not reserved as RAM",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="ioremap",
        what="ioremap() on x86: is it RAM?",
        file="arch/x86/mm/ioremap.c",
        function="__ioremap_check_ram",
        functions=("__ioremap_check_ram",),
        guards=(Guard(("System RAM", _VALID), (Act.FLAGS,), known=_IN_6_6_TOO),),
        note="the first page that is not reserved refuses the ioremap",
        beside=_SINCE_0_2,
    ),
    Walker(
        name="makedumpfile",
        what="makedumpfile, in the capture kernel",
        file="makedumpfile.c",
        function="__exclude_unnecessary_pages",
        functions=(),
        guards=(Guard(("System RAM", _VALID), (Act.FLAGS, Act.HEAD), known="reasoned"),),
        note="a program, not part of the kernel: it reads /proc/vmcore",
    ),
)
