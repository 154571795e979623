# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Findings
-----------------

A table of all slugs of findings, and what all findings with a slug have in common.
Slugs are stable: scripts name them in ``--fail-on``.

``scripts/write-findings`` writes ``docs/findings.md`` from this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Case, Evidence, Finding, Severity

__all__ = ("KINDS", "UNDETECTABLE", "Kind", "make_finding")


@dataclass(frozen=True)
class Kind:
    """
    What all findings with one slug have in common.

    ``message`` says in one line what is wrong, ``explanation`` why the kernel
    promises otherwise or how this comes about, ``proof`` which evidence the finding is
    based on, and ``cure`` what to do about it.
    """

    slug: str
    severity: Severity
    message: str
    explanation: str
    proof: str
    cure: str


_REWRITTEN = (
    "Find out what wrote there: the words before and after it, and the objects in the same page "
    "of the direct map, show whether it is a stray write or a missed initialisation."
)
_UNBIND = (
    "Unbind the device and bind it again: memremap_pages() initialises all struct pages again."
)
_PFN_WALKERS = (
    "Do not touch these struct pages in code that walks PFNs: check get_dev_pagemap() and "
    "pgmap_pfn_valid(). pfn_to_online_page() is enough only if the section is not online, or "
    "has SECTION_TAINT_ZONE_DEVICE (since v5.12)."
)
_REPORT = (
    "Report it to linux-mm with the evidence: neither a driver nor an administrator can cause this."
)

