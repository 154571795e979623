# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Pages
--------------

What a page frame is used for, and which words of its struct page decide that, as plain data:
other processes need no debugging symbols.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from drgn import Program, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.page_kinds import PageKinds, flag_mask, kinds_of_ram
from drgn_zonedev.kernel.page_types import PageType, page_types

__all__ = ("PAGE_KINDS", "KindWords", "PageKind", "kind_words")


class PageKind(enum.Enum):
    """Kinds, in the order of precedence: a page is of the first kind that it fits."""

    NOT_IN_DUMP = "not-in-dump"
    """The struct page cannot be read, although the kernel has it."""
    UNMAPPED = "unmapped"
    """The kernel has no struct page: the subsection is not populated."""
    UNINITIALISED = "uninitialised"
    """Cases 3, 4 and 5, and others in which nothing promises an initialised struct page."""
    OFFLINE_SECTION = "offline-section"
    DEVICE = "device"
    METADATA = "metadata"
    """Set aside for struct pages: by an altmap, or at the head of a memory block."""
    VMEMMAP = "vmemmap"
    """Holds struct pages, as the page tables say."""
    SELF_HOSTED_VMEMMAP = "self-hosted-vmemmap"
    FREE = "free"
    """In a block of the buddy allocator."""
    PCP_FREE = "pcp-free"
    """On the list of free pages of a CPU."""
    UNACCEPTED = "unaccepted"
    OFFLINE = "offline"
    """``PageOffline()``"""
    HWPOISON = "hwpoison"
    RESERVED = "reserved"
    SLAB = "slab"
    PAGE_TABLE = "page-table"
    HUGETLB = "hugetlb"
    THP = "thp"
    """Large folios of user memory or of the page cache, of whatever order."""
    ANON = "anon"
    FILE = "file"
    SHMEM = "shmem"
    KSM = "ksm"
    ZERO = "zero"
    KERNEL = "kernel"
    """None of the others."""

    @property
    def code(self) -> int:
        """Its place in the order of precedence: what arrays have."""
        return _CODES[self]


PAGE_KINDS = tuple(PageKind)
_CODES = {kind: code for code, kind in enumerate(PAGE_KINDS)}


@dataclass(frozen=True)
class TailMark:
    """A hugetlb page if ``mask`` of the byte at ``offset`` of its first tail is ``value``."""

    offset: int
    mask: int
    value: int


@dataclass(frozen=True)
class KindWords:
    """
    Which words of a struct page decide its kind. Flags are masks of ``page->flags``, and 0 in a
    kernel that does not have them; ``rmappable`` is one of the first tail. Page types are
    ``None`` likewise. ``slab_cache_word`` is the index of ``slab->slab_cache``, and ``shmem`` the
    address of ``shmem_aops``, which ``a_ops`` (an offset in bytes) of a mapping has.
    ``end_of_types`` is the least ``_mapcount`` that is not a page type.
    """

    layout: PageLayout
    ram: PageKinds
    page_size: int
    hwpoison: int
    swapcache: int
    self_hosted: int
    rmappable: int
    huge_mark: TailMark | None
    offline: PageType | None
    table: PageType | None
    slab: PageType | None
    unaccepted: PageType | None
    slab_cache_word: int | None
    a_ops: int | None
    shmem: int | None


@takes_program_or_default
def kind_words(prog: Program) -> KindWords:
    """
    Get the words that decide the kinds of this kernel's pages.

    :raises LookupError: if the debugging information does not have ``enum pageflags``
    """
    types = page_types(prog).by_name
    return KindWords(
        layout=page_layout(prog),
        ram=kinds_of_ram(prog),
        page_size=int(prog["PAGE_SIZE"].value_()),
        hwpoison=flag_mask(prog, "PG_hwpoison"),
        swapcache=flag_mask(prog, "PG_swapcache"),
        self_hosted=flag_mask(prog, "PG_vmemmap_self_hosted"),
        rmappable=flag_mask(prog, "PG_large_rmappable"),
        huge_mark=_huge_mark(prog),
        offline=types.get("offline"),
        table=types.get("table"),
        slab=types.get("slab"),
        unaccepted=types.get("unaccepted"),
        slab_cache_word=_slab_cache_word(prog),
        a_ops=_a_ops(prog),
        shmem=_shmem_aops(prog),
    )


def _huge_mark(prog: Program) -> TailMark | None:
    # See CompoundPages.is_hugetlb.
    page = prog.type("struct page")
    try:
        value = int(prog.constant("HUGETLB_PAGE_DTOR").value_())
    except LookupError:
        flag = flag_mask(prog, "PG_hugetlb")
        bit = flag.bit_length() - 1
        mark = TailMark(offsetof(page, "flags") + bit // 8, 1 << bit % 8, 1 << bit % 8)
        return mark if flag else None
    if page.has_member("compound_dtor"):
        return TailMark(offsetof(page, "compound_dtor"), 0xFF, value)
    offset = offsetof(prog.type("struct folio"), "_folio_dtor") - sizeof(page)
    return TailMark(offset, 0xFF, value)


def _slab_cache_word(prog: Program) -> int | None:
    # struct slab since Linux kernel commit d122019bf061 ("mm: Split slab into its own type")
    # (in v5.17).
    for name in ("struct slab", "struct page"):
        try:
            type_ = prog.type(name)
            return offsetof(type_, "slab_cache") // 8
        except LookupError:
            continue
    return None


def _a_ops(prog: Program) -> int | None:
    try:
        return offsetof(prog.type("struct address_space"), "a_ops")
    except LookupError:
        return None


def _shmem_aops(prog: Program) -> int | None:
    try:
        return int(prog["shmem_aops"].address_of_().value_())
    except LookupError:
        return None
