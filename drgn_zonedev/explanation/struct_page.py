# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Struct Page, Field by Field
---------------------------

One ``struct page`` in words, next to what is promised for it.

What a field is called depends on what the page is: the word that is ``pgmap`` in
a device page is the compound link of a tail and a list head elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Program, Type, offsetof
from drgn.helpers.linux.mm import decode_page_flags_value

from drgn_zonedev.kernel.kallsyms import symbol_name
from drgn_zonedev.kernel.memmap import PageLayout, Pages
from drgn_zonedev.model import Case, Finding
from drgn_zonedev.verification.deviations import DevicePages, order_is_in_flags, tail_link
from drgn_zonedev.verification.patterns import self_link

__all__ = ("PageField", "PageWords", "decode_page", "flag_names", "zone_name")


@dataclass(frozen=True)
class PageField:
    """
    A field of a ``struct page``: ``size`` bytes at ``offset``, or a part of them.

    ``expected`` is what is promised, in words, or ``None`` where the field belongs
    to whoever uses the page. ``differs`` marks what breaks the promise.
    """

    name: str
    offset: int
    size: int
    value: int
    meaning: str
    expected: str | None = None
    differs: bool = False


@dataclass(frozen=True)
class PageWords:
    """A ``struct page``, raw and decoded."""

    words: tuple[int, ...]
    flags: tuple[str, ...]
    zone: str
    node: int
    refcount: int
    mapcount: int
    contents: str
    fields: tuple[PageField, ...]


def flag_names(prog: Program, flags: int) -> tuple[str, ...]:
    """Get the names of the page flags in a value of ``page->flags``."""
    # drgn decodes "no flags" as "0".
    text = decode_page_flags_value(prog, flags)
    return () if text == "0" else tuple(text.split("|"))


def zone_name(prog: Program, zone: int) -> str:
    """Get the name of a zone by its number in ``enum zone_type``."""
    zones = prog.constant("__MAX_NR_ZONES").type_
    for name, value in zones.enumerators or ():
        if value == zone and name.startswith("ZONE_"):
            return str(name)
    return f"{zone}, which is no zone"


def decode_page(
    prog: Program,
    pages: Pages,
    case: Case | None,
    promise: DevicePages | None,
    findings: Iterable[Finding],
    live: frozenset[int],
) -> tuple[PageField, ...]:
    """
    Decode one struct page.

    :param pages: The page, alone.
    :param case: What the PFN is.
    :param promise: What is promised for it, if it is a device or metadata page.
    :param findings: What is wrong with this very page.
    :param live: All pgmaps in ``pgmap_array``.
    """
    page = _Page(prog, pages, case, promise, live)
    fields = [*_flags_fields(page), _first_word(page), *_other_fields(page)]
    wrong = {key for finding in findings for key in _broken(page, finding)}
    return tuple(
        dataclasses.replace(f, differs=_key(f) in wrong and f.expected is not None)
        for f in sorted(fields, key=lambda f: f.offset)
    )