_ERRORS = (
    # Struct pages of device memory.
    Kind(
        "device-page-uninitialized",
        Severity.ERROR,
        "memmap_init_zone_device() never wrote these struct pages, although nr_range says that "
        "it has finished",
        "memmap_init_zone_device() writes the struct pages of a range before memremap_pages() "
        "counts it in nr_range. Kernels with compound device pages write only the struct pages "
        'that have memory of their own; before "mm/mm_init: fix uninitialized struct pages for '
        'ZONE_DEVICE", they also skipped those after the second page of the vmemmap in early '
        "sections, where no vmemmap is shared.",
        "both the zone or node of page->flags and the link to the pgmap differ from what the "
        "range promises",
        "Update the kernel, or create the namespace so that it does not share a section with RAM.",
    ),
    Kind(
        "device-page-zone",
        Severity.ERROR,
        "the pgmap claims these pages, but they are not in ZONE_DEVICE",
        "__init_zone_device_page() gives every page of a pgmap ZONE_DEVICE, and nothing changes "
        "a page's zone while the pgmap is alive. With another zone, is_zone_device_page() is false "
        "and the page is treated as RAM.",
        "page_zonenum() of page->flags is not ZONE_DEVICE, but the link to the pgmap is right",
        _REWRITTEN,
    ),
    Kind(
        "device-page-node",
        Severity.ERROR,
        "these device pages belong to a node whose ZONE_DEVICE does not span them",
        "move_pfn_range_to_zone() grows ZONE_DEVICE of the same node that the struct pages get.",
        "ZONE_DEVICE of the node page_to_nid() does not span the range",
        _REWRITTEN,
    ),
    Kind(
        "device-page-pgmap",
        Severity.ERROR,
        "these device pages do not point to the pgmap that pgmap_array holds",
        "Freeing a device page calls the operations of the pgmap that its head points to: with "
        "another word there, the kernel jumps to an arbitrary address.",
        "the pgmap word of the page, or of its folio's head, is not the address in pgmap_array",
        _REWRITTEN,
    ),
    Kind(
        "device-page-reserved",
        Severity.ERROR,
        "these device pages do not have PG_reserved",
        "__init_zone_device_page() marks every device page reserved, and drivers do not clear the "
        "flag. Without it, the page looks like RAM that the page allocator owns, for example to "
        "hibernation.",
        "PG_reserved of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "device-page-refcount",
        Severity.ERROR,
        "the reference count of these device pages is impossible",
        "A reference count is never negative. Tails have no references, because references "
        "are taken on the head. A page that is idle at 1 (device-dax; up to v6.14 also fsdax) "
        "never drops to 0 while its pgmap is alive.",
        "page->_refcount is below what the type of the memory allows",
        "A reference was dropped one time too many: look for users of the device that unpin twice. "
        "zonedev pins shows who uses its pages.",
    ),
    Kind(
        "device-page-mapcount",
        Severity.ERROR,
        "more mappings of these device pages were removed than added",
        "_mapcount starts at -1. Values below that are page types, which device pages never "
        "have, or an underflow.",
        "page->_mapcount is in [-128, -2]",
        "Look for a driver that unmaps pages that it has not mapped, or for a stray write.",
    ),
    Kind(
        "device-stray-head",
        Severity.ERROR,
        "device pages that are not the head of a compound page have PG_head",
        "memmap_init_compound() sets PG_head in the first page of each compound page only. "
        "Drivers build folios only in kernels that have folio->pgmap (since v6.15), for "
        "fsdax and device-private memory.",
        "PG_head of page->flags is set",
        _REWRITTEN,
    ),
    Kind(
        "device-head-flag",
        Severity.ERROR,
        "the heads of compound device pages do not have PG_head",
        "memmap_init_compound() sets PG_head in each head. Without it, the kernel takes the "
        "compound page for a base page, and its tails for pages without a head.",
        "PG_head of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "device-tail-link",
        Severity.ERROR,
        "tails of compound device pages do not link to their head",
        "prep_compound_tail() links every tail of a compound page to its head; compound_head() "
        "follows the link without checking it.",
        "compound_head, or compound_info, does not point to the head that vmemmap_shift gives",
        _REWRITTEN,
    ),
    Kind(
        "device-tail-mapping",
        Severity.ERROR,
        "page->mapping of tails of compound device pages is not poisoned",
        "prep_compound_tail() sets mapping to TAIL_MAPPING. Faults set the mapping of the head "
        "only. The first tails, where struct folio has other members, are not checked.",
        "page->mapping is not TAIL_MAPPING",
        _REWRITTEN,
    ),
    Kind(
        "device-folio-tails",
        Severity.ERROR,
        "a folio of device memory that is in use has no tails, or tails that do not belong to it",
        "zone_device_page_init() makes a folio of the order that its driver asks for. Before Linux "
        'kernel commit 12b2285bf3d1 ("mm/zone_device: reinitialize large zone device private '
        'folios") (in v6.19), a page that was handed out alone kept PG_head and the order of an '
        "earlier folio, so freeing it frees that whole folio.",
        "PG_head and a reference of the head, the order in its first tail, and the links of that "
        "many pages",
        "Update the kernel, or look for a driver that splits folios without "
        "folio_split_unmapped().",
    ),
    Kind(
        "device-compound-order",
        Severity.ERROR,
        "the order of compound device pages is not the vmemmap_shift of their pgmap",
        "prep_compound_head() stores the order in the first tail. Code that takes the size of the "
        "compound page from there works on too many pages, or too few.",
        "the byte of the first tail that holds the order differs from vmemmap_shift",
        _REWRITTEN,
    ),
    Kind(
        "vmemmap-alias",
        Severity.ERROR,
        "struct pages share memory, although they must not",
        "Only the tails of one compound device page may share their vmemmap, beginning with its "
        "second page (vmemmap_populate_compound_pages()). If any other struct pages share memory, "
        "each owner overwrites what the other one wrote.",
        "the page tables map both struct pages to the same physical page",
        _REPORT,
    ),
    # Struct pages of altmaps.
    Kind(
        "metadata-page-uninitialized",
        Severity.ERROR,
        "memmap_init_range() never wrote these struct pages",
        "move_pfn_range_to_zone() initialises the part of an altmap that holds the memmap, which "
        "follows the reserve, before memmap_init_zone_device() begins.",
        "neither the zone nor the list head is what memmap_init_range() writes",
        _UNBIND,
    ),
    Kind(
        "metadata-page-zone",
        Severity.ERROR,
        "pages of the altmap are not in ZONE_DEVICE",
        "memmap_init_range() gives them ZONE_DEVICE, and nothing uses them afterwards.",
        "page_zonenum() of page->flags is not ZONE_DEVICE",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-link",
        Severity.ERROR,
        "pages of the altmap are on a list, or hold a pgmap",
        "__init_single_page() links page->lru to itself, and nothing uses these pages.",
        "page->lru.next or page->lru.prev is not the address of page->lru",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-node",
        Severity.ERROR,
        "pages of the altmap belong to a node whose ZONE_DEVICE does not span them",
        "move_pfn_range_to_zone() gives them the node whose ZONE_DEVICE it grew for their device.",
        "ZONE_DEVICE of the node page_to_nid() does not span the range",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-reserved",
        Severity.ERROR,
        "pages of the altmap do not have PG_reserved",
        "memmap_init_range() marks hot-added device pages reserved.",
        "PG_reserved of page->flags is clear",
        _REWRITTEN,
    ),
    Kind(
        "metadata-page-refcount",
        Severity.ERROR,
        "the reference count of pages of the altmap fell below 1",
        "They start with one reference, which is never dropped.",
        "page->_refcount is below 1",
        _REWRITTEN,
    ),
    # The memory behind struct pages.
    Kind(
        "vmemmap-unmapped",
        Severity.ERROR,
        "these PFNs are valid, but their struct pages are not mapped",
        "populate_section_memmap() maps the memmap before a subsection becomes valid, and "
        "section_deactivate() makes the subsection invalid before it unmaps the memmap. Here, "
        "pfn_valid() is true, but reading the struct page faults. Where a page of vmemmap holds "
        "the struct pages of more than one subsection (pages of 16 KiB and more), removing one "
        "device can unmap the struct pages of another.",
        "the page tables do not map the page of vmemmap",
        _REPORT,
    ),
    Kind(
        "vmemmap-free",
        Severity.ERROR,
        "the page allocator has free pages that store these struct pages",
        "The next user of such a page overwrites struct pages that are in use.",
        "PageBuddy() of the page that the page tables map to vmemmap, or of the free block that "
        "holds it",
        _REPORT,
    ),
    Kind(
        "vmemmap-astray",
        Severity.ERROR,
        "these struct pages are in memory that cannot hold any",
        "vmemmap_populate() takes RAM that is online, pages of the device's own altmap, or the "
        "head of the memory block itself. Anything else must not hold struct pages: the data of a "
        "device, RAM that is offline, a hole. Nor can a page table in a hole map any.",
        "the PFN that the page tables map to vmemmap, or that of the page table, and the case of "
        "the memory there",
        _REPORT,
    ),
    Kind(
        "vmemmap-top-entry",
        Severity.ERROR,
        "the page tables of some tasks do not lead to these struct pages",
        "On x86-64, each task has a copy of the top-level entries of the kernel's page tables. The "
        "kernel updates the copies when it adds an entry (sync_global_pgds(); since v6.17, "
        "arch_sync_kernel_mappings()). A task whose copy lacks an entry faults when it reads the "
        "struct pages; other tasks do not.",
        "in a dump, an entry of a table on pgd_list differs from that of swapper_pg_dir. Running "
        "kernels are not checked, because their tables come and go",
        'Update the kernel: since Linux kernel commit 6659d0279980 ("x86/mm/64: define '
        'ARCH_PAGE_TABLE_SYNC_MASK and arch_sync_kernel_mappings()") (in v6.17), every way of '
        "populating vmemmap updates the copies.",
    ),
    # Structures.
    Kind(
        "pgmap-array-entry",
        Severity.ERROR,
        "pgmap_array holds a pgmap for PFNs that are not in its ranges",
        "memremap_pages() stores a pgmap for its own ranges, and erases the entry before the pgmap "
        "is freed: get_dev_pagemap() returns whatever the entry points to.",
        "the entry of pgmap_array, and the ranges of the pgmap that it points to",
        "Find out whether the pgmap was freed (look up its slab object), or overwritten.",
    ),
    Kind(
        "pgmap-array-missing",
        Severity.ERROR,
        "a live pgmap claims PFNs for which pgmap_array does not hold it",
        "The entry is stored before anything else is done for the range, and erased only after "
        "the reference was killed: get_dev_pagemap() fails for these PFNs.",
        "xa_load() of pgmap_array, and the ranges of the pgmap",
        _REPORT,
    ),
    Kind(
        "pgmap-overlap",
        Severity.ERROR,
        "two pgmaps claim the same PFNs",
        "memremap_pages() refuses a range if pgmap_array already has an entry at either end of it.",
        "the ranges of both pgmaps",
        _REPORT,
    ),
    Kind(
        "pgmap-references-missing",
        Severity.ERROR,
        "the pgmap has fewer references than it took for its pages",
        "memremap_pages() takes one, and one for each page or compound page. For device-private "
        "and coherent memory, zone_device_page_init() takes one for each page that it hands out "
        "instead, and for P2PDMA, p2pmem_alloc_mmap() also takes one. A page in use without a "
        "reference outlives memunmap_pages().",
        "the count of the percpu_ref, and the pages of folios that have a reference",
        "Look for a page that was freed as a larger folio than it was handed out as (before Linux "
        'kernel commit 12b2285bf3d1 ("mm/zone_device: reinitialize large zone device private '
        'folios") (in v6.19), a page that had been in a larger folio kept its order), or for a '
        "reference that was dropped twice.",
    ),
    Kind(
        "pgmap-range",
        Severity.ERROR,
        "a range of a pgmap is empty, or not aligned to subsections",
        "check_pfn_span() refuses to hot-add a range that is not aligned to subsections: otherwise "
        "a subsection could have two owners.",
        "the range, and the size of a subsection",
        _REPORT,
    ),
    Kind(
        "device-unpopulated",
        Severity.ERROR,
        "a live pgmap is complete, but these subsections of it are not populated",
        "sparse_add_section() sets their bits before the range is initialised, and they are "
        "cleared only after the pgmap's reference is killed. Here, pfn_valid() is false for memory "
        "that is in use.",
        "SECTION_HAS_MEM_MAP and subsection_map of the section",
        _REPORT,
    ),
    Kind(
        "device-section-online",
        Severity.ERROR,
        "a section with only device memory is online",
        "Only RAM is ever onlined. pfn_to_online_page() treats the device pages of such a "
        "section as RAM.",
        "SECTION_IS_ONLINE, without SECTION_IS_EARLY and without a memory block",
        _REPORT,
    ),
    Kind(
        "section-taint-missing",
        Severity.ERROR,
        "a device covers a part of this section, but SECTION_TAINT_ZONE_DEVICE is not set",
        'Linux kernel commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about ZONE_DEVICE '
        'section collisions") (in v5.12) taints the first and the last section of a range that '
        "is not aligned to sections. Without the taint, pfn_to_online_page() does not check for "
        "a pgmap.",
        "the section's word, and the pgmap's range",
        _REPORT,
    ),
    Kind(
        "section-mem-map",
        Severity.ERROR,
        "this section's section_mem_map differs from that of all other sections",
        "With CONFIG_SPARSEMEM_VMEMMAP, sparse_encode_mem_map() gives every section the same "
        "value: vmemmap. The kernel's pfn_to_page() does not read it, but debuggers and "
        "makedumpfile do.",
        "section_mem_map without its flags is not the value of most sections",
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
        "section-usage-dead",
        Severity.ERROR,
        "the usage of a section is in memory that is not allocated",
        "section_activate() takes it from a slab, and section_deactivate() sets the pointer to "
        "NULL when it frees the usage. Here, pfn_section_valid() reads another user's memory. "
        'Before Linux kernel commit 5ec8e8ea8b77 ("mm/sparsemem: fix race in accessing '
        'memory_section->usage") (in v6.8), it could read a usage that had just been freed.',
        "mem_section.usage, and the state of that memory according to its slab or page",
        _REPORT,
    ),
    Kind(
        "section-usage-shared",
        Severity.ERROR,
        "two sections have the same usage",
        "Each section has one of its own: boot divides an array among its sections, and "
        "section_activate() takes one from a slab. If two sections share one, subsections added to "
        "one section are valid in the other, and removing either section frees the usage of both.",
        "mem_section.usage, and the number of the other section",
        _REPORT,
    ),
    Kind(
        "subsection-two-owners",
        Severity.ERROR,
        "two pgmaps have PFNs in the same subsection",
        "fill_subsection_map() refuses a subsection that is already populated.",
        "the ranges of both pgmaps",
        _REPORT,
    ),
    Kind(
        "zone-device-span",
        Severity.ERROR,
        "device memory lies outside ZONE_DEVICE of every node",
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
        "more pages were allocated from the altmap than it has",
        "vmem_altmap_alloc() takes pages only while alloc and align together stay within free.",
        "alloc, align and free of the altmap",
        _REPORT,
    ),
    Kind(
        "device-in-ram",
        Severity.ERROR,
        "device memory overlaps System RAM in the resource tree",
        "memremap_pages() refuses a range that intersects System RAM, and the kernel does not add "
        "RAM where a resource is busy.",
        "iomem_resource, as /proc/iomem shows it",
        _REPORT,
    ),
    # Memory blocks that store their own memmap.
    Kind(
        "block-memmap-free",
        Severity.ERROR,
        "the page allocator has free pages that store the memmap of their memory block",
        "With memmap_on_memory, the head of a hotplugged block stores the struct pages of the "
        "block. online_pages() leaves the head out, so none of it is ever free. The next user of "
        "such a page overwrites struct pages.",
        "PageBuddy() of a page at the head of an online memory block, whose altmap (before v6.6, "
        "nr_vmemmap_pages) says how long the head is",
        _REPORT,
    ),
    Kind(
        "block-memmap-elsewhere",
        Severity.ERROR,
        "the struct pages of a memory block are not where the block says",
        "A block with an altmap (before v6.6, with nr_vmemmap_pages) stores its memmap in its own "
        "head, and a block without one does not store any of it. Offlining or removing the "
        "block frees the wrong memory.",
        "the page tables lead from the struct pages of the block to pages outside its head, or, "
        "although it has no altmap, to pages of the block",
        _REPORT,
    ),
    Kind(
        "block-zone",
        Severity.ERROR,
        "a memory block is not in the zone that it names",
        "memory_block_online() stores the zone that got the pages of a hotplugged block, and "
        "memory_block_offline() takes them out of that zone. A block that existed at boot names a "
        "zone only if all its pages are in it.",
        "memory_block->zone is not the zone of a node, or does not span the block, or is NULL "
        "although the block was hotplugged and is online",
        _REPORT,
    ),
    # Zones and nodes.
    Kind(
        "zone-pages",
        Severity.ERROR,
        "a zone has more pages than it can have",
        "A zone spans its present pages, and the page allocator manages some of those. Watermarks, "
        "and limits that are a share of all memory, are computed from these numbers. Nothing "
        "onlines the pages of ZONE_DEVICE, so none of them are present.",
        "managed_pages exceeds present_pages, or present_pages exceeds spanned_pages, while "
        "mem_hotplug_lock is free; or ZONE_DEVICE has managed or present pages",
        "Look for a driver that returns more pages than it took: balloons and virtio-mem call "
        "adjust_managed_page_count().",
    ),
    Kind(
        "free-area-count",
        Severity.ERROR,
        "a zone's count of free blocks is wrong",
        "The buddy allocator sets PageBuddy() of a block and increments nr_free of its order when "
        "it puts the block on a free list, and undoes both when it takes the block off, under "
        "zone->lock. Neither covers pages on per-CPU lists. If nr_free is too small, the allocator "
        "misses blocks. If it is too large, the allocator looks for blocks that are not there, or "
        "has handed out a page that is still on a free list.",
        "free_area[order].nr_free, and the number of struct pages in the zone with PageBuddy() and "
        "that order in private. All struct pages of the zone were read, and zone->lock is free; in "
        "a running kernel, three counts in a row show the same difference",
        "Look for a block of that order that was freed or taken twice, and for a stray write to a "
        "struct page or to the zone.",
    ),
    Kind(
        "node-span",
        Severity.ERROR,
        "a node does not span one of its zones",
        "resize_pgdat_range() grows a node together with its zone, and update_pgdat_span() shrinks "
        "it to what its zones still span. Here, a walk over the PFNs of the node misses some of "
        "the zone.",
        "node_start_pfn and node_spanned_pages of the node, zone_start_pfn and spanned_pages of "
        "the zone, while mem_hotplug_lock is free",
        _REPORT,
    ),
    Kind(
        "node-pages",
        Severity.ERROR,
        "a node's count of present pages is not the sum of its zones' counts",
        "Boot and adjust_present_page_count() count every present page once for its zone, and "
        "once for its node.",
        "node_present_pages is not the sum of present_pages, while mem_hotplug_lock is free",
        _REPORT,
    ),
    Kind(
        "ram-without-zone",
        Severity.ERROR,
        "no zone spans this RAM, although it is online",
        "Boot gives every page of RAM to a zone, and move_pfn_range_to_zone() grows the zone "
        "before hot-added memory goes online. The page allocator treats such a page as bad, and "
        "compaction, hibernation and kdump do not see it.",
        "no zone but ZONE_DEVICE spans the PFNs; they are System RAM in the resource tree, or in "
        "hot-added sections that are online",
        _REPORT,
    ),
    Kind(
        "ram-without-resource",
        Severity.ERROR,
        "hot-added RAM is not System RAM in the resource tree",
        "add_memory_resource() takes a resource with IORESOURCE_SYSTEM_RAM, which is removed only "
        "after the memory. kexec, kdump and /dev/mem recognise RAM only by such a resource.",
        "a memory block covers the PFNs, their sections were hot-added, and iomem_resource has no "
        "resource with IORESOURCE_SYSTEM_RAM there",
        _REPORT,
    ),
)

