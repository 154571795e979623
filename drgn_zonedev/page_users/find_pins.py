# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Finding Pins
------------

Why does unbind hang, and what keeps this page?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from drgn import Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot, with_devices
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.explanation.resolve import (
    UnknownNameError,
    listed,
    resolve,
    warn_of_others,
)
from drgn_zonedev.kernel.folio_counts import idle_references
from drgn_zonedev.kernel.memmap import UnreadablePages, page_layout, read_pages
from drgn_zonedev.model import Case, Finding, Pgmap, Range
from drgn_zonedev.page_users.held_search import Held, find_held
from drgn_zonedev.page_users.pins import Gap, PgmapPins, Pins, Searched, UsedPages, Waiter
from drgn_zonedev.page_users.reference_sum import reference_sum
from drgn_zonedev.page_users.used_pages import (
    Window,
    has_references_besides_mappings,
    merged,
    used_folios,
    used_pages,
)
from drgn_zonedev.page_users.vma_search import VmaSearch
from drgn_zonedev.page_users.waiting import Waiting, waits_for_pages, waits_for_removal
from drgn_zonedev.util.handles import bind
from drgn_zonedev.util.strings import printable

__all__ = ("find_pins",)

# Pages that are looked at together: 2 GiB of them, if they have 4 KiB.
_WINDOW = 1 << 19

# The most runs of differently used pages of a pgmap: more than anyone reads.
_MOST_USES = 1 << 16
_TOO_MANY = f"more than {_MOST_USES} runs of pages are used differently: ask about a PFN"

# Memory of a pgmap that has struct pages.
_CASES = (Case.DEVICE, Case.TEARDOWN)


@takes_program_or_default
def find_pins(
    prog: Program,
    what: int | str | Object | Range | Finding | Pgmap | None = None,
    kind: str | None = None,
) -> Pins:
    """
    Find what keeps the pages of devices in use: their references, pins and mappings, who has these,
    and who waits until they are gone.

    :param what: The name of a device or its disk, the address of a ``struct dev_pagemap``, or a
        :class:`~drgn_zonedev.model.Pgmap`, for all of its pages; anything that
        :func:`~drgn_zonedev.explanation.resolve.resolve` takes, for one page; by default,
        the pages of all devices.
    :param kind: ``pfn``, ``phys`` or ``page``: the kind of the number, instead of a guess.
    :raises LookupError: if a type or symbol is missing in the debugging information
    :raises ValueError: if there is no such device or page
    """
    snapshot = take_snapshot(prog)
    subject = _subject(prog, snapshot, what, kind)
    search = _PinSearch(prog, snapshot, subject)
    pgmaps = tuple(search.of_pgmap(pgmap) for pgmap in subject.pgmaps)
    return bind(prog, Pins(kernel_facts(prog), subject.pfn, pgmaps, search.gaps))


# Which pages are meant.


@dataclass(frozen=True)
class _Subject:
    """The pgmaps that are meant, and the page, if it is one of theirs."""

    pgmaps: tuple[Pgmap, ...]
    pfn: int | None


def _subject(
    prog: Program,
    snapshot: Snapshot,
    what: int | str | Object | Range | Finding | Pgmap | None,
    kind: str | None,
) -> _Subject:
    pgmaps = with_devices(prog, snapshot.pgmaps)
    if what is None:
        return _Subject(pgmaps, None)
    if named := tuple(pgmap for pgmap in pgmaps if _is_named(pgmap, what)):
        return _Subject(named, None)
    # Otherwise, the number is of that kind.
    if kind is None and (there := tuple(p for p in pgmaps if _is_at(p, what))):
        return _Subject(there, None)
    if isinstance(what, Pgmap):
        raise ValueError(f"pgmap {what.address:#x} is not in pgmap_array any more")
    try:
        page = resolve(prog, what, kind, snapshot.resources)
    except UnknownNameError as e:
        raise UnknownNameError(f"there is no device {what!r}: {_choices(pgmaps)}") from e
    except ValueError as e:
        known = _known_names(pgmaps)
        raise ValueError(f"{e}; devices: {listed(known)}" if known else str(e)) from e
    owners = tuple(pgmap for pgmap in pgmaps if pgmap.contains(page.pfn))
    if not owners:
        raise ValueError(
            f"PFN {page.pfn:#x} is not device memory: give a page of a device, or its name"
        )
    warn_of_others(page)
    return _Subject(owners, None if page.kind == "resource" else page.pfn)


def _known_names(pgmaps: Sequence[Pgmap]) -> list[str]:
    return list(dict.fromkeys(name for pgmap in pgmaps for name in _names(pgmap)))


def _choices(pgmaps: Sequence[Pgmap]) -> str:
    names = _known_names(pgmaps)
    devices = f"the name of a device ({listed(names)}), " if names else ""
    return f"give {devices}the address of a struct dev_pagemap, which pgmaps lists, or a PFN"


def _is_named(pgmap: Pgmap, what: object) -> bool:
    if isinstance(what, Pgmap):
        return what.address == pgmap.address
    return isinstance(what, str) and what.replace("/dev/", "", 1) in _names(pgmap)


