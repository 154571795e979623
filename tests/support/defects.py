# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Single defects for any program, a fake kernel or a dump.

A defect is a word that is read as something else: a memory segment is laid over
the program's memory, so nothing is ever written. What must be found follows from
what the kernel writes (fakekernel.layouts has the numbers), not from the tool.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drgn import Object, Program, offsetof
from drgn.helpers.linux.mmzone import nr_to_section
from support.fakekernel.layouts import TABLES, Layout

SECTION_PAGES, SUBSECTION_PAGES = 0x8000, 512
ZONE_SHIFT, NODE_SHIFT, ZONE_DEVICE = 51, 54, 4
WORD, ALL_ONES = 1 << 64, (1 << 64) - 1
DANGLING = 0xFFFF8880DEADBE00
# Where drivers build folios, since v6.15.
FOLIO_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")

# (slug, first PFN, end)
Spot = tuple[str, int, int]


@dataclass(frozen=True)
class Change:
    """One 64-bit word that reads as another one."""

    address: int
    after: int


@dataclass(frozen=True)
class Defect:
    """Words that changed, and everything that must be found because of it."""

    what: str
    changes: tuple[Change, ...]
    expected: frozenset[Spot]


class Overlay:
    """Lays changed words over a program's memory, and takes them away again."""

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self._words: dict[int, bytes] = {}

    @contextlib.contextmanager
    def injected(self, defect: Defect) -> Iterator[None]:
        before = {c.address: self.prog.read(c.address, 8) for c in defect.changes}
        for change in defect.changes:
            self._put(change.address, (change.after % WORD).to_bytes(8, "little"))
        try:
            yield
        finally:
            # Segments cannot be removed, but they can say what was there.
            self._words.update(before)

    def _put(self, address: int, word: bytes) -> None:
        known = address in self._words
        self._words[address] = word
        if not known:
            self.prog.add_memory_segment(address, 8, self._read, False)

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return self._words[address - offset][offset : offset + count]


@dataclass(frozen=True)
class Pages:
    """Struct pages of one kind: those of an altmap, base pages, or compound pages."""

    start_pfn: int
    end_pfn: int
    type: str = "MEMORY_DEVICE_FS_DAX"
    order: int = 0
    metadata: bool = False


# Of a description, a word of the page, what it becomes, and the slug.
_Make = Callable[[str, int, int, str], Defect]


