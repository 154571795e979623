# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pageblocks
----------

The ``drgn_zonedev.kernel.pageblock`` module reads the migratetypes that the page
allocator keeps for each pageblock in ``mem_section_usage.pageblock_flags``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import Architecture, FaultError, Program, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
from drgn_zonedev.kernel.sections import Sections
from drgn_zonedev.vmcore.reads import read_memory

__all__ = (
    "PageblockLayout",
    "max_order_nr_pages",
    "pageblock_layout",
    "pageblock_nr_pages",
    "present_migratetypes",
    "section_migratetypes",
)

# PB_migratetype_bits: a macro. Since "mm/pageblock-flags: remove
# PB_migratetype_bits/PB_migrate_end" (in v6.18), only the enumerators PB_migrate_0 to
# PB_migrate_2 imply it.
_MIGRATETYPE_BITS = 3

# No block of pages is larger than the largest section: 1 TiB, in pages of 4 KiB.
_MOST_ORDERS = 28

_WORD = 8
# PMD_SHIFT in arch/x86/include/asm/pgtable_64_types.h, arch/arm64/include/asm/pgtable-hwdef.h,
# arch/riscv/include/asm/pgtable-64.h and arch/loongarch/include/asm/pgtable.h.
_TABLES_FILL_PAGES = (
    Architecture.X86_64,
    Architecture.AARCH64,
    Architecture.RISCV64,
    Architecture.LOONGARCH64,
)


@dataclass(frozen=True)
class PageblockLayout:
    """Layout of ``pageblock_flags``: ``bits`` per pageblock of ``pages`` pages."""

    bits: int
    pages: int
    movable: int


@takes_program_or_default
def pageblock_layout(prog: Program, sections: Sections) -> PageblockLayout | None:
    """
    Get the layout of ``pageblock_flags``.

    :return: ``None`` if the size of a pageblock is not known: see :func:`pageblock_nr_pages()`.
    """
    pages = pageblock_nr_pages(prog, sections)
    if pages is None:
        return None
    try:
        movable = prog.constant("MIGRATE_MOVABLE").value_()
        return PageblockLayout(bits=_bits(prog), pages=pages, movable=movable)
    except LookupError:
        return None


@takes_program_or_default
def pageblock_nr_pages(prog: Program, sections: Sections) -> int | None:
    """
    ``pageblock_nr_pages`` of ``include/linux/pageblock-flags.h``, a macro: the pages of the
    hugepage that a PMD maps, but at most those of the largest free block, and since Linux kernel
    commit e13e7922d034 ("mm: add CONFIG_PAGE_BLOCK_ORDER to select page block order") (in
    v6.16) at most what is configured. How much room boot made for the flags of each section says
    whether that is so.

    :return: ``None`` if it is not known.
    """
    # A variable with CONFIG_HUGETLB_PAGE_SIZE_VARIABLE, which powerpc has.
    try:
        order = int(prog["pageblock_order"].value_())
        return 1 << order if 0 < order < _MOST_ORDERS else None
    except LookupError:
        pass
    usual = _usual_pages(prog)
    room = _room_for_flags(prog, sections)
    if room is None or (usual is not None and _room(prog, usual) == room):
        return usual
    # Few flags fit into the same word, whatever a pageblock is.
    pages = sparsemem_geometry(prog).pages_per_section * _bits(prog) // (8 * room)
    return pages if room > _WORD and pages else None


def _usual_pages(prog: Program) -> int | None:
    # PMD_SHIFT is PAGE_SHIFT + PAGE_SHIFT - 3 where tables fill a page and entries have 8 bytes.
    assert prog.platform is not None
    if prog.platform.arch not in _TABLES_FILL_PAGES:
        return None
    pages = 1 << (sparsemem_geometry(prog).page_shift - 3)
    return min(pages, max_order_nr_pages(prog) or pages)


