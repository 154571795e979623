# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Findings
-----------------

Every slug that a finding can have, with everything that findings of that slug
have in common. Slugs are stable: scripts name them in ``--fail-on``.

``docs/findings.md`` is this table for readers, written by ``scripts/write-findings``.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Case, Evidence, Finding, Severity

__all__ = ("KINDS", "UNDETECTABLE", "Kind", "make_finding")


@dataclass(frozen=True)
class Kind:
    """
    What all findings with one slug have in common.

    ``message`` is what is wrong, in a line; ``explanation`` is why the kernel
    promises otherwise, or how it comes about; ``proof`` is the evidence that the
    finding rests on; ``cure`` is what to do about it.
    """

    slug: str
    severity: Severity
    message: str
    explanation: str
    proof: str
    cure: str


_REWRITTEN = (
    "Find out who wrote there: the words in front of and behind it, and the objects that "
    "lie in the same page of the direct map, tell a stray write from a missed initialisation."
)
_UNBIND = "Unbind the device and bind it again: memremap_pages() writes all struct pages anew."
_PFN_WALKERS = (
    "Do not touch these struct pages in code that walks PFNs: ask get_dev_pagemap() and "
    "pgmap_pfn_valid(). pfn_to_online_page() is enough only where the section is not online, or "
    "has SECTION_TAINT_ZONE_DEVICE (since v5.12)."
)
_REPORT = (
    "Report it to linux-mm with the evidence: no driver and no administrator can bring this about."
)

