# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Known Bugs
----------

A table of bugs of the kernel, fixed or open, that this tool can recognise: what happens, by
which commit, which releases have it, and how sure that is. It is as of :data:`AS_OF`.

A stable kernel can have a fix, and a distribution's release number does not say which stable
kernel it is: :func:`affected` answers only what the number decides.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

__all__ = ("AS_OF", "BUGS", "BugCommit", "KnownBug", "Sure", "affected", "release_of")

AS_OF = "2026-11-29"

Version = tuple[int, ...]


class Sure(enum.Enum):
    """How sure an entry is; the value is for people."""

    READ = "the code was read with and without the fix"
    READ_CAUSE = "the code was read; no fix was found"
    PUBLISHED = "by published commit messages and change logs"


@dataclass(frozen=True)
class BugCommit:
    """A commit of mainline, by the beginning of its hash, and its title."""

    hash: str
    title: str

    def __str__(self) -> str:
        return f'{self.hash} ("{self.title}")'


@dataclass(frozen=True)
class KnownBug:
    """
    A bug. ``since`` is the first release that has it. ``fixed`` is the first fixed release of
    mainline, or ``None`` while it is open, and ``stable`` the first fixed ones of stable
    series; ``more_backports`` says that other series have it as well. ``consequence`` says what
    a user sees, ``cure`` what to do.
    """

    slug: str
    mechanism: str
    consequence: str
    cure: str
    introduced: BugCommit | None
    fix: BugCommit | None
    since: Version
    fixed: Version | None
    stable: tuple[Version, ...]
    sure: Sure
    note: str = ""
    more_backports: bool = False


