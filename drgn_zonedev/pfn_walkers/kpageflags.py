# SPDX-License-Identifier: LGPL-2.1-or-later

"""
/proc/kpageflags and /proc/kpagecount
-------------------------------------

Predict what two PFN walkers of the kernel (:linux:`fs/proc/page.c`) would print for every
PFN: ``stable_page_flags()`` and the number of mappings, computed from the struct pages
of a kernel that is not running.

These files show what a PFN walker read from each struct page, so predictions can be
compared with facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import IntegerLike, Program, Type, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.memmap import Pages, page_layout, read_pages
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.page_types import PageTypes, page_types
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.zero_pages import huge_zero_pfn, zero_pfn
from drgn_zonedev.pfn_walkers.kernel_release import has_change, kernel_release

__all__ = (
    "KPF",
    "KpagePrediction",
    "has_kpage_read",
    "has_page",
    "kpage_end_pfn",
    "kpage_prediction",
    "shows_devices",
)

# include/uapi/linux/kernel-page-flags.h, and from bit 32 on
# include/linux/kernel-page-flags.h. Numbers are never reused,
# except that MAPPEDTODISK became OWNER_2.
KPF = {
    "LOCKED": 0,
    "ERROR": 1,
    "REFERENCED": 2,
    "UPTODATE": 3,
    "DIRTY": 4,
    "LRU": 5,
    "ACTIVE": 6,
    "SLAB": 7,
    "WRITEBACK": 8,
    "RECLAIM": 9,
    "BUDDY": 10,
    "MMAP": 11,
    "ANON": 12,
    "SWAPCACHE": 13,
    "SWAPBACKED": 14,
    "COMPOUND_HEAD": 15,
    "COMPOUND_TAIL": 16,
    "HUGE": 17,
    "UNEVICTABLE": 18,
    "HWPOISON": 19,
    "NOPAGE": 20,
    "KSM": 21,
    "THP": 22,
    "OFFLINE": 23,
    "ZERO_PAGE": 24,
    "IDLE": 25,
    "PGTABLE": 26,
    "RESERVED": 32,
    "MLOCKED": 33,
    "MAPPEDTODISK": 34,
    "PRIVATE": 35,
    "PRIVATE_2": 36,
    "OWNER_PRIVATE": 37,
    "ARCH": 38,
    "UNCACHED": 39,
    "ARCH_2": 41,
    "ARCH_3": 42,
}

# Bits that are copied from page->flags, by the enumerator of enum pageflags. A kernel
# without an enumerator does not copy its bit: PG_error was removed in v6.12, and
# PG_uncached, PG_arch_2, PG_arch_3, PG_hwpoison and PG_idle depend on the
# configuration, as the #ifdefs around their copies do.
_COPIED = (
    ("LOCKED", "PG_locked"),
    ("ERROR", "PG_error"),
    ("REFERENCED", "PG_referenced"),
    ("UPTODATE", "PG_uptodate"),
    ("DIRTY", "PG_dirty"),
    ("LRU", "PG_lru"),
    ("ACTIVE", "PG_active"),
    ("WRITEBACK", "PG_writeback"),
    ("RECLAIM", "PG_reclaim"),
    ("SWAPBACKED", "PG_swapbacked"),
    ("UNEVICTABLE", "PG_unevictable"),
    ("IDLE", "PG_idle"),
    ("RESERVED", "PG_reserved"),
    ("MLOCKED", "PG_mlocked"),
    ("MAPPEDTODISK", "PG_mappedtodisk"),
    ("PRIVATE", "PG_private"),
    ("PRIVATE_2", "PG_private_2"),
    ("OWNER_PRIVATE", "PG_owner_priv_1"),
    ("ARCH", "PG_arch_1"),
    ("UNCACHED", "PG_uncached"),
    ("ARCH_2", "PG_arch_2"),
    ("ARCH_3", "PG_arch_3"),
)

_CHUNK_PAGES = 1 << 16


@dataclass(frozen=True)
class KpagePrediction:
    """
    What the files hold for ``[start_pfn, end_pfn)``: a ``u64`` per PFN.

    Where ``decided`` is false, the struct page alone does not decide it: it cannot
    be read, or it belongs to a compound page and the kernel looks at all of it, or it is an
    anonymous page that some kernels report as a KSM page.
    """

    start_pfn: int
    end_pfn: int
    flags: np.ndarray
    count: np.ndarray
    decided: np.ndarray


@takes_program_or_default
def kpage_end_pfn(prog: Program) -> int:
    """
    Get the PFN at which the files end (``get_max_dump_pfn()``).

    Since Linux kernel commit abec749facff ("fs/proc/page.c: allow inspection of last
    section and fix end detection") (in v5.6), it is ``max_pfn`` rounded up to a section. The
    release decides. A kernel whose files show devices has all sections.
    """
    max_pfn = int(prog["max_pfn"].value_())
    if has_change(kernel_release(prog), (5, 6)) is False:
        return max_pfn
    pages = sparsemem_geometry(prog).pages_per_section
    if shows_devices(prog):
        return (int(prog["__highest_present_section_nr"].value_()) + 1) * pages
    return -(-max_pfn // pages) * pages


@takes_program_or_default
def kpage_prediction(
    prog: Program, start_pfn: IntegerLike, end_pfn: IntegerLike
) -> KpagePrediction:
    """
    Predict what ``/proc/kpageflags`` and ``/proc/kpagecount`` hold.

    :param start_pfn: First PFN.
    :param end_pfn: One more than the last PFN; the files may end before that.
    :raises LookupError: if the debugging information does not have what is needed
    """
    return predict(prog, take_snapshot(prog), require_number(start_pfn), require_number(end_pfn))


def predict(prog: Program, snapshot: Snapshot, start_pfn: int, end_pfn: int) -> KpagePrediction:
    """Like :func:`kpage_prediction`, for structures that were already read."""
    end_pfn = max(min(end_pfn, kpage_end_pfn(prog)), start_pfn)
    pfn = np.arange(start_pfn, end_pfn)
    rules = _rules(prog)
    shown = has_page(prog, snapshot.predicates(pfn))
    flags = np.where(shown, 0, rules.no_page).astype(np.uint64)
    count = np.zeros(len(pfn), np.uint64)
    decided = ~shown
    for first in range(0, len(pfn), _CHUNK_PAGES):
        rows = first + np.flatnonzero(shown[first : first + _CHUNK_PAGES])
        if len(rows):
            seen = _Seen(prog, rules, *_read(prog, rules, pfn[rows]), pfn[rows])
            flags[rows], count[rows], decided[rows] = seen.flags, seen.count, seen.decided
    return KpagePrediction(start_pfn, end_pfn, flags, count, decided)


def has_page(prog: Program, predicates: Predicates) -> np.ndarray:
    """
    Whether the files have the page of each PFN.

    They have what ``pfn_to_online_page()`` returns, and, in a kernel that was changed by
    ``lab/patches/pfn_zone_device-7.3.edit``, also what ``pfn_zone_device()`` is true for.
    """
    if shows_devices(prog):
        return predicates.online | predicates.zone_device
    return predicates.online


def shows_devices(prog: Program) -> bool:
    """Whether a kernel was changed by ``lab/patches/pfn_zone_device-7.3.edit``."""
    return "pfn_to_initialized_page" in prog


@dataclass(frozen=True)
class _Rules:
    """How this kernel computes the flags. Those with typed ``types`` look at folios."""

    types: PageTypes
    no_page: int
    flag: dict[str, int]
    max_order: int
    zero_pfn: int | None
    huge_zero: int | None
    large_mapcount: int | None
    entire_mapcount: int | None
    fake_heads: bool
    snapshots: bool
    """``snapshot_page()`` takes a tail beyond the end of its head's folio for a page."""


def _rules(prog: Program) -> _Rules:
    # kpage_read() never calls stable_page_flags() without a page.
    reads_nothing = has_kpage_read(prog)
    folio = _type(prog, "struct folio")
    return _Rules(
        types=page_types(prog),
        no_page=0 if reads_nothing else 1 << KPF["NOPAGE"],
        flag=_page_flags(prog),
        max_order=_max_order(prog),
        zero_pfn=zero_pfn(prog),
        huge_zero=huge_zero_pfn(prog),
        large_mapcount=_offset(folio, "_large_mapcount"),
        entire_mapcount=_offset(folio, "_entire_mapcount"),
        fake_heads="hugetlb_optimize_vmemmap_key" in prog,
        snapshots=reads_nothing,
    )


def has_kpage_read(prog: Program) -> bool:
    """Whether the kernel has ``kpage_read()``, which looks at copies: ``snapshot_page()``."""
    # Its enum kpage_operation came with it ("fs/proc/page: refactor to reduce code
    # duplication", in v6.16).
    return _constant(prog, "KPAGE_FLAGS") is not None or _is_folio_only(prog)


def _is_folio_only(prog: Program) -> bool:
    # An export may not have enum kpage_operation. The nearest change of a structure is
    # Linux kernel commit 82ba975e4c43 ("mm: allow compound zone device pages") (in v6.15).
    return not prog.type("struct page").has_member("pgmap")


def _constant(prog: Program, name: str) -> int | None:
    try:
        return int(prog.constant(name).value_())
    except LookupError:
        return None


def _type(prog: Program, name: str) -> Type | None:
    try:
        return prog.type(name)
    except LookupError:
        return None


def _offset(type_: Type | None, member: str) -> int | None:
    return offsetof(type_, member) if type_ and type_.has_member(member) else None


def _page_flags(prog: Program) -> dict[str, int]:
    names = {name for _, name in _COPIED} | {
        "PG_head",
        "PG_hwpoison",
        "PG_slab",
        "PG_swapcache",
        "PG_large_rmappable",
    }
    values = {name: _constant(prog, name) for name in names}
    return {name: bit for name, bit in values.items() if bit is not None}


def _max_order(prog: Program) -> int:
    zone = prog.type("struct zone")
    if not zone.has_member("free_area"):
        return 10
    return int(zone.member("free_area").type.length) - 1


def _read(prog: Program, rules: _Rules, pfn: np.ndarray) -> tuple[Pages, np.ndarray]:
    """Read the struct pages around PFNs, from where a free block that holds them would begin."""
    block = 1 << rules.max_order
    start, end = int(pfn[0]) // block * block, int(pfn[-1]) + 1
    layout = page_layout(prog)
    words = np.zeros((end - start, layout.size // 8), np.uint64)
    readable = np.zeros(end - start, bool)
    for part in read_pages(prog, start, end):
        if isinstance(part, Pages):
            rows = slice(part.start_pfn - start, part.end_pfn - start)
            words[rows], readable[rows] = part.words, True
    return Pages(start, end, words, layout), readable


@dataclass(frozen=True)
class _Seen:
    """Struct pages as the walkers see them; each column has an element per element of ``pfn``."""

    prog: Program
    rules: _Rules
    around: Pages
    readable: np.ndarray
    pfn: np.ndarray

    @cached_property
    def row(self) -> np.ndarray:
        return self.pfn - self.around.start_pfn

    @cached_property
    def page(self) -> Pages:
        """The struct pages themselves. Their PFNs need not be consecutive."""
        around = self.around
        return Pages(around.start_pfn, around.end_pfn, around.words[self.row], around.layout)

    @cached_property
    def page_head(self) -> np.ndarray:
        """Address of each page's head."""
        return self.around.head[self.row]

    @cached_property
    def tail(self) -> np.ndarray:
        return self.page.is_tail & ~self._alone

    @cached_property
    def _alone(self) -> np.ndarray:
        """
        Tails that are further from their head than its folio has pages: device folios that were
        handed out again in other sizes leave some. The one right after it counts as a tail.
        """
        if not self.rules.snapshots:
            return np.zeros(len(self.row), bool)
        layout, (words, found) = self.around.layout, self._named_head
        half = layout.size // 8
        head = np.ascontiguousarray(words[:, :half])
        named = Pages(self.around.start_pfn, self.around.end_pfn, head, layout)
        # folio_order(): the lowest byte of _flags_1.
        order = np.where(self.flag(named.flags, "PG_head"), words[:, half] & np.uint64(0xFF), 0)
        distance = (self.around.address[self.row] - self.page_head) // np.uint64(layout.size)
        return (
            self.page.is_tail & found & (distance > (1 << order.astype(np.int64)).astype(np.uint64))
        )

    @cached_property
    def _head_words(self) -> tuple[np.ndarray, np.ndarray]:
        """The words of each page's folio, as far as it is used, and whether they could be read."""
        words, found = (column.copy() for column in self._named_head)
        alone = np.flatnonzero(self._alone)
        words[alone] = 0
        words[alone, : self.around.layout.size // 8] = self.page.words[alone]
        return words, found

    @cached_property
    def _named_head(self) -> tuple[np.ndarray, np.ndarray]:
        """The words of the head that each page names and of the next one, and if they are known."""
        layout = self.around.layout
        words = np.concatenate([self.page.words, np.zeros_like(self.page.words)], axis=1)
        found = np.ones(len(self.row), bool)
        compound = np.flatnonzero(self.page.is_tail | self.flag(self.page.flags, "PG_head"))
        heads, which = np.unique(self.page_head[compound], return_inverse=True)
        raw, there = read_records(self.prog, heads, 2 * layout.size)
        words[compound], found[compound] = raw.view("<u8")[which], there[which]
        return words, found

    @cached_property
    def head(self) -> Pages:
        around = self.around
        words = np.ascontiguousarray(self._head_words[0][:, : around.layout.size // 8])
        return Pages(around.start_pfn, around.end_pfn, words, around.layout)

    @cached_property
    def second(self) -> np.ndarray:
        """The struct page after the head, as a row of 32-bit integers."""
        words = self._head_words[0][:, self.around.layout.size // 8 :]
        return np.ascontiguousarray(words).view("<i4")

    def flag(self, flags: np.ndarray, name: str) -> np.ndarray:
        bit = self.rules.flag.get(name)
        if bit is None:
            return np.zeros(len(flags), bool)
        return (flags >> np.uint64(bit) & np.uint64(1)).astype(bool)

    @cached_property
    def compound(self) -> np.ndarray:
        return self.tail | self.flag(self.page.flags, "PG_head")

    @cached_property
    def large(self) -> np.ndarray:
        """``folio_test_large()``"""
        return self.flag(self.head.flags, "PG_head")

    def type_is(self, pages: Pages, name: str) -> np.ndarray:
        return self.rules.types.has(pages, name)

    @cached_property
    def slab(self) -> np.ndarray:
        if "PG_slab" in self.rules.flag:
            return self.flag(self.head.flags, "PG_slab")
        return self.type_is(self.head, "slab")

    @cached_property
    def buddy(self) -> np.ndarray:
        """``PageBuddy()``, or ``is_free_buddy_page()`` of a page without references."""
        all_pages = self.around
        is_buddy = self.type_is(all_pages, "buddy")
        order = all_pages.words[:, self._private_word]
        found = is_buddy[self.row]
        rows = np.flatnonzero(~found & (self.head.refcount == 0))
        for i in range(self.rules.max_order + 1):
            block = (self.pfn[rows] >> i << i) - all_pages.start_pfn
            free = is_buddy[block] & (order[block] >= np.uint64(i)) & self.readable[block]
            found[rows] |= free
        return found

    @cached_property
    def _private_word(self) -> int:
        return offsetof(self.prog.type("struct page"), "private") // 8

    @cached_property
    def mapped(self) -> np.ndarray:
        """``page_mapped()``, or ``folio_mapped()``; of compound pages, only if it is known."""
        own = self.page.mapcount >= 0
        if not self.rules.types.typed:
            return own & ~self.slab
        offset = self.rules.large_mapcount
        if offset is None:
            return own
        large = self.second[:, (offset - self.around.layout.size) // 4] + 1 >= 1
        return np.where(self.large, large, own)

    @cached_property
    def flags(self) -> np.ndarray:
        """``stable_page_flags()``"""
        # Typed kernels read the flags of the folio.
        k = self.head.flags if self.rules.types.typed else self.page.flags
        bits = {kpf: self.flag(k, name) for kpf, name in _COPIED}
        # Untyped kernels recognise it by the destructor of the compound page: not decided.
        huge = self.type_is(self.head, "hugetlb")
        head = self.flag(k, "PG_head") & ~self.tail
        bits |= {
            "MMAP": self.mapped,
            "ANON": (self._mapping_bits & np.uint64(1)).astype(bool),
            "KSM": self._mapping_bits == np.uint64(3),
            "COMPOUND_HEAD": head,
            "COMPOUND_TAIL": self.tail,
            "HUGE": huge,
            "THP": self._thp(huge),
            "ZERO_PAGE": self._zero(huge),
            "BUDDY": self.buddy,
            "OFFLINE": self.type_is(self.page, "offline"),
            "PGTABLE": self.type_is(self.page, "table"),
            "SLAB": self.slab,
            "SWAPCACHE": self._swapcache,
            "HWPOISON": np.where(
                huge, self.flag(k, "PG_hwpoison"), self.flag(self.page.flags, "PG_hwpoison")
            ),
        }
        word = np.zeros(len(self.pfn), np.uint64)
        for name, column in bits.items():
            word |= column.astype(np.uint64) << np.uint64(KPF[name])
        return word

    @property
    def _mapping_bits(self) -> np.ndarray:
        return self.head.words[:, self.around.layout.mapping_word] & np.uint64(3)

    @property
    def _swapcache(self) -> np.ndarray:
        flags = self.head.flags
        return self.flag(flags, "PG_swapbacked") & self.flag(flags, "PG_swapcache")

    def _thp(self, huge: np.ndarray) -> np.ndarray:
        bit = self.rules.flag.get("PG_large_rmappable")
        if not self.rules.types.typed or bit is None:
            return self._huge_zero
        # _flags_1 is the first word of the second struct page.
        rmappable = (self.second[:, 0] >> bit & 1).astype(bool)
        return ~huge & ((self.large & rmappable) | self._huge_zero)

    @property
    def _huge_zero(self) -> np.ndarray:
        pfn = self.rules.huge_zero
        if pfn is None:
            return np.zeros(len(self.pfn), bool)
        # HPAGE_PMD_NR is 512 on every supported architecture with pages of 4 KiB.
        return self.pfn >> 9 << 9 == pfn

    def _zero(self, huge: np.ndarray) -> np.ndarray:
        zero = self.pfn == (-1 if self.rules.zero_pfn is None else self.rules.zero_pfn)
        return ~huge & (zero | self._huge_zero)

    @cached_property
    def count(self) -> np.ndarray:
        """What ``/proc/kpagecount`` says: an ``int``, converted to ``u64``."""
        count = self.page.mapcount.astype(np.int64) + 1
        count[self.rules.types.has_any(self.page)] = 0
        if not self.rules.types.typed:
            count[self.slab] = 0
        elif self.rules.entire_mapcount is not None:
            offset = self.rules.entire_mapcount - self.around.layout.size
            entire = self.second[:, offset // 4].astype(np.int64) + 1
            count += np.where(self.large, entire, 0)
        return count.view(np.uint64)

    @cached_property
    def decided(self) -> np.ndarray:
        known = self.readable[self.row] & self._head_words[1]
        if not self.rules.types.typed:
            return known & ~self.compound
        # Linux kernel commit dee3d0bef2b0 ("proc: rewrite stable_page_flags()") (in
        # v6.10) reported all anonymous pages as KSM's, up to 81401cebfc15 ("fs/proc: fix
        # KPF_KSM reported for all anonymous pages") (in v7.2), which stable kernels have,
        # too, and which leaves no trace in the debugging information.
        known &= self._mapping_bits != np.uint64(1)
        if self.rules.fake_heads:
            # The vmemmap of a hugetlb page may show copies of its head.
            aligned = self.around.address[self.row] % np.uint64(4096) == 0
            known &= ~(self.flag(self.page.flags, "PG_head") & aligned)
        return known
