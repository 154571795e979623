# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Used Pages
----------

Which pages of a device are used, and by whom, window by window: a device may have more
pages than fit into memory at a time.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.folio_counts import (
    GUP_PIN_COUNTING_BIAS,
    FolioCounts,
    folio_counts,
    mappings_take_references,
)
from drgn_zonedev.kernel.memmap import UnreadablePages, read_pages
from drgn_zonedev.kernel.page_holders import HolderKind
from drgn_zonedev.kernel.rmap import Mapping, MappingKind, decode_mapping
from drgn_zonedev.model import Pgmap
from drgn_zonedev.page_users.held_search import Held
from drgn_zonedev.page_users.pins import Gap, HeldBy, MappedBy, Searched, UsedPages
from drgn_zonedev.page_users.vma_search import Hit, VmaSearch

__all__ = (
    "Window",
    "has_references_besides_mappings",
    "merged",
    "used_folios",
    "used_pages",
)

# Types whose pages are mapped without a reference or a count before v6.15.
_UNCOUNTED = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX")

# An odd number, so multiplying by it loses no bits.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Window:
    """
    A part of a pgmap's pages. ``idle`` is how many references a folio has while it is not used.
    ``are_counted`` says whether mappings take references, and are counted.
    """

    prog: Program
    pgmap: Pgmap
    start_pfn: int
    end_pfn: int
    idle: int

    @property
    def are_counted(self) -> bool:
        """Whether mappings of its pages are counted, and take references."""
        return self.pgmap.type not in _UNCOUNTED or mappings_take_references(self.prog)


def used_folios(window: Window) -> tuple[FolioCounts, tuple[Gap, ...]]:
    """Read the folios of a window that may be used."""
    parts, gaps = [], []
    for pages in read_pages(window.prog, window.start_pfn, window.end_pfn):
        if isinstance(pages, UnreadablePages):
            gaps.append(Gap(Searched.STRUCT_PAGES, pages.address, pages.reason))
            continue
        folios = folio_counts(window.prog, pages)
        parts.append(_selected(folios, _may_be_used(window, folios)))
        if not folios.readable.all():
            address = pages.layout.page_address(int(folios.pfn[~folios.readable][0]))
            gaps.append(Gap(Searched.STRUCT_PAGES, address, "a large folio is incomplete"))
    return _joined(parts), tuple(gaps)


def _is_used(window: Window, folios: FolioCounts) -> np.ndarray:
    used: np.ndarray = (folios.references > window.idle) | (folios.mappings > 0)
    return used


def _may_be_used(window: Window, folios: FolioCounts) -> np.ndarray:
    used = _is_used(window, folios)
    return used if window.are_counted else used | (folios.mapping != 0)


def has_references_besides_mappings(window: Window, folios: FolioCounts) -> bool:
    """Whether folios have references that are not those of mappings."""
    return bool((_other_references(window, folios) + folios.pins).any())


def _other_references(window: Window, folios: FolioCounts) -> np.ndarray:
    # References other than those of mappings and pins.
    of_pin = np.where(folios.order > 0, 1, GUP_PIN_COUNTING_BIAS)
    others = folios.references - window.idle - folios.pins * of_pin
    if window.are_counted:
        others = others - folios.mappings
    return np.maximum(others, 0)


_COLUMNS = tuple(field.name for field in dataclasses.fields(FolioCounts))


def _selected(folios: FolioCounts, rows: np.ndarray) -> FolioCounts:
    return FolioCounts(*(getattr(folios, name)[rows] for name in _COLUMNS))


def _joined(parts: Sequence[FolioCounts]) -> FolioCounts:
    if not parts:
        return FolioCounts(*(np.zeros(0, np.int64) for _ in _COLUMNS))
    columns = ([getattr(part, name) for part in parts] for name in _COLUMNS)
    return FolioCounts(*(np.concatenate(column) for column in columns))


def used_pages(
    search: VmaSearch, window: Window, folios: FolioCounts, held: Iterable[Held]
) -> Iterator[UsedPages]:
    """
    Find the users of folios.

    :param folios: Those of the window that may be used.
    """
    hits = tuple(_hits(search, window, folios))
    holds = tuple(hold for hold in (_hold(folios, file) for file in held) if len(hold.rows))
    yield from _described(search, window, _runs(window, folios, hits, holds), hits, holds)


@dataclass(frozen=True)
class _Hold:
    """The holders of folios: the index of a folio for each reference, ascending."""

    held: Held
    rows: np.ndarray


