# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Single defects in struct pages of RAM, for fake kernels and for dumps of real ones.

What must be found stands beside each defect: it follows from what the kernel's source
promises of such a page, not from the tool. What a page is decides the test, by the words
that the kernel of that release writes (see fakekernel.ram).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Program, offsetof
from support.defects import ALL_ONES, Change, Defect
from support.fakekernel.ram import COUNTS, FLAGS, LINK, MAPPING, MEMCG, PRIVATE, family, page_type

# There is none of this number, or of the highest one.
NO_NODE = 37
KINDS = ("lru", "table", "reserved", "head", "first tail", "tail", "free", "inside", "slab")


@dataclass(frozen=True)
class Spots:
    """PFNs of pages of each kind, and the order of the block or compound page of each."""

    kinds: dict[str, list[tuple[int, int]]]


def nodes_width(prog: Program) -> int:
    """NODES_WIDTH: node_data[] has MAX_NUMNODES entries."""
    if not prog.type("struct zone").has_member("node"):
        return 0
    return int(len(prog["node_data"]) - 1).bit_length()


class RamDefects:
    """Makes defects for a program of a release: ``5.10``, ``6.1``, ``6.12``, ``7.2``,
    ``7.3``, or a layout that is like one of them."""

    def __init__(self, prog: Program, release: str) -> None:
        self.prog, self.release = prog, release
        self.family = family(release)
        self.max_nr_zones = int(prog.constant("__MAX_NR_ZONES").value_())
        self.zone_device = int(prog["ZONE_DEVICE"].value_()) if "ZONE_DEVICE" in prog else None
        self.node_shift = 64 - nodes_width(prog)
        # ZONES_WIDTH
        self.zone_bits = (self.max_nr_zones - 1).bit_length()
        self.zone_shift = self.node_shift - self.zone_bits
        # NR_PAGE_ORDERS
        self.orders = int(prog.type("struct zone").member("free_area").type.length or 0)
        self.page_bytes = prog.type("struct page").size or 0
        self.vmemmap = int(prog["vmemmap"].value_())
        self.in_flags = self.family in ("6.12", "7.2")
        self._flags: dict[str, int] = {}

    # Reading.

    def flag(self, *names: str) -> int:
        return sum(self._flag(name) for name in names)

    def _flag(self, name: str) -> int:
        # Kept: spots() asks for each page.
        if name not in self._flags:
            self._flags[name] = 1 << int(self.prog.constant(f"PG_{name}").value_())
        return self._flags[name]

    def address(self, pfn: int, word: int) -> int:
        return self.vmemmap + self.page_bytes * pfn + 8 * word

    def word(self, pfn: int, word: int) -> int:
        return int(self.prog.read_u64(self.address(pfn, word)))

    def spots(self, start_pfn: int, end_pfn: int, rng: random.Random, each: int) -> Spots:
        """Find pages of each kind, some of each."""
        raw = self.prog.read(self.address(start_pfn, 0), self.page_bytes * (end_pfn - start_pfn))
        words = np.frombuffer(raw, "<u8").reshape(-1, self.page_bytes // 8)
        found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
        order = 0
        row = 0
        while row < len(words):
            kind, order = self._kind(words, row)
            if kind:
                found[kind].append((start_pfn + row, order))
            if kind == "free" and order:
                inside = rng.randrange(1, 1 << order)
                found["inside"].append((start_pfn + row + inside, order))
            if kind == "head":
                found["first tail"].append((start_pfn + row + 1, order))
                if order > 2:
                    found["tail"].append((start_pfn + row + rng.randrange(4, 1 << order), order))
            row += 1 << order
        picked = {kind: rng.sample(pfns, min(each, len(pfns))) for kind, pfns in found.items()}
        return Spots(picked)

    def _kind(self, words: np.ndarray, row: int) -> tuple[str, int]:
        # What a page is, and the order of what begins there.
        flags, counts = int(words[row, FLAGS]), int(words[row, COUNTS])
        if flags & self.flag("head") and row + 1 < len(words):
            order = int(words[row + 1].view(np.uint8)[0 if self.in_flags else 17])
            optimized = int(words[row, PRIVATE]) & self._optimized
            return ("" if optimized else "head"), order
        if counts == page_type(self.family, "buddy"):
            return "free", int(words[row, PRIVATE])
        if flags & self.flag("reserved"):
            return "reserved", 0
        if flags & self.flag("lru"):
            return "lru", 0
        if counts & 0xFFFFFFFF == page_type(self.family, "table"):
            return "table", 0
        slab = flags & self.flag("slab") if not self.in_flags else (counts >> 24 & 0xFF) == 0xF5
        return ("slab" if slab else ""), 0

    @property
    def _optimized(self) -> int:
        try:
            return 1 << int(self.prog.constant("HPG_vmemmap_optimized").value_())
        except LookupError:
            return 0

    # Defects.

    def of(self, kind: str, pfn: int, order: int, rng: random.Random) -> Iterator[Defect]:
        """All defects of a page of a kind."""
        yield from self._of_all(pfn, kind, rng)
        makers = {
            "lru": self._of_single,
            "table": self._of_single,
            "slab": self._of_single,
            "reserved": self._of_reserved,
            "head": self._of_head,
            "first tail": self._of_first_tail,
            "tail": self._of_tail,
            "free": self._of_free,
            "inside": self._of_inside,
        }
        yield from makers[kind](pfn, order, rng, kind)

    def _defect(self, what: str, pfn: int, word: int, after: int, slug: str) -> Defect:
        change = Change(self.address(pfn, word), after)
        return Defect(f"{what} of {pfn:#x}", (change,), frozenset({(slug, pfn, pfn + 1)}))

    def _counts(self, pfn: int, references: int | None = None, mappings: int | None = None) -> int:
        word = self.word(pfn, COUNTS)
        if references is not None:
            word = word & 0xFFFFFFFF | references % (1 << 32) << 32
        if mappings is not None:
            word = word >> 32 << 32 | mappings % (1 << 32)
        return word

    def _of_all(self, pfn: int, kind: str, rng: random.Random) -> Iterator[Defect]:
        flags = self.word(pfn, FLAGS)
        reserved = kind == "reserved"
        bits = (1 << self.zone_bits) - 1
        for zone in {self.zone_device, *range(self.max_nr_zones, bits + 1)} - {None}:
            after = flags & ~(bits << self.zone_shift) | zone << self.zone_shift
            wrong = "ram-hole-zone" if reserved else "ram-page-zone"
            slug = "ram-page-device" if zone == self.zone_device else wrong
            yield self._defect(f"zone {zone}", pfn, FLAGS, after, slug)
        if not reserved:
            # A zone that there is, but not here.
            after = flags ^ (3 if self.zone_bits > 2 else 1) << self.zone_shift
            yield self._defect("other zone", pfn, FLAGS, after, "ram-page-zone")
        if self.node_shift < 64:
            node = min(NO_NODE, (1 << 64 - self.node_shift) - 1)
            after = flags % (1 << self.node_shift) | node << self.node_shift
            yield self._defect("node", pfn, FLAGS, after, "ram-page-node")
        for byte in (0, 0xFD, 0xFF):
            word = byte * 0x0101010101010101
            changes = tuple(Change(self.address(pfn, i), word) for i in range(self.page_bytes // 8))
            spot = ("ram-page-uninitialized", pfn, pfn + 1)
            yield Defect(f"{byte:#x} in {pfn:#x}", changes, frozenset({spot}))

    def _of_single(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        flags = self.word(pfn, FLAGS)
        link = rng.choice([1, 0xDEADBEEF00000001, self.address(pfn + 64, 0) | 1, ALL_ONES - 2])
        yield self._defect("link", pfn, LINK, link, "ram-stray-tail")
        head = flags | self.flag("head")
        yield self._defect("PG_head", pfn, FLAGS, head, "ram-stray-head")
        after = self._counts(pfn, references=rng.choice([-1, -(1 << 31), -rng.randrange(1, 999)]))
        yield self._defect("references", pfn, COUNTS, after, "ram-page-refcount")
        after = self._counts(pfn, mappings=rng.choice([-2, -3, -128]))
        yield self._defect("mappings", pfn, COUNTS, after, "ram-page-mapcount")
        if kind == "lru":
            after = self._counts(pfn, mappings=page_type(self.family, "table"))
            yield self._defect("type", pfn, COUNTS, after, "ram-lru-type")
            after = flags | self.flag("reserved")
            yield self._defect("PG_reserved", pfn, FLAGS, after, "ram-reserved-flags")
        else:
            after = flags | self.flag("lru")
            yield self._defect("PG_lru", pfn, FLAGS, after, "ram-lru-type")

    def _of_reserved(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        flags = self.word(pfn, FLAGS)
        for name in ("lru", "swapbacked", "unevictable"):
            after = flags | self.flag(name)
            yield self._defect(f"PG_{name}", pfn, FLAGS, after, "ram-reserved-flags")
        after = self._counts(pfn, references=rng.choice([0, -1, -7]))
        yield self._defect("references", pfn, COUNTS, after, "ram-page-refcount")
        after = self._counts(pfn, mappings=rng.choice([-2, -77]))
        yield self._defect("mappings", pfn, COUNTS, after, "ram-page-mapcount")
        after = flags | self.flag("head")
        yield self._defect("PG_head", pfn, FLAGS, after, "ram-stray-head")
        yield self._defect("link", pfn, LINK, self.word(pfn, LINK) | 1, "ram-stray-tail")

    def _of_head(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        flags = self.word(pfn, FLAGS)
        after = flags & ~self.flag("head")
        yield self._defect("PG_head", pfn, FLAGS, after, "ram-head-flag")
        after = flags | self.flag("reserved")
        yield self._defect("PG_reserved", pfn, FLAGS, after, "ram-reserved-flags")
        after = self._counts(pfn, references=rng.choice([-1, -7, -(1 << 31)]))
        yield self._defect("references", pfn, COUNTS, after, "ram-page-refcount")
        yield self._defect("link", pfn, LINK, self.word(pfn, LINK) | 1, "ram-stray-tail")
        # The first tail has the order.
        slug = "ram-compound-order"
        wrong = rng.choice([n for n in range(1, 256) if n != order])
        word = FLAGS if self.in_flags else 2
        shift = 0 if self.in_flags else 8
        after = self.word(pfn + 1, word) & ~(0xFF << shift) | wrong << shift
        yield self._defect(f"order {wrong}", pfn + 1, word, after, slug)

    def _of_first_tail(
        self, pfn: int, order: int, rng: random.Random, kind: str
    ) -> Iterator[Defect]:
        yield from self._of_any_tail(pfn, rng)
        if not self.in_flags:
            after = self.word(pfn, FLAGS) | self.flag("head")
            yield self._defect("PG_head", pfn, FLAGS, after, "ram-stray-head")

    def _of_tail(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        yield from self._of_any_tail(pfn, rng)
        flags = self.word(pfn, FLAGS)
        for name in ("lru", "writeback"):
            after = flags | self.flag(name)
            yield self._defect(f"PG_{name}", pfn, FLAGS, after, "ram-tail-flags")
        after = flags | self.flag("head")
        yield self._defect("PG_head", pfn, FLAGS, after, "ram-stray-head")
        after = rng.choice([0, 0xDEAD000000000122, rng.getrandbits(64)])
        yield self._defect("mapping", pfn, MAPPING, after, "ram-tail-mapping")

    def _of_any_tail(self, pfn: int, rng: random.Random) -> Iterator[Defect]:
        link = self.word(pfn, LINK)
        # The mask of a larger page, which leads to the same head, is legal.
        for after in (0, link & ~1, link ^ 1 << rng.randrange(30, 40), 0xDEAD000000000100):
            yield self._defect(f"link {after:#x}", pfn, LINK, after, "ram-tail-link")
        flags = self.word(pfn, FLAGS) | self.flag("reserved")
        yield self._defect("PG_reserved", pfn, FLAGS, flags, "ram-tail-flags")
        after = self._counts(pfn, references=rng.choice([1, -1, rng.randrange(2, 1 << 31)]))
        yield self._defect("references", pfn, COUNTS, after, "ram-page-refcount")
        after = self._counts(pfn, mappings=page_type(self.family, "table"))
        yield self._defect("type", pfn, COUNTS, after, "ram-page-mapcount")

    def _of_free(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        yield from self._of_any_free(pfn, rng)
        for after in (self.orders, 64, rng.getrandbits(64) | 1 << 40):
            yield self._defect(f"order {after}", pfn, PRIVATE, after, "ram-free-order")
        if pfn & (2 << order) - 1 and order < self.orders - 1:
            yield self._defect("misaligned", pfn, PRIVATE, order + 1, "ram-free-order")
        if self.prog.type("struct page").has_member("memcg_data"):
            assert offsetof(self.prog.type("struct page"), "memcg_data") == 8 * MEMCG
            yield self._defect("memcg", pfn, MEMCG, 0xFFFF888012345000, "ram-free-memcg")

    def _of_inside(self, pfn: int, order: int, rng: random.Random, kind: str) -> Iterator[Defect]:
        yield from self._of_any_free(pfn, rng)
        for mappings in (0, -2, page_type(self.family, "buddy"), page_type(self.family, "table")):
            after = self._counts(pfn, mappings=mappings)
            yield self._defect(f"type {mappings:#x}", pfn, COUNTS, after, "ram-free-type")
        yield self._defect("link", pfn, LINK, self.word(pfn, LINK) | 1, "ram-stray-tail")

    def _of_any_free(self, pfn: int, rng: random.Random) -> Iterator[Defect]:
        flags = self.word(pfn, FLAGS)
        for name in ("lru", "reserved", "dirty", "swapbacked"):
            after = flags | self.flag(name)
            yield self._defect(f"PG_{name}", pfn, FLAGS, after, "ram-free-flags")
        after = self._counts(pfn, references=rng.choice([1, 2, -1]))
        yield self._defect("references", pfn, COUNTS, after, "ram-free-refcount")
        after = rng.choice([0xFFFF888012345001, 0xDEAD000000000400])
        yield self._defect("mapping", pfn, MAPPING, after, "ram-free-mapping")