_MEMORY_ERROR = (
    "Look at the words around it to find out what wrote there. If a word differs from its promise "
    "in only one bit, suspect the memory, and run a memory test."
)
_DOUBLE_USE = (
    "Look for code that frees a page twice, or uses it after freeing it. To catch it, reproduce "
    "this with page_owner=on and init_on_free=1, or with CONFIG_PAGE_TABLE_CHECK or KASAN."
)

_RAM_ERRORS = (
    # Struct pages of RAM.
    Kind(
        "ram-page-uninitialized",
        Severity.ERROR,
        "these struct pages of online RAM hold a pattern: they were never initialised, or were "
        "wiped like those of removed memory",
        "__init_single_page() writes every struct page before its section is online: _mapcount is "
        "-1, and the flags hold the zone and node. All ones are PAGE_POISON_PATTERN "
        "(CONFIG_DEBUG_VM), 0xfd is PAGE_UNUSED of x86-64, which fills the vmemmap that no section "
        "uses.",
        "all words of the struct page are 0, all ones, or 0xfd in each byte",
        _REPORT,
    ),
    Kind(
        "ram-page-node",
        Severity.ERROR,
        "these pages of RAM belong to a node that is not online",
        "set_page_links() writes the node of the memory. page_pgdat() is NULL for a node that is "
        "not online.",
        "page_to_nid() of page->flags, and node_states[N_ONLINE]",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-page-device",
        Severity.ERROR,
        "these pages of online RAM say that they are device pages",
        "move_pfn_range_to_zone() gives RAM its zone when it is set online. is_zone_device_page() "
        "is true here, and freeing the page calls the operations of the pgmap that it points to.",
        "page_zonenum() is ZONE_DEVICE, but no pgmap claims the memory, and its section is online",
        _REPORT,
    ),
    Kind(
        "ram-page-zone",
        Severity.ERROR,
        "these pages of RAM are in a zone that does not span them",
        "Only reserved pages in holes have the zone and node of neighbouring memory. The page "
        "allocator frees a page to the zone in its flags, whose pageblocks and free lists do not "
        "cover this memory.",
        "page_zone() of page->flags, and the spans of all zones",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-hole-zone",
        Severity.ERROR,
        "these reserved pages are in a zone that this kernel does not have",
        "memmap_init_reserved_pages() looks for the zone of each reserved page that is not "
        "initialised yet, and writes MAX_NR_ZONES if no zone spans it. This happens with "
        "CONFIG_DEFERRED_STRUCT_PAGE_INIT, and is not fixed up to v7.3. page_zone() then points "
        "past the end of pgdat->node_zones[].",
        "PG_reserved is set, and page_zonenum() is not a zone; where it has too few bits to show "
        "that, it is a zone that is neither here nor nearby",
        "Do not offline, soft-offline or unpoison these pages: get_hwpoison_page() calls "
        "zone_pcp_disable(page_zone(page)) before it looks at the page, so passing one of them to "
        "hard_offline_page, soft_offline_page or unpoison-pfn makes Linux 7.2 and 7.3 panic. The "
        "fix: a reserved page that no zone spans keeps the zone that init_unavailable_range() gave "
        "it.",
    ),
    Kind(
        "ram-tail-link",
        Severity.ERROR,
        "these tails of a compound page do not lead to its head",
        "prep_compound_tail() links every tail to the head, which holds the references, locks and "
        "flags; compound_head() follows the link.",
        "the link of the tail, and PG_head, the order, and the links of the other tails",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-stray-tail",
        Severity.ERROR,
        "these pages say that they are tails, but are not in a compound page",
        "compound_head() follows every link with bit 0 set, so references and locks are taken on "
        "another page.",
        "bit 0 of the compound link, and the pages around it, which are in no compound page",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-head-flag",
        Severity.ERROR,
        "the head of a compound page does not have PG_head",
        "prep_compound_page() sets it before it links the tails, and it is cleared after "
        "they are unlinked.",
        "PG_head of page->flags is clear, and the tails after the page lead to it",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-stray-head",
        Severity.ERROR,
        "pages that are not the head of a compound page have PG_head",
        "Only prep_compound_page() sets it, for pages whose tails it links. Freeing such a page "
        "also frees the pages after it.",
        "PG_head of page->flags is set, and the pages after it do not lead to it",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-compound-order",
        Severity.ERROR,
        "the order of a compound page does not match the number of its tails",
        "prep_compound_head() writes the order into the first tail, when all tails are linked. "
        "Freeing the page frees as many pages as the order says. 0 is legal while a compound page "
        "is made or freed.",
        "compound_order(), and the number of tails that lead to the head",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-tail-mapping",
        Severity.ERROR,
        "tails of a compound page do not have TAIL_MAPPING",
        "prep_compound_tail() poisons page->mapping of tails, which belong to the head's mapping.",
        "page->mapping of a tail that neither struct folio nor hugetlb uses",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-tail-flags",
        Severity.ERROR,
        "tails of a compound page have flags that only heads have",
        "PG_reserved, PG_lru and PG_writeback are set on the head alone, even while a folio is "
        "split.",
        "page->flags of the tail",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-page-refcount",
        Severity.ERROR,
        "the reference count of these pages of RAM is impossible",
        "A reference count is never negative; a tail has no references, and a reserved page "
        "has at least one. If a driver or kexec reserves all pages of a block that it "
        "allocated, only the first one has a reference.",
        "page->_refcount",
        "A reference was dropped one time too many: " + _DOUBLE_USE[0].lower() + _DOUBLE_USE[1:],
    ),
    Kind(
        "ram-page-mapcount",
        Severity.ERROR,
        "these pages of RAM were unmapped more often than mapped, or have a page type that the "
        "kernel does not have",
        "_mapcount starts at -1. Values below that are page types, which tails do not have.",
        "page->_mapcount",
        _MEMORY_ERROR,
    ),
    Kind(
        "ram-reserved-flags",
        Severity.ERROR,
        "reserved pages have flags that they must not have",
        "A reserved page is not on an LRU list, in a slab, swap-backed, or in a compound page. "
        "free_pages_prepare() refuses PG_reserved.",
        "page->flags",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-lru-type",
        Severity.ERROR,
        "pages on the LRU lists have a page type, or are slab pages",
        "Pages on the LRU lists belong to files or processes, and count mappings in the word that "
        "holds the type of other pages.",
        "PG_lru of page->flags, and page->_mapcount or PG_slab",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-order",
        Severity.ERROR,
        "a free block has an impossible order",
        "__free_one_page() makes blocks that are aligned to their size, end within their zone, and "
        "consist of free pages only.",
        "page->private of the first page, its PFN, and the pages of the block",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-refcount",
        Severity.ERROR,
        "pages of a free block have references",
        "Pages are freed when the last reference is dropped. Whoever holds another reference uses "
        "memory that the next allocation hands out.",
        "page->_refcount is not 0 within a block of PageBuddy()",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-type",
        Severity.ERROR,
        "pages of a free block are mapped, or have a page type",
        "Only the first page of a free block has a type, PageBuddy().",
        "page->_mapcount is not -1 in a page after the first of a block",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-flags",
        Severity.ERROR,
        "pages of a free block have flags",
        "free_pages_prepare() clears PAGE_FLAGS_CHECK_AT_PREP: all but PG_hwpoison. "
        "page_reporting marks first pages as reported.",
        "page->flags within a block of PageBuddy()",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-mapping",
        Severity.ERROR,
        "pages of a free block have a mapping",
        "free_pages_prepare() clears page->mapping.",
        "page->mapping is not NULL within a block of PageBuddy()",
        _DOUBLE_USE,
    ),
    Kind(
        "ram-free-memcg",
        Severity.ERROR,
        "a free block is still charged to a memory cgroup",
        "free_pages_prepare() uncharges pages, and refuses those that are charged.",
        "page->memcg_data is not 0 in the first page of a free block",
        _DOUBLE_USE,
    ),
)