def _room(prog: Program, pages: int) -> int:
    # usemap_size(): whole words.
    blocks = sparsemem_geometry(prog).pages_per_section // pages
    return -(-blocks * _bits(prog) // (8 * _WORD)) * _WORD


def _room_for_flags(prog: Program, sections: Sections) -> int | None:
    # sparse_init_nid() lays the usages of a node's sections one after the other.
    try:
        early = np.uint64(section_flags(prog).early)
        offset = offsetof(prog.type("struct mem_section_usage"), "pageblock_flags")
        bits = _bits(prog)
    except LookupError:
        return None
    rows = np.flatnonzero((sections.word & early) != 0)
    distance = np.diff(sections.usage[rows].astype(np.int64))
    room = distance[np.diff(sections.nr[rows]) == 1] - offset
    most = sparsemem_geometry(prog).pages_per_section * bits // 8
    room = room[(room >= _WORD) & (room <= most) & (room & (room - 1) == 0)]
    if not len(room):
        return None
    sizes, counts = np.unique(room, return_counts=True)
    return int(sizes[counts.argmax()])


@takes_program_or_default
def max_order_nr_pages(prog: Program) -> int | None:
    """
    ``MAX_ORDER_NR_PAGES``, a macro: the pages of a block of the largest order in
    ``zone->free_area``.

    :return: ``None`` if the debugging information does not have ``free_area``; on x86-64,
        where the order cannot be configured, it is known anyway.
    """
    zone = prog.type("struct zone")
    if zone.has_member("free_area"):
        orders = zone.member("free_area").type.length
        if orders is not None and 0 < orders <= _MOST_ORDERS:
            return 1 << (orders - 1)
    assert prog.platform is not None
    # arch/x86/Kconfig sets no ARCH_FORCE_MAX_ORDER (FORCE_MAX_ZONEORDER up to v6.1).
    return 1 << 10 if prog.platform.arch == Architecture.X86_64 else None


def _bits(prog: Program) -> int:
    # The enumerator became __NR_PAGEBLOCK_BITS, and NR_PAGEBLOCK_BITS a macro that
    # rounds it up, in Linux kernel commit 42f46ed99ac6 ("mm/page_alloc: pageblock flags
    # functions clean up") (in v6.17).
    try:
        count = int(prog.constant("__NR_PAGEBLOCK_BITS").value_())
    except LookupError:
        return int(prog.constant("NR_PAGEBLOCK_BITS").value_())
    return 1 << (count - 1).bit_length()


@takes_program_or_default
def section_migratetypes(prog: Program, usage: int, layout: PageblockLayout) -> np.ndarray | None:
    """
    Get the migratetype of each pageblock of a section, that it has had before it was isolated if
    the kernel keeps that.

    :param usage: Address of the ``struct mem_section_usage``.
    :return: ``None`` if it cannot be read.
    """
    bits = _section_bits(prog, usage, layout)
    return None if bits is None else _kept(bits)


@takes_program_or_default
def present_migratetypes(prog: Program, usage: int, layout: PageblockLayout) -> np.ndarray | None:
    """
    Get the migratetype of each pageblock of a section, as ``get_pageblock_migratetype()`` does:
    ``MIGRATE_ISOLATE`` while it is isolated.

    :param usage: Address of the ``struct mem_section_usage``.
    :return: ``None`` if it cannot be read.
    """
    bits = _section_bits(prog, usage, layout)
    if bits is None:
        return None
    types = _kept(bits)
    try:
        # Since "mm/page_isolation: make page isolation a standalone bit" (in v6.17).
        isolated = int(prog.constant("PB_migrate_isolate").value_())
        types[bits[:, isolated] != 0] = int(prog.constant("MIGRATE_ISOLATE").value_())
    except LookupError:
        pass
    return types


def _kept(bits: np.ndarray) -> np.ndarray:
    weights = 1 << np.arange(_MIGRATETYPE_BITS)
    types: np.ndarray = (bits[:, :_MIGRATETYPE_BITS] * weights).sum(axis=1)
    return types


def _section_bits(prog: Program, usage: int, layout: PageblockLayout) -> np.ndarray | None:
    # A row of bits for each pageblock.
    blocks = sparsemem_geometry(prog).pages_per_section // layout.pages
    offset = offsetof(prog.type("struct mem_section_usage"), "pageblock_flags")
    try:
        raw = read_memory(prog, usage + offset, blocks * layout.bits // 8)
    except FaultError:
        return None
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return bits.reshape(blocks, -1)