@dataclass(frozen=True)
class _Page:
    prog: Program
    pages: Pages
    case: Case | None
    promise: DevicePages | None
    live: frozenset[int]

    @property
    def layout(self) -> PageLayout:
        return self.pages.layout

    @property
    def pfn(self) -> int:
        return self.pages.start_pfn

    @property
    def address(self) -> int:
        return self.layout.page_address(self.pfn)

    @cached_property
    def promised_device(self) -> DevicePages | None:
        return self.promise if self.case is Case.DEVICE else None

    @property
    def index(self) -> int:
        """Within the compound page that is promised here."""
        device = self.promised_device
        return (self.pfn - device.first_pfn) % (1 << device.vmemmap_shift) if device else 0

    @property
    def in_compound(self) -> bool:
        device = self.promised_device
        return device is not None and device.vmemmap_shift > 0

    @property
    def is_tail(self) -> bool:
        return bool(self.pages.is_tail[0])

    @property
    def like_device(self) -> bool:
        """Whether its words are best read as those of a device page."""
        if self.case is Case.METADATA:
            return False
        return self.case is Case.DEVICE or int(self.pages.zone[0]) == self.layout.zone_device

    def word(self, offset: int) -> int:
        return int(self.pages.words[0, offset // 8])

    def u32(self, offset: int) -> int:
        return int(self.pages.words.view("<u4")[0, offset // 4])


def _flags_fields(page: _Page) -> Iterator[PageField]:
    prog, layout, pages = page.prog, page.layout, page.pages
    offset, flags = layout.flags_word * 8, int(pages.flags[0])
    bits = prog["__NR_PAGEFLAGS"].value_()
    links = layout.zones_shift + layout.nodes_shift
    names = "|".join(flag_names(prog, flags)) or "no flags"
    yield PageField(
        "page->flags", offset, 8, flags & (1 << bits) - 1, names, expected=_expected_flags(page)
    )
    zone, node = int(pages.zone[0]), int(pages.node[0])
    promised = page.promise is not None
    yield PageField(
        "page_zonenum()",
        offset,
        8,
        zone,
        zone_name(prog, zone),
        expected="ZONE_DEVICE" if promised else None,
    )
    nodes = page.promise.nodes if page.promise else ()
    yield PageField(
        "page_to_nid()",
        offset,
        8,
        node,
        f"node {node}",
        expected=" or ".join(f"node {nid}" for nid in nodes) or None,
    )
    rest = flags >> bits & (1 << 64 - links - bits) - 1
    yield PageField(
        f"page->flags >> {bits}", offset, 8, rest, "last CPU and PID, LRU generation, KASAN tag"
    )


def _expected_flags(page: _Page) -> str | None:
    if page.promise is None:
        return None
    device = page.promised_device
    if device is None or device.folios:
        return "PG_reserved"
    if not page.in_compound:
        return "PG_reserved, not PG_head"
    if page.index == 0:
        return "PG_reserved and PG_head"
    if page.index == 1 and order_is_in_flags(page.layout):
        return "PG_reserved; the low byte is the order"
    return "PG_reserved, not PG_head"


def _first_word(page: _Page) -> PageField:
    # page->pgmap, the compound link, and lru.next are one word in all kernels.
    layout = page.layout
    offset = layout.pgmap_word * 8
    value, expected = page.word(offset), _expected_first_word(page)
    if page.is_tail:
        name = _compound_name(page.prog)
        return PageField(name, offset, 8, value, _link_text(page), expected)
    if page.like_device:
        name = "folio->pgmap" if layout.pgmap_in_folio else "page->pgmap"
        meaning = "a pgmap" if value in page.live else _pgmap_text(page, value)
        return PageField(name, offset, 8, value, meaning, expected)
    return PageField("page->lru.next", offset, 8, value, _list_text(page, value), expected)


def _pgmap_text(page: _Page, value: int) -> str:
    if value >> 63:
        return f"{_list_text(page, value)}, which is not in pgmap_array"
    return _list_text(page, value)


def _expected_first_word(page: _Page) -> str | None:
    device = page.promised_device
    if page.case is Case.METADATA:
        return f"{int(self_link(page.pages)[0]):#x}, itself"
    if device is None:
        return None
    if page.in_compound and page.index:
        head = page.pfn - page.index
        address = np.array([page.layout.page_address(head)], np.uint64)
        link = int(tail_link(page.layout, address, device.vmemmap_shift)[0])
        return f"{link:#x}, tail of PFN {head:#x}"
    if device.folios:
        return f"{device.pgmap:#x}, or a link to a head that has it"
    return f"{device.pgmap:#x}"


def _compound_name(prog: Program) -> str:
    page = prog.type("struct page")
    member = "compound_info" if page.has_member("compound_info") else "compound_head"
    return f"page->{member}"


def _link_text(page: _Page) -> str:
    layout, head = page.layout, int(page.pages.head[0])
    pfn, misaligned = divmod(head - layout.vmemmap, layout.size)
    how = "mask for a tail" if layout.compound_mask else "tail"
    if misaligned or pfn < 0:
        return f"{how}, but {head:#x} is no struct page"
    return f"{how} of PFN {pfn:#x}"


def _pointer_text(prog: Program, value: int) -> str:
    if not value:
        return "NULL"
    name = symbol_name(prog, value)
    return name or ("a pointer" if value >> 63 else "no kernel address")


def _list_text(page: _Page, value: int) -> str:
    if value == int(self_link(page.pages)[0]):
        return "itself: an empty list"
    return _pointer_text(page.prog, value)


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
        elif offset == layout.lru_offset + 8 and not page.is_tail and not page.like_device:
            value = page.word(offset)
            expected = None
            if page.case is Case.METADATA:
                expected = f"{int(self_link(page.pages)[0]):#x}, itself"
            yield PageField("page->lru.prev", offset, 8, value, _list_text(page, value), expected)
        else:
            yield _plain_field(page, offset)
    if page.is_tail and page.index == 1 and layout.order_offset is not None:
        yield _order_field(page, layout.order_offset)


def _order_field(page: _Page, offset: int) -> PageField:
    order = page.word(offset) >> offset % 8 * 8 & 0xFF
    device = page.promised_device
    expected = f"order {device.vmemmap_shift}" if device else None
    return PageField("compound_order()", offset, 1, order, f"order {order}", expected)


def _mapcount_field(page: _Page) -> PageField:
    offset = page.layout.mapcount_offset
    value, count = page.u32(offset), int(page.pages.mapcount[0])
    if count == -1:
        meaning = "mapped by nobody"
    elif count >= 0:
        meaning = f"mapped {count + 1} times" if count else "mapped once"
    else:
        meaning = "a page type" if count < -128 else f"{count}, which is no count"
    expected = "-1 or more, or a page type" if page.promised_device else None
    return PageField("page->_mapcount", offset, 4, value, meaning, expected)


def _refcount_field(page: _Page) -> PageField:
    offset, count = page.layout.refcount_offset, int(page.pages.refcount[0])
    meaning = f"{count} reference{'' if count == 1 else 's'}"
    return PageField(
        "page->_refcount", offset, 4, page.u32(offset), meaning, _expected_refcount(page)
    )


def _expected_refcount(page: _Page) -> str | None:
    device = page.promised_device
    if device is None:
        return "1 or more" if page.case is Case.METADATA else None
    if page.in_compound and page.index:
        return "0: tails have none"
    return f"{device.fewest_references} or more"


def _mapping_field(page: _Page) -> PageField:
    layout = page.layout
    offset = layout.mapping_word * 8
    value, expected = page.word(offset), None
    if page.in_compound and page.index >= layout.folio_pages and layout.tail_mapping is not None:
        expected = f"{layout.tail_mapping:#x}, TAIL_MAPPING"
    if layout.tail_mapping is not None and value == layout.tail_mapping:
        meaning = "TAIL_MAPPING"
    else:
        meaning = _pointer_text(page.prog, value)
    return PageField("page->mapping", offset, 8, value, meaning, expected)


# What a word is called if nothing better is known of it: the first of these that
# struct page has at its offset.
_PLAIN = ("zone_device_data", "index", "__folio_index", "private", "memcg_data", "mem_cgroup")


def _plain_field(page: _Page, offset: int) -> PageField:
    type_ = page.prog.type("struct page")
    name = next((m for m in _PLAIN if _is_at(page, type_, m, offset)), None)
    value = page.word(offset)
    if page.is_tail:
        # struct folio lies over the first few; what is in them is for its helpers.
        meaning = "part of a folio" if value else "0"
    else:
        meaning = _pointer_text(page.prog, value) if value >> 63 else f"{value}"
    return PageField(f"page->{name}" if name else f"+{offset:#x}", offset, 8, value, meaning)


def _is_at(page: _Page, type_: Type, member: str, offset: int) -> bool:
    if member == "zone_device_data" and not page.like_device:
        return False
    return type_.has_member(member) and offsetof(type_, member) == offset


def _key(field: PageField) -> tuple[str, int]:
    named = {"page_zonenum()": "zone", "page_to_nid()": "node", "compound_order()": "order"}
    if field.name.startswith("page->flags >>"):
        return "rest", field.offset
    return named.get(field.name, "word"), field.offset


def _broken(page: _Page, finding: Finding) -> Iterator[tuple[str, int]]:
    # The fields that a deviation is about, by its slug and the address of its word.
    if not finding.evidence or finding.evidence[0].address is None:
        return
    flags = page.layout.flags_word * 8
    if finding.slug.endswith("-uninitialized"):
        device = page.layout.zone_device
        yield from [("zone", flags)] if int(page.pages.zone[0]) != device else []
        nodes = page.promise.nodes if page.promise else ()
        yield from [("node", flags)] if nodes and int(page.pages.node[0]) not in nodes else []
        yield from _wrong_links(page)
        return
    for suffix in ("zone", "node", "order"):
        if finding.slug.endswith(f"-{suffix}"):
            yield suffix, finding.evidence[0].address - page.address
            return
    yield "word", finding.evidence[0].address - page.address


def _wrong_links(page: _Page) -> Iterator[tuple[str, int]]:
    offset = page.layout.pgmap_word * 8
    if page.case is not Case.METADATA:
        yield "word", offset
        return
    itself = int(self_link(page.pages)[0])
    for link in (page.layout.lru_offset, page.layout.lru_offset + 8):
        if page.word(link) != itself:
            yield "word", link