_ERRORS = (
    # Struct pages of device memory.
    Kind(
        "device-page-uninitialized",
        Severity.ERROR,
        "memmap_init_zone_device() never wrote these struct pages, although nr_range says that "
        "it was through",
        "memmap_init_zone_device() writes the struct pages of a range before memremap_pages() "
        "counts it in nr_range. Kernels with compound device pages write only the struct pages "
        'that have memory of their own; before "mm/mm_init: fix uninitialized struct pages for '
        'ZONE_DEVICE", they also left out those behind the second page of the vmemmap in early '
        "sections, where nothing is shared.",
        "zone or node of page->flags, and the way to the pgmap, are both not what the range "
        "promises",
        "Update the kernel, or create the namespace so that it does not share a section with RAM.",
    ),
    Kind(
        "device-page-zone",
        Severity.ERROR,
        "the pgmap claims these pages, but they are not in ZONE_DEVICE",
        "__init_zone_device_page() gives every page of a pgmap ZONE_DEVICE, and nothing changes "
        "a page's zone while the pgmap lives. With another zone, is_zone_device_page() is false "
        "and the page is treated as RAM.",
        "page_zonenum() of page->flags is not ZONE_DEVICE, while the way to the pgmap is right",
        _REWRITTEN,
    ),
    Kind(
        "device-page-node",
        Severity.ERROR,
        "these device pages belong to a node whose ZONE_DEVICE is elsewhere",
        "move_pfn_range_to_zone() grows ZONE_DEVICE of the very node that the struct pages get.",
        "page_to_nid() of page->flags is no node whose ZONE_DEVICE spans the range",
        _REWRITTEN,
    ),
    Kind(
        "device-page-pgmap",
        Severity.ERROR,
        "these device pages do not lead to the pgmap that pgmap_array holds",
        "Freeing a device page calls the operations of the pgmap that its head holds: with "
        "another word there, the kernel jumps to whatever that memory says.",
        "the word of the page, or of its folio's head, is not the address that pgmap_array holds",
        _REWRITTEN,
    ),
    Kind(
        "device-page-reserved",
        Severity.ERROR,
        "these device pages lack PG_reserved",
        "__init_zone_device_page() marks every device page reserved, and drivers leave it so. "
        "Without it, the page looks like RAM that the page allocator owns, for example to "
        "hibernation.",
        "PG_reserved of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "device-page-refcount",
        Severity.ERROR,
        "the reference count of these device pages is one that they cannot have",
        "No reference count is negative. Tails of a compound page have none, because references "
        "are taken on the head. A page that is idle at 1 (device-dax; up to v6.14 also fsdax) "
        "never goes to 0 while its pgmap lives.",
        "page->_refcount is below what the type of the memory allows",
        "Somebody dropped a reference too many: look for users of the device that unpin twice.",
    ),
    Kind(
        "device-page-mapcount",
        Severity.ERROR,
        "more mappings of these device pages were removed than were made",
        "_mapcount starts at -1. Numbers below that are page types, which device pages never "
        "have, or an underflow.",
        "page->_mapcount is in [-128, -2]",
        "Look for a driver that unmaps without having mapped, or for a stray write.",
    ),
    Kind(
        "device-stray-head",
        Severity.ERROR,
        "device pages that are no head of a compound page have PG_head",
        "memmap_init_compound() sets PG_head in the first page of each compound page only, and "
        "drivers that build folios exist only where folio->pgmap does (since v6.15), for "
        "fsdax and device-private memory.",
        "PG_head of page->flags is set",
        _REWRITTEN,
    ),
    Kind(
        "device-head-flag",
        Severity.ERROR,
        "the heads of compound device pages lack PG_head",
        "memmap_init_compound() sets PG_head in each head. Without it, the compound page is "
        "taken for a base page, and its tails for pages without a head.",
        "PG_head of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "device-tail-link",
        Severity.ERROR,
        "tails of compound device pages do not link to their head",
        "prep_compound_tail() links every tail of a compound page to its head; compound_head() "
        "follows the link without checking it.",
        "compound_head, or compound_info, does not lead to the head that vmemmap_shift says",
        _REWRITTEN,
    ),
    Kind(
        "device-tail-mapping",
        Severity.ERROR,
        "tails of compound device pages lack the poison of page->mapping",
        "prep_compound_tail() sets mapping to TAIL_MAPPING. Faults set the mapping of the head "
        "only, and what struct folio lays over the first tails is left out.",
        "page->mapping is not TAIL_MAPPING",
        _REWRITTEN,
    ),
    Kind(
        "device-compound-order",
        Severity.ERROR,
        "the order of compound device pages is not the vmemmap_shift of their pgmap",
        "prep_compound_head() stores the order in the first tail. Whoever takes the size of the "
        "compound page from there works on too many pages, or too few.",
        "the byte of the first tail that holds the order differs from vmemmap_shift",
        _REWRITTEN,
    ),
    Kind(
        "vmemmap-alias",
        Severity.ERROR,
        "struct pages share memory that must not share it",
        "Only the tails of one compound device page may share their vmemmap, from its second "
        "page on (vmemmap_populate_compound_pages()). Whatever else is shared, one of the "
        "owners overwrites what the other one wrote.",
        "the page tables map both struct pages to the same physical page",
        _REPORT,
    ),
    # Struct pages of altmaps.
    Kind(
        "metadata-page-uninitialized",
        Severity.ERROR,
        "memmap_init_range() never wrote these struct pages",
        "move_pfn_range_to_zone() initialises the part of an altmap that holds the memmap, from "
        "its reserve on, before memmap_init_zone_device() begins.",
        "neither the zone nor the list head is what memmap_init_range() writes",
        _UNBIND,
    ),
    Kind(
        "metadata-page-zone",
        Severity.ERROR,
        "pages of the altmap are not in ZONE_DEVICE",
        "memmap_init_range() gives them ZONE_DEVICE, and nobody has a use for them afterwards.",
        "page_zonenum() of page->flags is not ZONE_DEVICE",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-link",
        Severity.ERROR,
        "pages of the altmap are on a list, or hold a pgmap",
        "__init_single_page() links page->lru to itself, and nobody takes these pages.",
        "page->lru.next or page->lru.prev is not the address of page->lru",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-node",
        Severity.ERROR,
        "pages of the altmap belong to a node whose ZONE_DEVICE is elsewhere",
        "They get the node whose ZONE_DEVICE was grown for their device.",
        "page_to_nid() of page->flags is no node whose ZONE_DEVICE spans the range",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-reserved",
        Severity.ERROR,
        "pages of the altmap lack PG_reserved",
        "memmap_init_range() marks hot-added device pages reserved.",
        "PG_reserved of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-refcount",
        Severity.ERROR,
        "the reference count of pages of the altmap fell below 1",
        "They start with one reference, which nobody ever drops.",
        "page->_refcount is below 1",
        _REWRITTEN,
    ),
    # Structures.
    Kind(
        "pgmap-array-entry",
        Severity.ERROR,
        "pgmap_array holds a pgmap for PFNs that are not in its ranges",
        "memremap_pages() stores a pgmap for its own ranges, and erases it before it is freed: "
        "get_dev_pagemap() hands out whatever is there.",
        "the entry of pgmap_array, and the ranges of the pgmap that it points to",
        "Find out whether the pgmap was freed (its slab says), or overwritten.",
    ),
    Kind(
        "pgmap-array-missing",
        Severity.ERROR,
        "a live pgmap claims PFNs that pgmap_array does not hold it for",
        "The entry is stored before anything else happens to the range, and erased only after "
        "the reference was killed: get_dev_pagemap() fails for these PFNs.",
        "xa_load() of pgmap_array, and the ranges of the pgmap",
        _REPORT,
    ),
    Kind(
        "pgmap-overlap",
        Severity.ERROR,
        "two pgmaps claim the same PFNs",
        "memremap_pages() refuses a range whose ends are in pgmap_array already.",
        "the ranges of both pgmaps",
        _REPORT,
    ),
    Kind(
        "pgmap-range",
        Severity.ERROR,
        "a range of a pgmap is empty, or does not begin and end with a subsection",
        "check_pfn_span() refuses to hot-add anything that is not aligned to subsections: the "
        "rest of the subsection would have two owners.",
        "the range, and the size of a subsection",
        _REPORT,
    ),
    Kind(
        "device-unpopulated",
        Severity.ERROR,
        "a live pgmap is complete, but these subsections are not populated",
        "sparse_add_section() sets the bits before the range is initialised, and they are "
        "cleared only after the pgmap's reference was killed: pfn_valid() is false for memory "
        "that the device hands out.",
        "SECTION_HAS_MEM_MAP and subsection_map of the section",
        _REPORT,
    ),
    Kind(
        "device-section-online",
        Severity.ERROR,
        "a section that has nothing but device memory is online",
        "Only RAM is ever onlined. pfn_to_online_page() takes the device pages of such a "
        "section for RAM.",
        "SECTION_IS_ONLINE, without SECTION_IS_EARLY and without a memory block",
        _REPORT,
    ),
    Kind(
        "section-taint-missing",
        Severity.ERROR,
        "a device covers a part of this section, but it lacks SECTION_TAINT_ZONE_DEVICE",
        'Linux kernel commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about ZONE_DEVICE '
        'section collisions") (in v5.12) taints the first and the last section of a range that '
        "is not aligned to sections. Without the taint, pfn_to_online_page() does not ask for "
        "the pgmap.",
        "the section's word, and the pgmap's range",
        _REPORT,
    ),
    Kind(
        "section-mem-map",
        Severity.ERROR,
        "this section's memmap is not where that of all others is",
        "With CONFIG_SPARSEMEM_VMEMMAP, sparse_encode_mem_map() gives every section the same: "
        "vmemmap. The kernel's pfn_to_page() does not read it; debuggers and makedumpfile do.",
        "section_mem_map without its flags is not what most sections have",
        _REWRITTEN,
    ),
    Kind(
        "section-usage-null",
        Severity.ERROR,
        "a section has a memmap but no usage",
        "section_activate() allocates the usage before SECTION_HAS_MEM_MAP is set, and "
        "section_deactivate() clears the flag first: pfn_section_valid() finds NULL here.",
        "mem_section.usage is NULL while SECTION_HAS_MEM_MAP is set",
        _REPORT,
    ),
    Kind(
        "subsection-two-owners",
        Severity.ERROR,
        "two pgmaps have PFNs in the same subsection",
        "fill_subsection_map() refuses a subsection that is populated already.",
        "the ranges of both pgmaps",
        _REPORT,
    ),
    Kind(
        "zone-device-span",
        Severity.ERROR,
        "device memory lies outside of every node's ZONE_DEVICE",
        "move_pfn_range_to_zone() grows the zone before the range is initialised, and "
        "ZONE_DEVICE never shrinks.",
        "zone_start_pfn and spanned_pages of ZONE_DEVICE",
        _REPORT,
    ),
    Kind(
        "altmap-range",
        Severity.ERROR,
        "the altmap does not fit the range of its pgmap",
        "__add_pages() refuses an altmap that does not start with the range, or that is larger.",
        "base_pfn, reserve and free of the altmap, and the pgmap's first range",
        _REPORT,
    ),
    Kind(
        "altmap-account",
        Severity.ERROR,
        "more was allocated from the altmap than it has",
        "vmem_altmap_alloc() takes pages only while alloc and align together stay within free.",
        "alloc, align and free of the altmap",
        _REPORT,
    ),
    Kind(
        "device-in-ram",
        Severity.ERROR,
        "device memory overlaps System RAM in the resource tree",
        "memremap_pages() refuses a range that intersects System RAM, and RAM is not added "
        "where a resource is busy.",
        "iomem_resource, as /proc/iomem shows it",
        _REPORT,
    ),
)

