# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Shared vmemmap
--------------

Finds the struct pages that share their memory, by the page tables. Only tails of one
compound device page may do so, beginning with the second page of its vmemmap.

One struct page is verified for each piece of memory; the others would show the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import UnreadablePages, page_layout
from drgn_zonedev.kernel.vmemmap import UNMAPPED, vmemmap_page_frames, vmemmap_pages
from drgn_zonedev.model import Evidence, Finding, Range
from drgn_zonedev.util.sets import sorted_set

__all__ = ("NO_ALIASES", "Aliases", "Backing", "find_aliases", "illegal_aliases")


@dataclass(frozen=True)
class Backing:
    """
    A range with promised struct pages, and the PFN from which its compound pages of
    ``vmemmap_shift`` (0 for none) are counted.
    """

    range: Range
    first_pfn: int
    vmemmap_shift: int


@dataclass(frozen=True)
class Aliases:
    """
    Which struct pages of some backings have their memory in common.

    ``spans`` holds for each backing the parts that are not legal aliases, as rows of
    half-open ranges of PFNs. ``page``, ``owner`` and ``frame`` are columns of the
    illegal ones: a virtual page number, sorted; that of the first page with the
    same frame; and the frame. ``per_page`` is the number of struct pages in a page
    of vmemmap, and ``base`` the page number that the struct page of PFN 0 would be
    in. The number of legal aliases grows with the machine, so they are looked up again when needed.
    """

    prog: Program | None
    backings: tuple[Backing, ...]
    spans: tuple[np.ndarray, ...]
    page: np.ndarray
    owner: np.ndarray
    frame: np.ndarray
    per_page: int
    base: int

    def absent(self, range_: Range, gaps: Sequence[UnreadablePages]) -> Iterator[UnreadablePages]:
        """Legal aliases in a range whose memory could not be read."""
        backing = next((b for b in self.backings if b.range == range_), None)
        if not gaps or backing is None or not self._shares(backing):
            return
        for window in self._windows(backing):
            page, owner = window.page[window.legal], window.owner[window.legal]
            owners = (owner - self.base) * self.per_page
            for gap in gaps:
                hit = (owners < gap.end_pfn) & (owners + self.per_page > gap.start_pfn)
                for start in ((page[hit] - self.base) * self.per_page).tolist():
                    first, end = max(start, range_.start_pfn), start + self.per_page
                    end = min(end, range_.end_pfn)
                    yield UnreadablePages(first, end, gap.address, gap.reason)

    def shared_with(self, pfn: int) -> int:
        """How many other struct pages share the memory of one."""
        for backing in self.backings:
            if backing.range.start_pfn <= pfn < backing.range.end_pfn and self._shares(backing):
                return sum(
                    int((window.owner[window.legal] == self.base + pfn // self.per_page).sum())
                    for window in self._windows(backing, pfn)
                )
        return 0

    def _shares(self, backing: Backing) -> bool:
        return bool(self.per_page and backing.vmemmap_shift)

    def _windows(self, backing: Backing, pfn: int | None = None) -> Iterator[_Window]:
        # All of a backing, or what a compound page is in.
        assert self.prog is not None
        for start, end in _cuts(backing):
            if pfn is None or start <= pfn < end:
                yield _without(_window(self.prog, backing, start, end, self.base), self.page)


_EMPTY = np.empty(0, np.int64)

NO_ALIASES = Aliases(None, (), (), _EMPTY, _EMPTY, _EMPTY, per_page=0, base=0)
"""Nothing is shared, or sharing is not known."""

# Struct pages whose page tables are looked at together, which sets how much memory
# that takes. Two to this power are 16 GiB of device memory, and no compound page is
# larger.
_WINDOW_ORDER = 22


@dataclass(frozen=True)
class _Window:
    """
    Mapped pages of vmemmap; ``compound`` is the number of the compound page whose
    tails each may share, or -1, and ``owner`` the first page there with its frame.
    """

    page: np.ndarray
    frame: np.ndarray
    compound: np.ndarray
    owner: np.ndarray
    legal: np.ndarray


def find_aliases(prog: Program, backings: Sequence[Backing]) -> Aliases:
    """
    Find the pages of vmemmap that are shared; none, if nothing can be translated.

    :param backings: In ascending order.
    """
    whole = tuple(np.array([[b.range.start_pfn, b.range.end_pfn]], np.int64) for b in backings)
    nothing = dataclasses.replace(NO_ALIASES, backings=tuple(backings), spans=whole)
    if not backings:
        return nothing
    layout, page_size = page_layout(prog), prog["PAGE_SIZE"].value_()
    if page_size % layout.size or layout.vmemmap % page_size:
        # Then struct pages cross page boundaries, and the kernel never shares them.
        return nothing
    base, per_page = layout.vmemmap // page_size, page_size // layout.size
    found = Aliases(prog, tuple(backings), whole, _EMPTY, _EMPTY, _EMPTY, per_page, base)
    spans, twice = _legal(found, _EMPTY)
    if len(twice):
        page, owner, frame = _illegal_pages(found, twice)
        found = dataclasses.replace(found, page=page, owner=owner, frame=frame)
        spans, _ = _legal(found, page)
    return dataclasses.replace(found, spans=spans)


def _cuts(backing: Backing) -> Iterator[tuple[int, int]]:
    # Between compound pages.
    step, start = 1 << max(_WINDOW_ORDER, backing.vmemmap_shift), backing.range.start_pfn
    while start < backing.range.end_pfn:
        end = start + step - (start - backing.first_pfn) % step
        yield start, min(end, backing.range.end_pfn)
        start = end


def _window(prog: Program, backing: Backing, start_pfn: int, end_pfn: int, base: int) -> _Window:
    first, end = vmemmap_pages(prog, start_pfn, end_pfn)
    frames = vmemmap_page_frames(prog, first, end)
    if frames is None:
        return _Window(_EMPTY, _EMPTY, _EMPTY, _EMPTY, np.empty(0, bool))
    rows = np.flatnonzero(frames != UNMAPPED)
    page, frame = first + rows, frames[rows]
    per_page = prog["PAGE_SIZE"].value_() // page_layout(prog).size
    compound = _compound(backing, (page - base) * per_page, per_page)
    if not backing.vmemmap_shift:
        return _Window(page, frame, compound, page, np.zeros(len(page), bool))
    order = np.lexsort((page, frame, compound))
    compounds, frames = compound[order], frame[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(compounds) != 0) | (np.diff(frames) != 0) | (compounds[1:] < 0)
    owner = np.empty_like(page)
    owner[order] = page[order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]]
    return _Window(page, frame, compound, owner, owner != page)


def _compound(backing: Backing, pfn: np.ndarray, per_page: int) -> np.ndarray:
    # The first page of a compound page's vmemmap has the head: no other page shares it.
    index = pfn - backing.first_pfn
    inner = index % (1 << backing.vmemmap_shift)
    return np.where((index >= 0) & (inner >= per_page), index >> backing.vmemmap_shift, -1)


def _without(window: _Window, illegal: np.ndarray) -> _Window:
    return dataclasses.replace(window, legal=window.legal & ~np.isin(window.page, illegal))


def _legal(found: Aliases, illegal: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    # The spans that are not legal aliases, and frames that are in more than one place.
    seen: dict[int, np.ndarray] = {}
    twice, spans, last = [_EMPTY], [], -1
    for backing in found.backings:
        parts = []
        for start, end in _cuts(backing):
            assert found.prog is not None
            window = _window(found.prog, backing, start, end, found.base)
            window = _without(window, illegal)
            # A page that belongs to two ranges is looked at once.
            own = ~window.legal & (window.page > last)
            twice.append(_seen_before(seen, window.frame[own]))
            last = int(window.page[-1]) if len(window.page) else last
            parts.append(_between(window.page[window.legal], start, end, found))
        spans.append(_joined(np.concatenate(parts)))
    return tuple(spans), sorted_set(np.concatenate(twice))


# Page frames that one bitmap is about: 128 MiB of memory.
_FRAMES_ORDER = 15


def _seen_before(seen: dict[int, np.ndarray], frames: np.ndarray) -> np.ndarray:
    # A bit for each page frame that holds struct pages: what the number of devices
    # is multiplied with must be little.
    frames, counts = np.unique(frames, return_counts=True)
    before = [frames[counts > 1]]
    keys = frames >> _FRAMES_ORDER
    for part in np.split(frames, np.flatnonzero(np.diff(keys)) + 1) if len(frames) else []:
        key, index = int(part[0]) >> _FRAMES_ORDER, part & ((1 << _FRAMES_ORDER) - 1)
        bits = np.zeros(1 << _FRAMES_ORDER, np.uint8)
        if key in seen:
            bits = np.unpackbits(seen[key])
            before.append(part[bits[index] != 0])
        bits[index] = 1
        seen[key] = np.packbits(bits)
    return np.concatenate(before)


def _between(shared: np.ndarray, start_pfn: int, end_pfn: int, found: Aliases) -> np.ndarray:
    starts = (shared - found.base) * found.per_page
    borders = np.stack([np.r_[start_pfn, starts + found.per_page], np.r_[starts, end_pfn]])
    borders = borders.clip(start_pfn, end_pfn).T
    return borders[borders[:, 0] < borders[:, 1]]


def _joined(spans: np.ndarray) -> np.ndarray:
    # Windows are an artefact; adjacent spans become one.
    if not len(spans):
        return spans
    apart = spans[1:, 0] != spans[:-1, 1]
    return np.stack([spans[np.r_[True, apart], 0], spans[np.r_[apart, True], 1]], axis=1)


def _illegal_pages(found: Aliases, twice: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = []
    for backing in found.backings:
        # Ranges that the same promise was cut into have the same compound pages.
        origin = backing.first_pfn
        for start, end in _cuts(backing):
            assert found.prog is not None
            window = _window(found.prog, backing, start, end, found.base)
            rows = np.flatnonzero(np.isin(window.frame, twice))
            origins = np.full(len(rows), origin)
            columns.append(
                np.stack([window.page[rows], window.frame[rows], window.compound[rows], origins])
            )
    page, frame, compound, origin = np.concatenate(columns, axis=1)
    _, once = np.unique(page, return_index=True)
    order = once[np.lexsort((page[once], frame[once]))]
    page, frame, compound, origin = page[order], frame[order], compound[order], origin[order]
    first = np.r_[True, frame[1:] != frame[:-1]]
    owner = np.flatnonzero(first)[np.cumsum(first) - 1]
    legal = (compound >= 0) & (compound == compound[owner]) & (origin == origin[owner])
    bad = np.flatnonzero(~first & ~legal)
    bad = bad[np.argsort(page[bad], kind="stable")]
    return page[bad], page[owner[bad]], frame[bad]


def illegal_aliases(aliases: Aliases) -> Iterator[Finding]:
    """Report pages of vmemmap that share memory illegally."""
    bad = np.arange(len(aliases.page))
    if not len(bad):
        return
    groups = np.split(bad, np.flatnonzero(np.diff(aliases.page) > 1) + 1)
    for backing in aliases.backings:
        for rows in groups:
            start = (int(aliases.page[rows[0]]) - aliases.base) * aliases.per_page
            end = (int(aliases.page[rows[-1]]) + 1 - aliases.base) * aliases.per_page
            start, end = max(start, backing.range.start_pfn), min(end, backing.range.end_pfn)
            if start < end:
                yield _illegal(aliases, int(rows[0]), backing, start, end)


def _illegal(aliases: Aliases, row: int, backing: Backing, start: int, end: int) -> Finding:
    other = (int(aliases.owner[row]) - aliases.base) * aliases.per_page
    page, frame = int(aliases.page[row]), int(aliases.frame[row])
    return make_finding(
        "vmemmap-alias",
        backing.range.case,
        start,
        end,
        pgmap=backing.range.pgmap,
        evidence=(
            Evidence(
                what=f"page of vmemmap {page:#x}",
                value=frame,
                note=f"the page frame that also has the struct page of PFN {other:#x}",
            ),
        ),
    )