BUGS = {
    bug.slug: bug
    for bug in (
        KnownBug(
            slug="devdax-tails-uninitialized",
            mechanism="memmap_init_compound() skips the tails of compound device pages after the "
            "second page of vmemmap, because they would share it. In an early section, nothing is "
            "shared: the tails keep what boot, or an earlier pgmap, wrote there",
            consequence="VM_BUG_ON and wrong reference counts on tails of device-dax pages, and a "
            "crash when one of them is freed or pinned",
            cure="update the kernel, or create the namespace so that it shares no section with RAM",
            introduced=BugCommit(
                "6fd3620b3428", "mm/page_alloc: reuse tail struct pages for compound devmaps"
            ),
            fix=BugCommit(
                "cd681403a870", "mm/mm_init: fix uninitialized struct pages for ZONE_DEVICE"
            ),
            since=(5, 19),
            fixed=(7, 2),
            stable=((6, 1, 184), (6, 6, 145), (6, 12, 97), (6, 18, 40), (7, 1, 5)),
            sure=Sure.READ,
            note="CVE-2026-72172",
        ),
        KnownBug(
            slug="kpageflags-reads-reserve",
            mechanism="fs/proc/page.c checked pfn_valid() only, which is true for the reserve of "
            "an altmap and for other struct pages that are never initialised",
            consequence="reading /proc/kpageflags, kpagecount or kpagecgroup oopses at ...fffe",
            cure="update the kernel to v5.4 or newer, or create the namespace with map=mem",
            introduced=None,
            fix=BugCommit(
                "aad5f69bc161",
                "fs/proc/page.c: don't access uninitialized memmaps in fs/proc/page.c",
            ),
            since=(4, 18),
            fixed=(5, 4),
            stable=(),
            sure=Sure.PUBLISHED,
            note="struct pages of ranges that the command line reserves oops there, too",
            more_backports=True,
        ),
        KnownBug(
            slug="collision-untainted",
            mechanism="pfn_to_online_page() looked at the section only, and a device can share an "
            "online section with RAM",
            consequence="whatever walks PFNs takes device pages, initialised or not, for RAM",
            cure="align the namespace to sections, or use a kernel since v5.12",
            introduced=None,
            fix=BugCommit(
                "1f90a3477df3",
                "mm: teach pfn_to_online_page() about ZONE_DEVICE section collisions",
            ),
            since=(5, 3),
            fixed=(5, 12),
            stable=(),
            sure=Sure.READ,
        ),
        KnownBug(
            slug="zone-of-reserved-hole",
            mechanism="with CONFIG_DEFERRED_STRUCT_PAGE_INIT, the loop over zones that initialises "
            "a reserved page breaks at the zone that spans it; if none does, the page gets the "
            "zone number MAX_NR_ZONES, and page_zone() points past the end of the array",
            consequence="memory_failure() and soft_offline_page() of such a PFN call "
            "zone_pcp_disable(page_zone(page)): an oops in 7.2 and 7.3, by chance none in 6.1 and "
            "6.12",
            cure="do not offline or inject errors into PFNs that no zone spans",
            introduced=None,
            fix=None,
            since=(5, 10),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
            note="a patch that extends the zones' spans was posted on 5 December 2020 "
            "(20201205013238.21663-1-aarcange@redhat.com) and not merged",
        ),
        KnownBug(
            slug="memory-failure-node",
            mechanism="memory_failure_dev_pagemap() also calls action_result() for PFNs that "
            "pgmap_pfn_valid() refuses, and update_per_node_mf_stats() calls pfn_to_nid(), which "
            "reads the struct page. Those of an altmap's reserve, and those that memremap_pages() "
            "has not reached, are not initialised",
            consequence="a memory error in the reserve of a namespace with map=dev is counted for "
            "an arbitrary node: an oops at the offset of mf_stats if that node does not exist, and "
            "a VM_BUG_ON_PAGE() with CONFIG_DEBUG_VM",
            cure="create the namespace with map=mem, or zero the memory where its struct pages "
            "will be",
            introduced=BugCommit(
                "18f41fa616ee", "mm: memory-failure: bump memory failure stats to pglist_data"
            ),
            fix=None,
            since=(6, 3),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
            note="read in 6.6, 6.12.117 and 7.3.4; zonedev lab walk 7.3 dirty-media shows it",
        ),
        KnownBug(
            slug="hugetlb-references-restored",
            mechanism="vmemmap_restore_pte() gives each page of a hugetlb page's vmemmap a copy of "
            "the shared tails. Those of boot (CONFIG_SPARSEMEM_VMEMMAP_PREINIT) have 1 in "
            "_refcount by memmap_init_range(), and init_compound_tail(), which comes after it, "
            "does not write it",
            consequence="giving back a hugepage of boot loses it: Bad page state, nonzero "
            "_refcount, for its pages; with init_on_alloc=0 and init_on_free=0, they get into free "
            "blocks unnoticed",
            cure="boot with hugetlb_free_vmemmap=off, or keep the hugepages of boot",
            introduced=None,
            fix=None,
            since=(7, 1),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
            note="read and seen in 7.2 and 7.3; 7.1 was not read. The page has to be where boot "
            "does not defer struct pages",
        ),
        KnownBug(
            slug="sections-left-behind",
            mechanism="__add_pages() stops at the first section that cannot be added, and neither "
            "it nor pagemap_range() removes the ones that were",
            consequence="pfn_valid() is true for struct pages that are never initialised, until "
            "the next boot",
            cure="reboot; find out why the device could not be added (mostly memory, or overlap)",
            introduced=None,
            fix=None,
            since=(5, 10),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
        ),
        KnownBug(
            slug="max-pfn-lowered-arm64",
            mechanism="arch_add_memory() of arm64 sets max_pfn to the end of what was added, "
            "without looking at its value",
            consequence="adding memory below the top hides the memory above from every walker "
            "that ends at max_pfn, such as /proc/kpageflags and page_owner",
            cure="update the kernel, or add the highest memory last",
            introduced=BugCommit("8fac67ca236b", "arm64: mm: update max_pfn after memory hotplug"),
            fix=BugCommit("89f43e1ce6f6", "arm64: mm: Correct the update of max_pfn"),
            since=(5, 10),
            fixed=(6, 15),
            stable=(),
            sure=Sure.READ,
            note="5.10.223 has the bug, 6.1.192 the fix",
            more_backports=True,
        ),
        KnownBug(
            slug="max-pfn-lowered-riscv",
            mechanism="arch_add_memory() of riscv sets max_pfn to the end of what was added, "
            "without looking at its value",
            consequence="adding memory below the top hides the memory above from every walker "
            "that ends at max_pfn, such as /proc/kpageflags and page_owner",
            cure="add the highest memory last",
            introduced=None,
            fix=None,
            since=(6, 2),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
            note="read in 7.3; 6.1 adds no memory on riscv",
        ),
        KnownBug(
            slug="vmemmap-not-synchronised",
            mechanism="vmemmap of hot-added memory got a top-level entry in init_mm only, and page "
            "tables of tasks were not synchronised before it was used",
            consequence="a page fault in vmemmap, in one task, while memory is hot-added; it is "
            "mapped in others",
            cure="update the kernel",
            introduced=None,
            fix=BugCommit(
                "6659d0279980",
                "x86/mm/64: define ARCH_PAGE_TABLE_SYNC_MASK and arch_sync_kernel_mappings()",
            ),
            since=(5, 10),
            fixed=(6, 17),
            stable=((6, 1, 151), (6, 12, 46)),
            sure=Sure.PUBLISHED,
            note="the fault alone does not prove it: the page tables of the task do",
        ),
        KnownBug(
            slug="page-table-check-of-device-pages",
            mechanism="page_table_check took every valid PFN for one with page_ext, which device "
            "pages do not have",
            consequence="a BUG or an oops in page_table_check when device memory is mapped",
            cure="update the kernel, or boot with page_table_check=off",
            introduced=None,
            fix=BugCommit("8bb592c2eca8", "mm/page_table_check: fix crash on ZONE_DEVICE"),
            since=(5, 17),
            fixed=(6, 10),
            stable=((6, 1, 96),),
            sure=Sure.PUBLISHED,
            note="6.6 and 6.9 have it in a stable release as well",
            more_backports=True,
        ),
        KnownBug(
            slug="ppc64-devdax-optimisation",
            mechanism="device-dax assumed that vmemmap of compound device pages is shared, which "
            "ppc64 without a radix MMU does not do",
            consequence="probing device-dax on ppc64 faults in vmemmap while its struct pages are "
            "initialised",
            cure="update the kernel",
            introduced=BugCommit(
                "4917f55b4ef9", "mm/sparse-vmemmap: improve memory savings for compound devmaps"
            ),
            fix=BugCommit(
                "87a7ae75d738",
                "mm/vmemmap/devdax: fix kernel crash when probing devdax devices",
            ),
            since=(5, 19),
            fixed=(6, 4),
            stable=((6, 1, 184),),
            sure=Sure.PUBLISHED,
            note="CVE-2023-53706",
        ),
        KnownBug(
            slug="shared-vmemmap-page",
            mechanism="with pages of 16K or 64K, a page of vmemmap holds struct pages of several "
            "subsections. vmemmap_populate() takes one that is mapped already, but vmemmap_free() "
            "unmaps it with any of them, because nothing counts its users",
            consequence="after a device is removed, up to a page of struct pages of its live "
            "neighbour are unmapped: whatever reads them oopses",
            cure="align namespaces so that no two share a page of vmemmap (4 MiB with pages of "
            "16K, 64 MiB with 64K)",
            introduced=BugCommit("bbd6ec605c0f", "arm64/mm: Enable memory hot remove"),
            fix=None,
            since=(5, 7),
            fixed=None,
            stable=(),
            sure=Sure.READ_CAUSE,
            note="the lab's scenario neighbour-gone shows it on arm64 with pages of 16K",
        ),
        KnownBug(
            slug="shared-vmemmap-block",
            mechanism="on arm64 with pages of 4K, vmemmap_populate() mapped all struct pages of a "
            "section by one entry for any part of it, and vmemmap_free() cleared the entry with "
            "any other part",
            consequence="after a device is removed, the struct pages of a live one in the same "
            "section are unmapped: whatever reads them oopses",
            cure="update the kernel, or align namespaces to 128 MiB",
            introduced=BugCommit("ba72b4c8cf60", "mm/sparsemem: support sub-section hotplug"),
            fix=BugCommit(
                "d4234d131b0a",
                "arm64: mm: Populate vmemmap at the page level if not section aligned",
            ),
            since=(5, 7),
            fixed=(6, 14),
            stable=(),
            sure=Sure.PUBLISHED,
            note="before v5.7, arm64 could not remove memory",
            more_backports=True,
        ),
        KnownBug(
            slug="section-usage-race",
            mechanism="section_deactivate() freed mem_section->usage while pfn_valid() of another "
            "CPU read it",
            consequence="a NULL dereference or a use after free in pfn_valid(), while memory is "
            "removed",
            cure="update the kernel",
            introduced=None,
            fix=BugCommit(
                "5ec8e8ea8b77", "mm/sparsemem: fix race in accessing memory_section->usage"
            ),
            since=(5, 3),
            fixed=(6, 8),
            stable=((5, 10, 210), (6, 1, 76), (6, 6, 15)),
            sure=Sure.PUBLISHED,
            note="CVE-2023-52489",
        ),
    )
}
"""All known bugs by slug."""