_WARNINGS = (
    Kind(
        "case3-partial",
        Severity.WARNING,
        "a part of the section that neither a device nor RAM covers",
        "Sections are 128 MiB on most machines; devices need not be aligned to that. In a "
        "hot-added section, the rest has no struct pages. In an early section, it has those of "
        "a boot-time hole, and pfn_valid() is true.",
        "the subsection bit is clear, and the section has a device",
        _PFN_WALKERS,
    ),
    Kind(
        "case4-initializing",
        Severity.WARNING,
        "claimed by a pgmap, but its memmap is not initialised yet",
        "memmap_init_zone_device() runs without a lock for seconds per TiB; meanwhile, pfn_valid() "
        "and get_dev_pagemap() succeed. nr_range is incremented afterwards.",
        "the PFN is in ranges[nr_range] of a live pgmap",
        _PFN_WALKERS,
    ),
    Kind(
        "case4-deferred",
        Severity.WARNING,
        "boot has not initialised the struct pages of this RAM yet",
        "With CONFIG_DEFERRED_STRUCT_PAGE_INIT, boot initialises only a part of the highest zone "
        "of each node; deferred_init_memmap() initialises the rest, in a thread for each node. It "
        "sets first_deferred_pfn to ULONG_MAX before it begins. pfn_to_online_page() succeeds "
        "meanwhile. Struct pages of reserved memory are initialised early.",
        "the static key deferred_pages is enabled, and the PFN is above first_deferred_pfn of its "
        "node, or in the highest zone of a node whose thread is running (pgdat_init_n_undone)",
        "Look at this memory once page_alloc_init_late() has finished. Code that runs before it "
        "must not walk PFNs.",
    ),
    Kind(
        "case5-reserved",
        Severity.WARNING,
        "reserved for the driver at the start of the altmap: no kernel ever initialises these "
        "struct pages",
        "memmap_init_range() skips the altmap's reserve, and memmap_init_zone_device() starts "
        "after the altmap. The patches of 2019 that would have changed that were not merged.",
        "the PFN is in [altmap.base_pfn, altmap.base_pfn + altmap.reserve)",
        _PFN_WALKERS + " A namespace with its memmap in RAM (map=mem) has no reserve.",
    ),
    Kind(
        "collision-untainted",
        Severity.WARNING,
        "device memory in an online section without SECTION_TAINT_ZONE_DEVICE: "
        "pfn_to_online_page() treats it as RAM",
        'Before Linux kernel commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about '
        'ZONE_DEVICE section collisions") (in v5.12), there is no taint. Since then, it is set '
        "shortly after the sections are added.",
        "SECTION_IS_ONLINE without SECTION_TAINT_ZONE_DEVICE",
        "Align the namespace to sections, or use a kernel since v5.12.",
    ),
    Kind(
        "ghost-pages",
        Severity.WARNING,
        "struct pages of a device that was removed, at valid PFNs",
        "Early sections keep their memmap when a device is removed: only the subsection bits are "
        "cleared, and pfn_valid() stays true. The struct pages still say ZONE_DEVICE.",
        "the zone is ZONE_DEVICE in an early section, the subsection bit is clear, and "
        "pgmap_array has no entry",
        "Never follow page->pgmap without checking pgmap_array.",
    ),
    Kind(
        "orphan-section",
        Severity.WARNING,
        "left behind by a memremap_pages() that failed: valid PFNs, never initialised",
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
        "If it stays, a reference is still held: zonedev pins shows of which pages, and by whom.",
    ),
    Kind(
        "section-without-memmap",
        Severity.WARNING,
        "a section is present but has no memmap, and no memory hotplug is in progress",
        "Memory is added and removed under mem_hotplug_lock, which is not held.",
        "SECTION_MARKED_PRESENT without SECTION_HAS_MEM_MAP",
        _REPORT,
    ),
    Kind(
        "device-memory-block",
        Severity.WARNING,
        "a memory block exists for device memory",
        "Memory blocks are made for RAM only; onlining or offlining this one would act on "
        "device memory.",
        "memory_blocks holds a block whose present sections are all hot-added device memory",
        _REPORT,
    ),
    Kind(
        "altmap-unaccounted",
        Severity.WARNING,
        "the pages allocated from the altmap do not match the memmap that it should hold",
        "On x86-64, every section that only this device covers takes its memmap from the altmap; "
        "the others take nothing from it. On arm64, hot-added parts of sections do so, too. Other "
        "architectures are not judged.",
        "alloc of the altmap, and the sections that were hot-added",
        "Compare with the page tables: the rest of the memmap is in RAM, or was not freed.",
    ),
    Kind(
        "vmemmap-on-other-device",
        Severity.WARNING,
        "these struct pages are where another device, or another memory block, stores its own",
        "Where a page of vmemmap holds the struct pages of more than one subsection (pages of 16 "
        "KiB and more), the second device finds the page mapped and uses it. vmemmap_free() does "
        "not count the users: removing the first device frees the page.",
        "the PFN that the page tables map to vmemmap is in the altmap of another pgmap, or in "
        "another memory block",
        "Do not remove the other device while this one is in use; use a memmap in RAM for both.",
    ),
    Kind(
        "ram-beyond-max-pfn",
        Severity.WARNING,
        "this RAM is online, but beyond max_pfn",
        "/proc/kpageflags and others end at max_pfn. arch_add_memory() of arm64 and riscv sets it "
        "to the end of the memory that was added last, even if other memory lies above that.",
        "the PFN is not below max_pfn",
        "Do not rely on max_pfn as the end of memory. Adding the highest memory last raises it "
        "again.",
    ),
)