def _is_at(pgmap: Pgmap, what: object) -> bool:
    if isinstance(what, Object):
        is_pgmap = what.type_.type_name() == "struct dev_pagemap *"
        return is_pgmap and bool(what.value_() == pgmap.address)
    return (_number(what) if isinstance(what, str) else what) == pgmap.address


def _names(pgmap: Pgmap) -> list[str]:
    device = pgmap.device
    return [printable(name) for name in (device.name, device.disk) if name] if device else []


def _number(text: str) -> int | None:
    # With or without 0x, as addresses are printed.
    for base in (0, 16):
        try:
            return int(text, base)
        except ValueError:
            continue
    return None


def _initialised(pgmap: Pgmap, range_: Range) -> Iterator[tuple[int, int]]:
    # The range of a device that is being removed includes the altmap's pages.
    for i, own in enumerate(pgmap.ranges[: pgmap.nr_range]):
        start, end = max(range_.start_pfn, pgmap.pfn_first(i)), min(range_.end_pfn, own.end_pfn)
        if start < end:
            yield start, end


# What keeps them.


class _PinSearch:
    """Looks for the users of pgmaps' pages, and keeps data that several searches need."""

    def __init__(self, prog: Program, snapshot: Snapshot, subject: _Subject) -> None:
        self._prog = prog
        self._subject = subject
        self._ranges = classify_snapshot(prog, snapshot)
        self._gaps: list[Gap] = []

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What could not be searched."""
        of_vmas = self._vmas.gaps if "_vmas" in vars(self) else ()
        return tuple(dict.fromkeys((*self._gaps, *of_vmas)))

    # Only made if there is a page whose users are to be found.

    @cached_property
    def _vmas(self) -> VmaSearch:
        return VmaSearch(self._prog)

    @cached_property
    def _held(self) -> tuple[Held, ...]:
        ranges = [r for pgmap in self._subject.pgmaps for r in pgmap.ranges]
        held, gaps = find_held(self._prog, self._vmas.processes, ranges)
        self._gaps += gaps
        return held

    @cached_property
    def _waits(self) -> Waiting:
        waiting = waits_for_pages(self._prog)
        self._gaps += waiting.gaps
        return waiting

    def of_pgmap(self, pgmap: Pgmap) -> PgmapPins:
        """Find the users of a pgmap's pages, or of the one page that was asked about."""
        windows = list(self._windows(pgmap))
        found = (use for window in windows for use in self._uses(window))
        uses = merged(islice(found, _MOST_USES))
        more = next(found, None)
        if more is not None:
            self._gaps.append(
                Gap(
                    Searched.STRUCT_PAGES,
                    page_layout(self._prog).page_address(more.start_pfn),
                    _TOO_MANY,
                )
            )
        is_whole = self._subject.pfn is None and more is None
        return PgmapPins(
            pgmap=pgmap,
            pages=sum(window.end_pfn - window.start_pfn for window in windows),
            references=reference_sum(self._prog, pgmap, uses) if is_whole else None,
            uses=tuple(bind(self._prog, use) for use in uses),
            waiters=self._waiters(pgmap, windows),
        )

    def _windows(self, pgmap: Pgmap) -> Iterator[Window]:
        idle = idle_references(self._prog, pgmap.type, is_live=pgmap.ref.state == "live")
        for start, end in self._spans(pgmap):
            for first in range(start, end, _WINDOW):
                yield Window(self._prog, pgmap, first, min(first + _WINDOW, end), idle)

    def _spans(self, pgmap: Pgmap) -> Iterator[tuple[int, int]]:
        pfn = self._subject.pfn
        for range_ in self._ranges:
            if range_.pgmap != pgmap.address or range_.case not in _CASES:
                continue
            if pfn is None:
                yield from _initialised(pgmap, range_)
            elif range_.start_pfn <= pfn < range_.end_pfn:
                yield self._folio_of(pfn)

    def _folio_of(self, pfn: int) -> tuple[int, int]:
        # The count of a folio's first page is that of all its pages.
        pages = next(read_pages(self._prog, pfn, pfn + 1))
        if isinstance(pages, UnreadablePages) or not pages.is_tail[0]:
            return pfn, pfn + 1
        head = (int(pages.head[0]) - pages.layout.vmemmap) // pages.layout.size
        return (head, head + 1) if 0 <= head < pfn else (pfn, pfn + 1)

    def _uses(self, window: Window) -> Iterator[UsedPages]:
        folios, gaps = used_folios(window)
        self._gaps += gaps
        if len(folios.pfn):
            held = self._held if has_references_besides_mappings(window, folios) else ()
            yield from used_pages(self._vmas, window, folios, held)

    def _waiters(self, pgmap: Pgmap, windows: Sequence[Window]) -> tuple[Waiter, ...]:
        removal = waits_for_removal(self._prog, pgmap)
        self._gaps += removal.gaps
        of_pages = (
            waiter
            for waiter in self._waits.waiters
            if any(w.start_pfn <= (waiter.pfn or 0) < w.end_pfn for w in windows)
        )
        return (*removal.waiters, *of_pages)