def _hold(folios: FolioCounts, file: Held) -> _Hold:
    if not len(folios.pfn):
        return _Hold(file, np.zeros(0, np.int64))
    at = np.searchsorted(folios.pfn, file.pfns, side="right") - 1
    inside = (at >= 0) & (file.pfns < folios.pfn[at] + (1 << folios.order[at]))
    return _Hold(file, np.sort(at[inside]))


# VMAs that map folios.


def _hits(search: VmaSearch, window: Window, folios: FolioCounts) -> Iterator[Hit]:
    for word, rows in _by_mapping(folios):
        mapping = decode_mapping(word)
        if mapping.kind in (MappingKind.FILE, MappingKind.ANON):
            yield from _hits_of_mapping(search, window, folios, rows, mapping)
        elif _may_be_mapped(window, folios, rows, mapping):
            for vma in search.vmas_without_mapping(window.pgmap):
                yield from search.hits(folios, rows, vma, by_index=False)


def _by_mapping(folios: FolioCounts) -> Iterator[tuple[int, np.ndarray]]:
    # folio->mapping, and the indices of those that have it.
    order = np.argsort(folios.mapping, kind="stable")
    words, firsts = np.unique(folios.mapping[order], return_index=True)
    yield from zip(words.tolist(), np.split(order, firsts[1:]))


def _hits_of_mapping(
    search: VmaSearch, window: Window, folios: FolioCounts, rows: np.ndarray, mapping: Mapping
) -> Iterator[Hit]:
    # In the page tables, a device-private page is a swap entry.
    swapped = window.pgmap.type == "MEMORY_DEVICE_PRIVATE"
    for vma, own in search.near(folios, rows, search.vmas(mapping)):
        if swapped and not search.knows_swap_entries:
            yield from search.covered(folios, own, vma)
        else:
            yield from search.hits(folios, own, vma, by_index=True, swapped=swapped)


def _may_be_mapped(window: Window, folios: FolioCounts, rows: np.ndarray, mapping: Mapping) -> bool:
    if not window.are_counted:
        return mapping.kind is MappingKind.SHARED
    return bool((folios.mappings[rows] > 0).any())


# Runs of folios that are used in the same way.


@dataclass(frozen=True)
class _Runs:
    """
    Folios that are used, and the index of the first one of each run of them. ``run`` is the run
    of each folio, -1 if it is not used.
    """

    folios: FolioCounts
    firsts: np.ndarray
    sizes: np.ndarray
    run: np.ndarray


def _runs(
    window: Window, folios: FolioCounts, hits: Sequence[Hit], holds: Sequence[_Hold]
) -> _Runs:
    used = _is_used(window, folios)
    for hit in hits:
        used[hit.folios] = True
    rows = np.flatnonzero(used)
    pfn, order = folios.pfn[rows], folios.order[rows]
    begins = np.ones(len(rows), bool)
    begins[1:] = pfn[1:] != (pfn + (1 << order))[:-1]
    mapping, index = folios.mapping[rows], folios.index[rows]
    # Pages without a file have no position in one.
    place = np.where(mapping > 1, index - pfn.astype(np.uint64), index)
    columns = (
        *(order, folios.references[rows], folios.pins[rows], folios.mappings[rows]),
        *(mapping, place, _signature(folios, hits, holds)[rows]),
    )
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    run = np.full(len(used), -1, np.int64)
    run[rows] = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    return _Runs(folios, rows[starts], np.diff(starts, append=len(rows)), run)


def _signature(folios: FolioCounts, hits: Sequence[Hit], holds: Sequence[_Hold]) -> np.ndarray:
    # Equal for folios that have the same users.
    users = np.zeros(len(folios.pfn), np.uint64)
    rows = (*(hit.folios for hit in hits), *(np.unique(hold.rows) for hold in holds))
    for number, own in enumerate(rows, 1):
        users[own] = (users[own] + np.uint64(number)) * _MIX
    return users


def _described(
    search: VmaSearch,
    window: Window,
    runs: _Runs,
    hits: Sequence[Hit],
    holds: Sequence[_Hold],
) -> Iterator[UsedPages]:
    mapped_by, held_by = _mappers(search, runs, hits), _holders(runs, holds)
    folios, others = runs.folios, _other_references(window, runs.folios)
    for run, (first, count) in enumerate(zip(runs.firsts.tolist(), runs.sizes.tolist())):
        order, pins = int(folios.order[first]), int(folios.pins[first])
        mappings, start = int(folios.mappings[first]), int(folios.pfn[first])
        users, holders = tuple(mapped_by[run]), tuple(held_by[run])
        use = UsedPages(
            start_pfn=start,
            end_pfn=start + (count << order),
            order=order,
            references=int(folios.references[first]),
            idle=window.idle,
            pins=pins,
            mappings=mappings,
            owner=search.owner(_mapping_of(window, folios, first)),
            index=int(folios.index[first]),
            mapped_by=users,
            held_by=holders,
            unknown_references=_rest(int(others[first]) * count, holders, HolderKind.PIPE),
            unknown_pins=_rest(pins * count, holders, HolderKind.IO_URING),
            unknown_mappings=_unknown_mappings(
                users, order, mappings * count if window.are_counted else 0
            ),
        )
        yield _with_sleepers(search, use)


