# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the tool's reading of every struct page with what the guest's kernel said of it when its
machine was stopped.

Both are read from the memory of that instant, so that nothing may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Program, offsetof

from drgn_zonedev.kernel.compound_pages import CompoundPages, compound_pages
from drgn_zonedev.kernel.memmap import Pages, UnreadablePages, read_pages
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.lab.truth.frozen import IRREGULAR, Frozen, Is
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences, runs

__all__ = ("folio_orders", "page_disagreements")

_NO_ORDER = -1
# By their names in enum pgtype, or in the macros before that.
_TYPES = {
    "buddy": Is.BUDDY,
    "offline": Is.OFFLINE,
    "table": Is.TABLE,
    "guard": Is.GUARD,
    "zsmalloc": Is.ZSMALLOC,
    "unaccepted": Is.UNACCEPTED,
    "large_kmalloc": Is.LARGE_KMALLOC,
}
_FLAGS = {
    "PG_reserved": Is.RESERVED,
    "PG_hwpoison": Is.HWPOISON,
    "PG_vmemmap_self_hosted": Is.SELF_HOSTED,
}


def page_disagreements(prog: Program, frozen: Frozen) -> Iterator[Disagreement]:
    """Yield where the tool and the kernel differ, for all PFNs that the kernel answered for."""
    pfn = frozen.pfn
    theirs = {name: frozen.column(name) for name in ("zone", "nid", "order", "buddy_order")}
    answers = frozen.column("answers")
    for first, end in runs(pfn):
        start_pfn = int(pfn[first])
        for part in read_pages(prog, start_pfn, start_pfn + end - first):
            if isinstance(part, UnreadablePages):
                yield Disagreement(
                    "struct page", part.reason, "readable", part.start_pfn, part.end_pfn
                )
                continue
            rows = slice(first + part.start_pfn - start_pfn, first + part.end_pfn - start_pfn)
            columns = {name: column[rows] for name, column in theirs.items()}
            yield from _compare(_Reading(prog, part), columns, answers[rows])


def _compare(
    ours: _Reading, theirs: dict[str, np.ndarray], answers: np.ndarray
) -> Iterator[Disagreement]:
    pfn = ours.pages.pfn
    numbers = {
        "page_zonenum()": (ours.pages.zone, theirs["zone"]),
        "page_to_nid()": (ours.pages.node, theirs["nid"]),
        "compound_order()": (ours.order, theirs["order"]),
        "buddy_order()": (ours.buddy_order, theirs["buddy_order"]),
    }
    for about, (mine, other) in numbers.items():
        yield from differences(about, pfn, mine.astype(np.int64), other.astype(np.int64))
    for about, mine, answer in ours.answers():
        yield from differences(about, pfn, mine, (answers & np.uint32(answer)) != 0)


def folio_orders(pages: Pages, compound: CompoundPages) -> np.ndarray:
    """
    Return the order of each page's folio, or IRREGULAR if its head is not where that order says.

    That is legal in what a freed folio of a device left behind when its head was handed out alone.
    """
    orders = compound.order.astype(np.int64)
    distance = pages.address.astype(np.int64) - compound.heads.astype(np.int64)
    regular = pages.pfn - distance // pages.layout.size == pages.pfn >> orders << orders
    return np.where(regular, orders, IRREGULAR)


@dataclass(frozen=True)
class _Reading:
    """What the tool reads of struct pages."""

    prog: Program
    pages: Pages

    @cached_property
    def compound(self) -> CompoundPages:
        return compound_pages(self.prog, self.pages)

    @cached_property
    def is_tail(self) -> np.ndarray:
        return self.compound.heads != self.pages.address

    @cached_property
    def order(self) -> np.ndarray:
        return folio_orders(self.pages, self.compound)

    @cached_property
    def buddy_order(self) -> np.ndarray:
        word = offsetof(self.prog.type("struct page"), "private") // 8
        free = page_types(self.prog).has(self.pages, "buddy") & ~self.is_tail
        return np.where(free, self.pages.words[:, word].astype(np.int64), _NO_ORDER)

    def answers(self) -> Iterator[tuple[str, np.ndarray, Is]]:
        yield "compound_head()", self.is_tail, Is.TAIL
        yield "PageSlab()", self.compound.is_slab, Is.SLAB
        yield "PageHuge()", self.compound.is_hugetlb, Is.HUGETLB
        for name, answer in _FLAGS.items():
            yield name, _flag(self.prog, self.pages, name), answer
        known = page_types(self.prog)
        for name, answer in _TYPES.items():
            yield f"page type {name}", known.has(self.compound.head, name), answer


def _flag(prog: Program, pages: Pages, name: str) -> np.ndarray:
    try:
        bit = prog.constant(name).value_()
    except LookupError:
        return np.zeros(len(pages.words), bool)
    return (pages.flags >> np.uint64(bit) & np.uint64(1)).astype(bool)