_INFOS = (
    Kind(
        "memmap-count",
        Severity.INFO,
        "the kernel's count of pages that store struct pages is wrong",
        "nr_memmap_pages and nr_memmap_boot_pages of /proc/vmstat count the pages, wherever they "
        "are, that hold only struct pages, and those of page_ext. They do not count pages that all "
        "optimised hugetlb pages of a zone share.",
        "both counters, and the number of different page frames that the page tables lead to",
        "Do not rely on these counters here: memmap was freed without being subtracted, or "
        "subtracted without being freed.",
    ),
    Kind(
        "pgmap-references-extra",
        Severity.INFO,
        "the pgmap has more references than its pages in use account for",
        "get_dev_pagemap() takes a reference while its caller looks at a page. A page that is "
        "being handed out has one already, and one that is being freed still has it. A reference "
        "that stays keeps memunmap_pages() waiting.",
        "the count of the percpu_ref, and the pages of folios that have a reference",
        "If the device cannot be removed, look for code that took a reference and did not drop it.",
    ),
    Kind(
        "device-migratetype",
        Severity.INFO,
        "pageblocks of device memory are not MIGRATE_MOVABLE",
        "memmap_init_zone_device() makes them movable. It did so for each struct page that it "
        "wrote, so kernels with compound device pages missed the pageblocks of tails that share "
        "their vmemmap. Nothing allocates from these pageblocks.",
        "mem_section_usage.pageblock_flags",
        "None is needed.",
    ),
    Kind(
        "device-without-resource",
        Severity.INFO,
        "device memory is not in the resource tree",
        "Drivers request the memory that they remap; one that does not can collide with others.",
        "iomem_resource, as /proc/iomem shows it",
        "Look at the driver of the pgmap.",
    ),
)

