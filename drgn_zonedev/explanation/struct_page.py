# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Struct Page, Field by Field
---------------------------

Decodes one ``struct page`` into fields, and compares each with its promise.

The name of a field depends on the page: the same word is ``pgmap`` in a device page, the
compound link in a tail, and a list head in others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drgn import Program, Type, offsetof

from drgn_zonedev.kernel.kallsyms import symbol_name
from drgn_zonedev.kernel.memmap import PageLayout, Pages, read_pages
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.page_flags import PageUse, flag_names, page_use
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.model import Case
from drgn_zonedev.pfn_walkers.zone_lookup import false_zones
from drgn_zonedev.verification.deviations import Compared, compare_page
from drgn_zonedev.verification.patterns import self_link
from drgn_zonedev.verification.promises import Area, Promise, area_of, order_is_in_flags
from drgn_zonedev.verification.rule import Bits

__all__ = ("PageField", "PageWords", "decode_page", "zone_name")


@dataclass(frozen=True)
class PageField:
    """
    A field of a ``struct page``: ``mask`` of the ``size`` bytes at ``offset``.

    ``expected`` is the promised value in words, or ``None`` if the user of the page owns the
    field. ``differs`` is whether the value breaks the promise.
    """

    name: str
    offset: int
    size: int
    value: int
    meaning: str
    expected: str | None = None
    differs: bool = False
    mask: int = (1 << 64) - 1

    @property
    def bits(self) -> Bits:
        """Address of the field."""
        return Bits(self.offset, self.size, self.mask & (1 << 8 * self.size) - 1)


@dataclass(frozen=True)
class PageWords:
    """
    A ``struct page``, raw and decoded. ``false_zone``: its zone or node does not exist.
    ``poisoned``: its memory is poisoned (PG_hwpoison). ``page_type``: its type, if it has one.
    """

    words: tuple[int, ...]
    flags: tuple[str, ...]
    zone: str
    node: int
    refcount: int
    mapcount: int
    contents: str
    fields: tuple[PageField, ...]
    false_zone: bool
    poisoned: bool
    page_type: str | None


def zone_name(prog: Program, zone: int) -> str:
    """Get the name of a zone by its number in ``enum zone_type``."""
    for name, value in prog.constant("__MAX_NR_ZONES").type_.enumerators or ():
        if value == zone and name.startswith("ZONE_"):
            return str(name)
    return f"{zone}, not a zone"


def decode_page(
    prog: Program,
    pages: Pages,
    case: Case | None,
    promise: Promise | None,
    live: frozenset[int],
    contents: str,
) -> PageWords:
    """
    Decode one struct page, and compare it with its promise.

    :param pages: Only this page.
    :param case: Case of the PFN.
    :param promise: Promised contents, if any.
    :param live: Addresses of all pgmaps in ``pgmap_array``.
    :param contents: Description of the actual contents.
    """
    area = area_of(pages.layout, promise, pages.start_pfn) if promise else None
    page = _Page(prog, pages, _head_of(prog, pages), case, area, live)
    fields = [*_flags_fields(page), _first_word(page), *_other_fields(page)]
    compared = list(compare_page(prog, pages, promise)) if promise else []
    return PageWords(
        words=tuple(pages.words[0].tolist()),
        flags=flag_names(prog, page.flags, page.use),
        zone=zone_name(prog, int(pages.zone[0])),
        node=int(pages.node[0]),
        refcount=int(pages.refcount[0]),
        mapcount=int(pages.mapcount[0]),
        contents=contents,
        fields=tuple(sorted(_next_to_rules(fields, compared), key=lambda f: f.offset)),
        false_zone=bool(false_zones(prog, pages)[0][0]),
        poisoned=_is_poisoned(page),
        page_type=None if page.is_tail else page_types(prog).of(pages),
    )


def _is_poisoned(page: _Page) -> bool:
    # PageHWPoison(). In hugetlb pages (is_page_hwpoison()) and compound pages of devices, the head
    # has the flag, and nothing shows which page is meant.
    try:
        bit = 1 << page.prog.constant("PG_hwpoison").value_()
    except LookupError:
        return False
    own, head = page.flags, 0 if page.head is None else int(page.head.flags[0])
    return bool((own | head) & bit)