class Injector:
    """Makes defects for a program; *layout* has the facts that apply to it, or names them."""

    def __init__(self, prog: Program, layout: str | Layout) -> None:
        self.prog = prog
        self.layout = TABLES[layout] if isinstance(layout, str) else layout
        self.vmemmap: int = prog["vmemmap"].value_()
        self.sizeof_page = self.layout.structs["page"].size
        self.node_shift = 64 - (self.layout.max_numnodes - 1).bit_length()
        zones = self.layout.constant("__MAX_NR_ZONES")
        self.zone_shift = self.node_shift - (zones - 1).bit_length()
        # Since v6.15, drivers build folios; since v6.6, the order is in the flags of a tail.
        self.pgmap_in_folio = not self.layout.has_member("page", "pgmap")

    # Words.

    def page(self, pfn: int, word: int) -> int:
        return self.vmemmap + self.sizeof_page * pfn + 8 * word

    def _word(self, address: int) -> int:
        return int(self.prog.read_u64(address))

    def _page_word(self, pfn: int, word: int) -> int:
        return self._word(self.page(pfn, word))

    def _half(self, address: int, value: int) -> Change:
        """A 32-bit member."""
        base, shift = address & ~7, 8 * (address & 7)
        mask = 0xFFFFFFFF << shift
        return Change(base, self._word(base) & ~mask | value % (1 << 32) << shift)

    def _flag(self, name: str) -> int:
        return 1 << self.layout.constant(name)

    # Struct pages.

    def page_defects(self, pages: Pages, pfn: int, rng: random.Random) -> Iterator[Defect]:
        """All kinds of single wrong words that a page can have, with random values."""
        index = (pfn - pages.start_pfn) % (1 << pages.order)
        is_tail = pages.order and index
        prefix = "metadata-page" if pages.metadata else "device-page"
        flags = self._page_word(pfn, 0)

        def defect(what: str, word: int, after: int, slug: str) -> Defect:
            change = Change(self.page(pfn, word), after)
            return Defect(f"{what} of {pfn:#x}", (change,), frozenset({(slug, pfn, pfn + 1)}))

        device, shift = self.layout.constant("ZONE_DEVICE"), self.zone_shift
        zones = range(1 << self.node_shift - shift)
        zone = rng.choice([z for z in zones if z != device])
        no_zone = flags & ~(zones[-1] << shift)
        yield defect(f"zone {zone}", 0, no_zone | zone << shift, f"{prefix}-zone")
        if self.layout.max_numnodes > 1:
            node = rng.randrange(1, self.layout.max_numnodes)
            yield defect(f"node {node}", 0, flags | node << self.node_shift, f"{prefix}-node")
        reserved = flags & ~self._flag("PG_reserved")
        yield defect("PG_reserved", 0, reserved, f"{prefix}-reserved")
        if pages.metadata:
            yield from self._metadata_defects(pfn, rng, defect)
            return
        yield defect(
            "mapcount",
            6,
            self._counts(pfn, mappings=rng.randint(-128, -2)),
            "device-page-mapcount",
        )
        if is_tail:
            yield from self._tail_defects(pages, pfn, index, rng, defect)
        else:
            yield from self._head_defects(pages, pfn, rng, defect)

    def _counts(self, pfn: int, references: int | None = None, mappings: int | None = None) -> int:
        word = self._page_word(pfn, 6)
        high = word >> 32 if references is None else references
        low = word if mappings is None else mappings
        return (high % (1 << 32)) << 32 | low % (1 << 32)

    def _metadata_defects(self, pfn: int, rng: random.Random, defect: _Make) -> Iterator[Defect]:
        for word in (1, 2):
            after = rng.choice([0, DANGLING, rng.getrandbits(64)])
            yield defect(f"lru word {word}", word, after, "metadata-page-link")
        few = rng.choice([0, -1, -(1 << 31)])
        yield defect("references", 6, self._counts(pfn, few), "metadata-page-refcount")

    def _head_defects(
        self, pages: Pages, pfn: int, rng: random.Random, defect: _Make
    ) -> Iterator[Defect]:
        # An odd word is a link, which drivers may make where they build folios.
        after = rng.choice([0, DANGLING, rng.getrandbits(63) << 1])
        yield defect("pgmap", 1, after, "device-page-pgmap")
        folios = self.pgmap_in_folio and pages.type in FOLIO_TYPES
        flags, head = self._page_word(pfn, 0), self._flag("PG_head")
        if pages.order:
            yield defect("PG_head", 0, flags & ~head, "device-head-flag")
        elif not folios:
            yield defect("PG_head", 0, flags | head, "device-stray-head")
        references = [-1, -rng.randrange(1, 1 << 31)]
        if pages.type == "MEMORY_DEVICE_GENERIC" or (
            pages.type == "MEMORY_DEVICE_FS_DAX" and not self.pgmap_in_folio
        ):
            references.append(0)
        after = self._counts(pfn, rng.choice(references))
        yield defect("references", 6, after, "device-page-refcount")

    def _tail_defects(
        self, pages: Pages, pfn: int, index: int, rng: random.Random, defect: _Make
    ) -> Iterator[Defect]:
        link = self._page_word(pfn, 1)
        other = link + self.sizeof_page
        after = rng.choice([0, DANGLING, link & ~1, other, link ^ 1 << rng.randrange(64)])
        yield defect("link", 1, after, "device-tail-link")
        after = self._counts(pfn, rng.choice([1, -1, rng.randrange(1, 1 << 32)]))
        yield defect("references", 6, after, "device-page-refcount")
        # TAIL_MAPPING is a macro that other architectures define differently.
        poisons = self.layout.macros.architecture in ("X86_64", "AARCH64")
        if poisons and index >= self._pages_under_folio:
            after = rng.choice([0, DANGLING, rng.getrandbits(64)])
            yield defect("mapping", 3, after, "device-tail-mapping")
        flags, head = self._page_word(pfn, 0), self._flag("PG_head")
        order_at = self._order_at
        if index > 1 or order_at >= 8:
            yield defect("PG_head", 0, flags | head, "device-stray-head")
        if index == 1:
            order = rng.choice([n for n in range(256) if n != pages.order])
            word, shift = order_at // 8, order_at % 8 * 8
            before = self._page_word(pfn, word)
            after = before & ~(0xFF << shift) | order << shift
            yield defect("order", word, after, "device-compound-order")

    @property
    def _pages_under_folio(self) -> int:
        """How many of the first pages struct folio covers, or struct page did."""
        known = "folio" in self.layout.structs
        size = self.layout.structs["folio"].size if known else 0
        return max(-(-size // self.sizeof_page), 2)

    @property
    def _order_at(self) -> int:
        """Where the first tail has the order."""
        if self.layout.has_member("page", "compound_order"):
            return self.layout.locate("page", "compound_order")[0]
        own = self.layout.has_member("folio", "_folio_order")
        member = "_folio_order" if own else "_flags_1"
        return self.layout.locate("folio", member)[0] - self.sizeof_page

    def unwritten_page(self, pfn: int, byte: int, slug: str) -> Defect:
        """A struct page that holds nothing but a pattern."""
        word = byte * 0x0101010101010101
        words = range(self.sizeof_page // 8)
        changes = tuple(Change(self.page(pfn, i), word) for i in words)
        return Defect(f"{byte:#x} in {pfn:#x}", changes, frozenset({(slug, pfn, pfn + 1)}))

    # Structures.

    def section_word(self, nr: int, *, clear: int = 0, set_: int = 0) -> Change:
        word = nr_to_section(self.prog, nr).section_mem_map
        return Change(word.address_, word.value_() & ~clear | set_)

    def section_usage(self, nr: int) -> Change:
        return Change(nr_to_section(self.prog, nr).usage.address_, 0)

    def subsection_bit(self, pfn: int) -> Change:
        macros = self.layout.macros
        nr, offset = divmod(pfn, macros.pages_per_section)
        word, bit = divmod(offset // macros.pages_per_subsection, 64)
        address = nr_to_section(self.prog, nr).usage.subsection_map.address_ + 8 * word
        return Change(address, self._word(address) ^ 1 << bit)

    def pgmap_word(self, pgmap: int, member: str, value: int) -> Change:
        offset = offsetof(self.prog.type("struct dev_pagemap"), member)
        return Change(pgmap + offset, value % WORD)

    def nr_range(self, pgmap: int, value: int) -> Change:
        offset = offsetof(self.prog.type("struct dev_pagemap"), "nr_range")
        return self._half(pgmap + offset, value)

    def spanned_pages(self, value: int) -> Change:
        zone = self.prog["node_data"][0].node_zones[ZONE_DEVICE]
        return Change(zone.spanned_pages.address_, value)

    def slot(self, pfn: int) -> tuple[int, int, int]:
        """Address of the slot of pgmap_array that a PFN is in, and the PFNs of the slot."""
        entry = self.prog["pgmap_array"].xa_head.value_()
        while True:
            node = Object(self.prog, "struct xa_node *", entry - 2)
            shift = node.shift.value_()
            offset = pfn >> shift & 63
            entry = node.slots[offset].value_()
            if entry & 3 != 2 or entry <= 4096:
                start = pfn >> shift << shift
                return node.slots[offset].address_, start, start + (1 << shift)