_WARNINGS = (
    Kind(
        "case3-partial",
        Severity.WARNING,
        "not covered by the device that has the rest of the section",
        "Sections are 128 MiB on most machines, devices need not be. In hot-added sections the "
        "rest has no struct pages; in early ones they are those of a hole at boot, and "
        "pfn_valid() is true.",
        "the subsection bit is clear, and the section has a device",
        _PFN_WALKERS,
    ),
    Kind(
        "case4-initializing",
        Severity.WARNING,
        "claimed by a pgmap whose memmap is not initialised yet",
        "memmap_init_zone_device() runs without a lock for seconds per TiB, and meanwhile "
        "pfn_valid() and get_dev_pagemap() succeed. nr_range is counted up behind it.",
        "the PFN is in ranges[nr_range] of a live pgmap",
        _PFN_WALKERS,
    ),
    Kind(
        "case5-reserved",
        Severity.WARNING,
        "reserved for the driver in front of the altmap: no kernel ever initialises these "
        "struct pages",
        "memmap_init_range() skips the altmap's reserve, and memmap_init_zone_device() starts "
        "behind the altmap. The patches of 2019 that would have changed that were not merged.",
        "the PFN is in [altmap.base_pfn, altmap.base_pfn + altmap.reserve)",
        _PFN_WALKERS + " A namespace with its memmap in RAM (map=mem) has no reserve.",
    ),
    Kind(
        "collision-untainted",
        Severity.WARNING,
        "device memory in an online section without SECTION_TAINT_ZONE_DEVICE: "
        "pfn_to_online_page() takes it for RAM",
        'Before Linux kernel commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about '
        'ZONE_DEVICE section collisions") (in v5.12), there is no taint. Since then, it is set '
        "a moment after the sections are added.",
        "SECTION_IS_ONLINE without SECTION_TAINT_ZONE_DEVICE",
        "Align the namespace to sections, or use a kernel since v5.12.",
    ),
    Kind(
        "ghost-pages",
        Severity.WARNING,
        "struct pages of a device that is gone, at valid PFNs",
        "Early sections keep their memmap when a device leaves: only the subsection bits are "
        "cleared, and pfn_valid() stays true. The struct pages still say ZONE_DEVICE.",
        "the zone is ZONE_DEVICE in an early section, the subsection bit is clear, and "
        "pgmap_array has nothing",
        "Never follow page->pgmap without asking pgmap_array.",
    ),
    Kind(
        "orphan-section",
        Severity.WARNING,
        "left behind by a memremap_pages() that failed: valid PFNs that nobody initialises",
        "__add_pages() does not undo the sections that it added before it failed, and neither "
        "does pagemap_range().",
        "the subsection bit is set, without a pgmap and without a memory block",
        "Reboot: nothing removes these sections. Look for the failure in the kernel log.",
    ),
    Kind(
        "teardown",
        Severity.WARNING,
        "the pgmap is dying: get_dev_pagemap() fails, but the sections may still be there",
        "memunmap_pages() kills the reference, waits for its users, and only then removes the "
        "sections. Meanwhile pfn_to_online_page() returns device pages that share a section "
        "with RAM.",
        "__PERCPU_REF_DEAD of the pgmap's reference, or its NULL pointer on v5.10",
        "If it stays: somebody holds a reference. Look for pinned pages of the device.",
    ),
    Kind(
        "section-without-memmap",
        Severity.WARNING,
        "a section is present but has no memmap, and nobody is adding or removing memory",
        "Both happen under mem_hotplug_lock, which is not held.",
        "SECTION_MARKED_PRESENT without SECTION_HAS_MEM_MAP",
        _REPORT,
    ),
    Kind(
        "device-memory-block",
        Severity.WARNING,
        "a memory block exists for memory that devices have",
        "Memory blocks are made for RAM only; onlining or offlining this one would act on "
        "device memory.",
        "memory_blocks holds a block whose present sections are all hot-added device memory",
        _REPORT,
    ),
    Kind(
        "altmap-unaccounted",
        Severity.WARNING,
        "what was allocated from the altmap is not the size of the memmap that it should hold",
        "On x86-64 every section that the device has for itself takes its memmap from the "
        "altmap, and every other one takes nothing.",
        "alloc of the altmap, and the number of whole sections that were hot-added",
        "Compare with the page tables: the rest of the memmap is in RAM, or was not freed.",
    ),
)