def _head_of(prog: Program, pages: Pages) -> Pages | None:
    # The head of a tail, or else the page itself; None if the link of a tail is not a page.
    if not pages.is_tail[0]:
        return pages
    layout = pages.layout
    pfn, misaligned = divmod(int(pages.head[0]) - layout.vmemmap, layout.size)
    if misaligned or not 0 <= pfn < sparsemem_geometry(prog).max_pfn:
        return None
    head = next(read_pages(prog, pfn, pfn + 1))
    return head if isinstance(head, Pages) else None


def _next_to_rules(
    fields: Sequence[PageField], compared: Sequence[Compared]
) -> Iterator[PageField]:
    owners = [_owner(fields, c.bits) for c in compared]
    for f in fields:
        own = [c for c, owner in zip(compared, owners) if owner is f]
        differs = any(c.broken for c in own)
        yield dataclasses.replace(f, expected=_promised(own) or None, differs=differs)


def _owner(fields: Sequence[PageField], bits: Bits) -> PageField:
    # A rule is about the smallest field that has all its bits, or the first one that has some.
    if whole := [f for f in fields if bits.within(f.bits)]:
        return min(whole, key=lambda f: bin(f.bits.mask).count("1"))
    wanted = bits.in_word(bits.mask)
    return next(
        f
        for f in fields
        if f.offset // 8 == bits.offset // 8 and f.bits.in_word(f.bits.mask) & wanted
    )


def _promised(own: Sequence[Compared]) -> str:
    # Only flags have several rules: "PG_reserved and PG_head", "PG_reserved, not PG_head".
    wanted = " and ".join(c.promised for c in own if c.rule.value != 0 or not c.rule.word.flag)
    unwanted = [c.promised for c in own if c.rule.value == 0 and c.rule.word.flag]
    return ", ".join(filter(None, [wanted, *unwanted]))