_UPSTREAM = re.compile(r"(\d{1,3})\.(\d{1,4})(?:\.(\d{1,4}))?(-rc\d{1,2})?(.*)$")


def release_of(release: str | None) -> tuple[Version, bool] | None:
    """
    Read a release.

    :return: Its numbers, and whether the last one is that of a stable kernel: a distribution
        that names its kernels by the ABI does not say which it is.
    """
    match = _UPSTREAM.match(release or "")
    if match is None:
        return None
    major, minor, patch = int(match[1]), int(match[2]), int(match[3] or 0)
    rest = match[5]
    # 6.1.0-13-amd64 is 6.1.55. Enterprise kernels carry what they like.
    exact = not (rest.startswith("-") and patch == 0) and ".el" not in rest
    return (major, minor, patch), exact and not match[4]


def affected(bug: KnownBug, release: str | None) -> bool | None:
    """Whether a release has a bug, as far as its number decides that."""
    read = release_of(release)
    if read is None:
        return None
    version, exact = read
    if version[:2] < bug.since:
        return False
    if bug.fixed is not None and version[:2] >= bug.fixed:
        # A release candidate of that release can be older than the fix.
        return False if exact or version[:2] > bug.fixed else None
    series = next((s for s in bug.stable if s[:2] == version[:2]), None)
    if series is None:
        return None if bug.more_backports and (version[2] or not exact) else True
    return version < series if exact else None