_INFOS = (
    Kind(
        "device-migratetype",
        Severity.INFO,
        "pageblocks of device memory are not MIGRATE_MOVABLE",
        "memmap_init_zone_device() makes them movable. Kernels with compound device pages did so "
        "from the struct pages that they wrote, and so missed the pageblocks of tails that "
        "share their vmemmap. Nothing allocates from these pageblocks.",
        "mem_section_usage.pageblock_flags",
        "None is needed.",
    ),
    Kind(
        "device-without-resource",
        Severity.INFO,
        "device memory is not in the resource tree",
        "Drivers request the memory that they remap; whoever does not can collide with others.",
        "iomem_resource, as /proc/iomem shows it",
        "Look at the driver of the pgmap.",
    ),
)

KINDS = {kind.slug: kind for kind in _ERRORS + _WARNINGS + _INFOS}
"""All kinds of findings by slug."""

UNDETECTABLE = (
    (
        "nr_range of a complete pgmap counted down",
        "memremap_pages() at work looks the same: its last range is case 4.",
    ),
    (
        "a reference killed, or __PERCPU_REF_DEAD set by accident",
        "memunmap_pages() at work looks the same.",
    ),
    (
        "the reserve of an altmap filled with anything",
        "nobody ever writes these struct pages, so they may hold anything.",
    ),
    (
        "page->private, index, zone_device_data and memcg_data; the mapping of a head or base page",
        "they belong to the user of the page.",
    ),
    (
        "a reference count that is too high, or too low but not 0",
        "any number of references may be held.",
    ),
    (
        "PG_locked, PG_dirty, PG_hwpoison and the other flags, and the last CPU and PID",
        "faults, file systems and memory_failure() set them.",
    ),
    (
        "since v6.15: PG_head, and links within the same pgmap, of fsdax and device-private pages",
        "drivers build folios, and a freed one keeps its links until it is used again.",
    ),
    (
        "the first tails' words that struct folio uses, except for link and order",
        "mapcounts, pins and lists live there.",
    ),
    (
        "a stale struct page of the very same pgmap, node and zone",
        "it is what a fresh one would be.",
    ),
    (
        "SECTION_IS_EARLY on a hot-added section, or its taint without need",
        "the taint is never taken back, and nothing else records which sections boot made.",
    ),
    (
        "a subsection bit set where nothing is, in an early section",
        "RAM sets bits at boot, too, and nothing says for which subsections. In a hot-added "
        "section it is orphan-section.",
    ),
    (
        "reserve and free of an altmap changed by the same amount in opposite directions, if the "
        "pages between were written by memmap_init_range() or hold anything",
        "only these two numbers say where the reserve ends.",
    ),
    (
        "end_pfn of an altmap",
        "the kernel does not check it.",
    ),
)
"""Defects that look like something legal: tuples of (defect, reason)."""


def make_finding(
    slug: str,
    case: Case,
    start_pfn: int,
    end_pfn: int,
    *,
    count: int | None = None,
    detail: str = "",
    pgmap: int | None = None,
    evidence: tuple[Evidence, ...] = (),
) -> Finding:
    """
    Make a finding of a known kind.

    :param count: Pages concerned, if not all of the range.
    :param detail: What this one has beyond the others of its kind.
    """
    kind = KINDS[slug]
    return Finding(
        slug=slug,
        severity=kind.severity,
        case=case,
        start_pfn=start_pfn,
        end_pfn=end_pfn,
        count=end_pfn - start_pfn if count is None else count,
        message=f"{kind.message}; {detail}" if detail else kind.message,
        pgmap=pgmap,
        evidence=evidence,
    )