@dataclass(frozen=True)
class _Page:
    """
    A struct page. ``area`` is the kind of page that it is promised to be, if any; ``head`` is
    its head, if known.
    """

    prog: Program
    pages: Pages
    head: Pages | None
    case: Case | None
    area: Area | None
    live: frozenset[int]

    @property
    def layout(self) -> PageLayout:
        return self.pages.layout

    @property
    def is_tail(self) -> bool:
        return bool(self.pages.is_tail[0])

    @property
    def is_first_tail(self) -> bool:
        """Whether it has the order and flags of a folio, by its promise or by its head."""
        # Drivers build folios out of base pages.
        if self.area not in (None, Area.BASE):
            return self.area is Area.FIRST_TAIL
        head = self.head
        if head is None or head.start_pfn + 1 != self.pages.start_pfn or not self.is_tail:
            return False
        return bool(int(head.flags[0]) & self.layout.pg_head)

    @property
    def use(self) -> PageUse:
        """The use of the page, which decides the names of its flags."""
        if self.is_first_tail:
            return PageUse.FIRST_TAIL
        return page_use(self.prog, self.head) if self.head else PageUse.UNKNOWN

    @property
    def flag_mask(self) -> int:
        """Mask of the flags in ``page->flags``. In a first tail, the other bits are the order."""
        flags = (1 << self.prog["__NR_PAGEFLAGS"].value_()) - 1
        order = 0xFF if self.is_first_tail and order_is_in_flags(self.layout) else 0
        return flags & ~order

    @property
    def flags(self) -> int:
        """The flags, without zone, node and other fields."""
        return int(self.pages.flags[0]) & self.flag_mask

    @property
    def like_device(self) -> bool:
        """Whether to decode its words as those of a device page."""
        if self.case is Case.METADATA:
            return False
        return self.case is Case.DEVICE or int(self.pages.zone[0]) == self.layout.zone_device

    @property
    def has_list(self) -> bool:
        """Whether ``page->lru`` is a list head, even if a broken one looks like a tail's link."""
        return self.case is Case.METADATA or not (self.is_tail or self.like_device)

    def word(self, offset: int) -> int:
        return int(self.pages.words[0, offset // 8])

    def u32(self, offset: int) -> int:
        return int(self.pages.words.view("<u4")[0, offset // 4])


def _flags_fields(page: _Page) -> Iterator[PageField]:
    prog, layout, pages = page.prog, page.layout, page.pages
    offset, flags = layout.flags_word * 8, int(pages.flags[0])
    bits, links = prog["__NR_PAGEFLAGS"].value_(), layout.zones_shift + layout.nodes_shift
    low = (1 << bits) - 1
    yield PageField("page->flags", offset, 8, page.flags, _flags_text(page), mask=page.flag_mask)
    zone, mask = int(pages.zone[0]), layout.zone_mask << 64 - links
    yield PageField("page_zonenum()", offset, 8, zone, zone_name(prog, zone), mask=mask)
    node, mask = int(pages.node[0]), (1 << layout.nodes_shift) - 1 << 64 - layout.nodes_shift
    yield PageField("page_to_nid()", offset, 8, node, f"node {node}", mask=mask)
    mask = (1 << 64 - links) - 1 & ~low
    rest = "last CPU and PID, LRU generation, KASAN tag"
    yield PageField(f"page->flags >> {bits}", offset, 8, (flags & mask) >> bits, rest, mask=mask)


def _flags_text(page: _Page) -> str:
    fill = _fill_text(int(page.pages.flags[0]), 8)
    return fill or "|".join(flag_names(page.prog, page.flags, page.use)) or "no flags"


def _first_word(page: _Page) -> PageField:
    # page->pgmap, the compound link, and lru.next are one word in all kernels.
    layout = page.layout
    offset = layout.pgmap_word * 8
    value = page.word(offset)
    if page.is_tail:
        meaning = _fill_text(value, 8) or _link_text(page)
        return PageField(_compound_name(page.prog), offset, 8, value, meaning)
    if page.like_device:
        name = "folio->pgmap" if layout.pgmap_in_folio else "page->pgmap"
        meaning = "a pgmap" if value in page.live else _pgmap_text(page, value)
        return PageField(name, offset, 8, value, meaning)
    return PageField("page->lru.next", offset, 8, value, _list_text(page, value))


def _pgmap_text(page: _Page, value: int) -> str:
    text = _list_text(page, value)
    is_address = value >> 63 and not (_fill_text(value, 8) or _poison_text(page.layout, value))
    return f"{text}, which is not in pgmap_array" if is_address else text


def _compound_name(prog: Program) -> str:
    page = prog.type("struct page")
    member = "compound_info" if page.has_member("compound_info") else "compound_head"
    return f"page->{member}"


def _link_text(page: _Page) -> str:
    layout, head = page.layout, int(page.pages.head[0])
    pfn, misaligned = divmod(head - layout.vmemmap, layout.size)
    how = "mask for a tail" if layout.compound_mask else "tail"
    if misaligned or pfn < 0:
        return f"{how}, but {head:#x} is not a struct page"
    return f"{how} of PFN {pfn:#x}"


# Fill patterns of memory, by byte: see include/linux/poison.h and page-flags.h, and PAGE_UNUSED
# in arch/x86/mm/init_64.c.
_FILLS = {
    0xFF: "all ones, as PAGE_POISON_PATTERN",
    0xFD: "0xfd in each byte, as PAGE_UNUSED",
    0xAA: "0xaa in each byte, as PAGE_POISON",
}

# Poisoned pointers, by their offset from POISON_POINTER_DELTA.
_POISONS = {
    0x40: "PP_SIGNATURE: of a page pool",
    0x100: "LIST_POISON1: taken off its list",
    0x122: "LIST_POISON2: taken off its list",
    0x400: "TAIL_MAPPING",
}


def _fill_text(value: int, size: int) -> str | None:
    byte = value & 0xFF
    return _FILLS.get(byte) if value == int.from_bytes(bytes([byte]) * size, "little") else None


def _poison_text(layout: PageLayout, value: int) -> str | None:
    delta = layout.pointer_delta
    return None if delta is None else _POISONS.get(value - delta)


def _pointer_text(page: _Page, value: int) -> str:
    if not value:
        return "NULL"
    known = _fill_text(value, 8) or _poison_text(page.layout, value)
    known = known or symbol_name(page.prog, value)
    return known or ("a pointer" if value >> 63 else "not a kernel address")


def _list_text(page: _Page, value: int) -> str:
    if value == int(self_link(page.pages)[0]):
        return "itself: an empty list"
    return _pointer_text(page, value)


def _other_fields(page: _Page) -> Iterator[PageField]:
    layout = page.layout
    taken = {layout.flags_word * 8, layout.pgmap_word * 8}
    counts = layout.mapcount_offset & ~7
    for offset in range(0, layout.size, 8):
        if offset in taken:
            continue
        if offset == counts:
            yield _mapcount_field(page)
            yield _refcount_field(page)
        elif offset == layout.mapping_word * 8:
            yield _mapping_field(page)
        elif offset == layout.lru_offset + 8 and page.has_list:
            value = page.word(offset)
            yield PageField("page->lru.prev", offset, 8, value, _list_text(page, value))
        else:
            yield _plain_field(page, offset)
    if page.is_first_tail and layout.order_offset is not None:
        yield _order_field(page, layout.order_offset)


def _order_field(page: _Page, offset: int) -> PageField:
    order = page.word(offset) >> offset % 8 * 8 & 0xFF
    return PageField("compound_order()", offset, 1, order, f"order {order}")


def _mapcount_field(page: _Page) -> PageField:
    offset = page.layout.mapcount_offset
    value = page.u32(offset)
    return PageField("page->_mapcount", offset, 4, value, _mapcount_text(page, value))


def _mapcount_text(page: _Page, value: int) -> str:
    count, types = int(page.pages.mapcount[0]), page_types(page.prog)
    if count == -1:
        return "not mapped"
    if count >= 0:
        return f"mapped {count + 1} times" if count else "mapped once"
    fill, name = _fill_text(value, 4), types.of(page.pages)
    if fill or name:
        return fill or f"page type: {name}"
    return "a page type" if types.has_any(page.pages)[0] else f"{count}, not a valid count"


def _refcount_field(page: _Page) -> PageField:
    offset, count = page.layout.refcount_offset, int(page.pages.refcount[0])
    value = page.u32(offset)
    if count < 0:
        meaning = _fill_text(value, 4) or f"{count}, not a valid count"
    else:
        meaning = f"{count} reference{'' if count == 1 else 's'}"
    return PageField("page->_refcount", offset, 4, value, meaning)


def _mapping_field(page: _Page) -> PageField:
    offset = page.layout.mapping_word * 8
    value = page.word(offset)
    return PageField("page->mapping", offset, 8, value, _pointer_text(page, value))


# Fallback names of a word: the first of these members that struct page has at its offset.
_PLAIN = ("zone_device_data", "index", "__folio_index", "private", "memcg_data", "mem_cgroup")


def _plain_field(page: _Page, offset: int) -> PageField:
    type_ = page.prog.type("struct page")
    name = next((m for m in _PLAIN if _is_at(page, type_, m, offset)), None)
    value = page.word(offset)
    if page.is_tail:
        # struct folio overlays the first tails; do not decode its members here. Two counts of
        # -1 are all ones.
        fill = None if value == (1 << 64) - 1 else _fill_text(value, 8)
        meaning = fill or ("part of a folio" if value else "0")
    else:
        meaning = _pointer_text(page, value) if value >> 63 else f"{value}"
    return PageField(f"page->{name}" if name else f"+{offset:#x}", offset, 8, value, meaning)


def _is_at(page: _Page, type_: Type, member: str, offset: int) -> bool:
    if member == "zone_device_data" and not page.like_device:
        return False
    return type_.has_member(member) and offsetof(type_, member) == offset