KINDS = {kind.slug: kind for kind in _ERRORS + _RAM_ERRORS + _WARNINGS + _INFOS}
"""All kinds of findings by slug."""

UNDETECTABLE = (
    (
        "nr_range of a complete pgmap that was decremented",
        "a running memremap_pages() looks the same, so the last range is case 4.",
    ),
    (
        "a reference that was killed, or __PERCPU_REF_DEAD that was set, by accident",
        "a running memunmap_pages() looks the same.",
    ),
    (
        "the reserve of an altmap filled with anything",
        "the kernel never writes these struct pages, so they may hold anything.",
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
        "PG_locked, PG_dirty, PG_hwpoison and the other flags, and the last CPU and PID, in "
        "page->flags",
        "faults, file systems and memory_failure() set them.",
    ),
    (
        "since v6.15: PG_head, and links within the same pgmap, of fsdax and device-private pages",
        "drivers build folios, and a freed folio keeps its links until it is used again.",
    ),
    (
        "the first tails' words that struct folio uses, except for link and order",
        "mapcounts, pins and lists live there.",
    ),
    (
        "a stale struct page of the same pgmap, node and zone",
        "a fresh one would look the same.",
    ),
    (
        "SECTION_IS_EARLY on a hot-added section, or an unneeded taint",
        "the taint is never cleared, and nothing else records which sections boot created.",
    ),
    (
        "a subsection bit set where there is no memory, in an early section",
        "boot also sets the bits of RAM, and nothing records which. In a hot-added section, such a "
        "bit is an orphan-section.",
    ),
    (
        "reserve and free of an altmap, one too high and the other too low by as much, if the "
        "pages in between are reserved now, or look initialised",
        "only these two numbers say where the reserve ends.",
    ),
    (
        "end_pfn of an altmap",
        "the kernel does not check it.",
    ),
    (
        "a zone or a node that spans too much, or has too few managed pages",
        "they span holes and may overlap, and balloons and virtio-mem take managed pages away.",
    ),
    (
        "a max_pfn that is too high",
        "it stays when the highest memory is removed.",
    ),
    (
        "the zone that a memory block names while it is not online",
        "it is stored before the state of the block changes.",
    ),
    (
        "first_deferred_pfn, once boot has initialised all struct pages",
        "nothing reads it any more, and it is 0 in nodes that were added later.",
    ),
    (
        "nr_free of a zone and PageBuddy() of its pages, while zone->lock is held",
        "one of them is changed before the other.",
    ),
    (
        "in RAM: mapping, index, private, list pointers and memory cgroup of a page that is in "
        "use, and most of its flags",
        "they belong to the user of the page.",
    ),
    (
        "in RAM: PageBuddy() cleared in a free block, or an order that is too low",
        "pages on per-CPU lists, and pages that were just allocated, look the same. Only nr_free "
        "of the zone counts one block too many.",
    ),
    (
        "in RAM: no reference of a reserved page behind one that was allocated and has some",
        "kexec and AGP reserve all pages of a block, of which only the first has a reference",
    ),
    (
        "in RAM: a reference count or a mapping count that is wrong, but possible",
        "any number may be held, and frozen pages, pages on per-CPU lists, and since v6.14 slabs "
        "have 0.",
    ),
    (
        "in RAM: an order of 0 in a compound page",
        "prep_compound_head() writes the order last, and __free_pages_prepare() clears it first.",
    ),
    (
        "in RAM, since v7.1: the mask of a larger compound page in a tail",
        "split_folio_to_order() leaves it, and it leads to the same head.",
    ),
    (
        "in RAM: the lower 24 bits of a page type, and one page type for another",
        "zsmalloc keeps an offset there, and nothing else says what a page is used for.",
    ),
    (
        "in RAM: the zone or node of a reserved page, if that zone exists",
        "init_unavailable_range() gives holes the zone and node of other memory.",
    ),
    (
        "in RAM: the zone or node of a page where zones overlap, if it is one of these zones",
        "each of them spans the page. Only hotplugged memory blocks name their zone (since v5.18).",
    ),
    (
        "in RAM: all but one of the struct pages of hugetlb tails that share their memory",
        "they are the same memory.",
    ),
)
"""Defects that look like a legal state: tuples of (defect, reason)."""


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

    :param count: Number of pages concerned, if not all of the range.
    :param detail: What distinguishes this finding from others of its kind.
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