def _with_sleepers(search: VmaSearch, use: UsedPages) -> UsedPages:
    if not (use.unknown_references or use.unknown_pins):
        return use
    processes = dict.fromkeys(process for user in use.mapped_by for process in user.processes)
    sleepers = (sleeper for process in processes for sleeper in search.sleepers(process))
    return dataclasses.replace(use, sleepers=tuple(sleepers))


def _mappers(
    search: VmaSearch, runs: _Runs, hits: Sequence[Hit]
) -> defaultdict[int, list[MappedBy]]:
    found: defaultdict[int, list[MappedBy]] = defaultdict(list)
    for hit in hits:
        own, firsts = np.unique(runs.run[hit.folios], return_index=True)
        pages = None if hit.pages is None else np.add.reduceat(hit.pages, firsts).tolist()
        vma = hit.vma
        path, processes = search.path(vma.file), search.processes_of(vma.mm)
        for i, run in enumerate(own.tolist()):
            mapped = pages[i] if pages else None
            found[run].append(MappedBy(processes, vma.mm, vma.start, vma.end, path, mapped))
    return found


def _holders(runs: _Runs, holds: Sequence[_Hold]) -> defaultdict[int, list[HeldBy]]:
    found: defaultdict[int, list[HeldBy]] = defaultdict(list)
    for hold in holds:
        own, counts = np.unique(runs.run[hold.rows], return_counts=True)
        for run, count in zip(own.tolist(), counts.tolist()):
            found[run].append(HeldBy(hold.held.holder, hold.held.opened_by, count))
    return found


def _rest(count: int, holders: Sequence[HeldBy], kind: HolderKind) -> int:
    # How many references have no holder of this kind.
    taken = sum(user.references for user in holders if user.holder.kind is kind)
    return max(count - taken, 0)


def _mapping_of(window: Window, folios: FolioCounts, row: int) -> Mapping:
    mapping = decode_mapping(int(folios.mapping[row]))
    # folio->share is where the index was: dax_folio_is_shared().
    is_shared = (
        mapping.kind is MappingKind.NONE
        and window.pgmap.type == "MEMORY_DEVICE_FS_DAX"
        and bool(folios.index[row])
    )
    return Mapping(MappingKind.SHARED, 0) if is_shared else mapping


def _unknown_mappings(mapped_by: Sequence[MappedBy], order: int, mappings: int) -> int:
    # A mapping of a large folio may be of one page of it, or of all.
    if order or any(user.pages is None for user in mapped_by):
        return 0 if mapped_by else mappings
    return max(mappings - sum(user.pages or 0 for user in mapped_by), 0)


# Uses that a border between two windows has divided.


def merged(uses: Iterable[UsedPages]) -> tuple[UsedPages, ...]:
    """Join equal uses that are adjacent."""
    joined: list[UsedPages] = []
    for use in uses:
        if joined and _is_continued(joined[-1], use):
            joined[-1] = _sum(joined[-1], use)
        else:
            joined.append(use)
    return tuple(joined)


def _is_continued(first: UsedPages, second: UsedPages) -> bool:
    return first.end_pfn == second.start_pfn and _kind(first) == _kind(second)


def _kind(use: UsedPages) -> object:
    mapped = [(user.mm, user.start, user.pages is None) for user in use.mapped_by]
    counts = (use.order, use.references, use.pins, use.mappings)
    place = use.index - use.start_pfn if use.owner.address else use.index
    return counts, use.owner, place, mapped, [user.holder for user in use.held_by]


def _sum(first: UsedPages, second: UsedPages) -> UsedPages:
    return dataclasses.replace(
        first,
        end_pfn=second.end_pfn,
        mapped_by=tuple(
            dataclasses.replace(a, pages=None if a.pages is None else a.pages + (b.pages or 0))
            for a, b in zip(first.mapped_by, second.mapped_by)
        ),
        held_by=tuple(
            dataclasses.replace(a, references=a.references + b.references)
            for a, b in zip(first.held_by, second.held_by)
        ),
        unknown_references=first.unknown_references + second.unknown_references,
        unknown_pins=first.unknown_pins + second.unknown_pins,
        unknown_mappings=first.unknown_mappings + second.unknown_mappings,
    )
