# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Plan
----

Divides the PFNs of all present sections by what decides the kind of their pages: the range that
they are in, or their struct pages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Program

from drgn_zonedev.census.deciding import PageMarks
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.folio_counts import idle_references
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.kernel.pcp_lists import pcp_free_blocks, unaccepted_blocks
from drgn_zonedev.kernel.vmemmap import frames_behind
from drgn_zonedev.kernel.zero_pages import hpage_pmd_order, huge_zero_pfn, zero_pfn
from drgn_zonedev.model import Case, Memmap, Pgmap, Range
from drgn_zonedev.util.intervals import Span, intersection, union
from drgn_zonedev.verification.promises import DevicePages
from drgn_zonedev.vmcore.exported import leaves_out_ram

__all__ = ("Stretch", "find_marks", "plan", "present_spans")

_NO_SPANS = np.empty((0, 3), np.int64)


@dataclass(frozen=True)
class Stretch:
    """
    PFNs whose kind is decided in one way. All are of ``kind``, except those whose struct page
    cannot be read; if it is ``None``, their struct pages decide. ``is_read`` is false where there
    is nothing to read. ``idle`` is how many references a page of the device has while it is not
    used.
    """

    start_pfn: int
    end_pfn: int
    kind: PageKind | None
    is_read: bool = True
    device: DevicePages | None = None
    idle: int = 0

    @property
    def pages(self) -> int:
        """Number of PFNs."""
        return self.end_pfn - self.start_pfn


def present_spans(snapshot: Snapshot) -> tuple[Span, ...]:
    """The PFNs of all present sections."""
    pages = snapshot.geometry.pages_per_section
    nr = snapshot.sections.nr
    first = np.flatnonzero(np.diff(nr, prepend=nr[:1] - 2) != 1)
    last = np.append(first[1:], len(nr)) - 1
    starts, ends = nr[first] * pages, (nr[last] + 1) * pages if len(nr) else nr
    return tuple(zip(starts.tolist(), ends.tolist()))


def plan(prog: Program, snapshot: Snapshot, ranges: Iterable[Range]) -> list[Stretch]:
    """Get stretches in ascending order, which have every PFN of every present section once."""
    present, exported = present_spans(snapshot), leaves_out_ram(prog)
    pgmaps = {p.address: p for p in snapshot.pgmaps}
    found = []
    for range_ in ranges:
        whole = _stretch(prog, snapshot, pgmaps, range_, exported)
        found += [
            dataclasses.replace(whole, start_pfn=start, end_pfn=end)
            for start, end in intersection((range_.start_pfn, range_.end_pfn), present)
        ]
    return found


def _stretch(
    prog: Program, snapshot: Snapshot, pgmaps: dict[int, Pgmap], range_: Range, exported: bool
) -> Stretch:
    start, end, case = range_.start_pfn, range_.end_pfn, range_.case
    if range_.memmap is Memmap.UNMAPPED:
        return Stretch(start, end, PageKind.UNMAPPED, is_read=False)
    if range_.pgmap is None and case in (Case.ONLINE, Case.METADATA):
        if not snapshot.is_online(start):
            return Stretch(start, end, PageKind.OFFLINE_SECTION)
        if exported:
            return Stretch(start, end, PageKind.NOT_IN_DUMP, is_read=False)
    if case is Case.ONLINE:
        return Stretch(start, end, None)
    pgmap = pgmaps.get(range_.pgmap or 0)
    if case in (Case.DEVICE, Case.TEARDOWN) and pgmap is not None:
        idle = idle_references(prog, pgmap.type, is_live=pgmap.ref.state == "live")
        return Stretch(start, end, PageKind.DEVICE, device=_device(pgmap, range_), idle=idle)
    return Stretch(start, end, _KINDS.get(case, PageKind.UNINITIALISED))


# In the other cases, the kernel does not promise an initialised struct page.
_KINDS = {Case.OFFLINE: PageKind.OFFLINE_SECTION, Case.METADATA: PageKind.METADATA}


def _device(pgmap: Pgmap, range_: Range) -> DevicePages:
    # Where memmap_init_zone_device() started: compound pages are counted from there.
    starts = [
        pgmap.pfn_first(i)
        for i, whole in enumerate(pgmap.ranges)
        if whole.start_pfn <= range_.start_pfn < whole.end_pfn
    ]
    return DevicePages(
        pgmap=pgmap.address,
        type=pgmap.type,
        first_pfn=min(starts[0] if starts else range_.start_pfn, range_.start_pfn),
        end_pfn=range_.end_pfn,
        nodes=(),
        vmemmap_shift=pgmap.vmemmap_shift if range_.case is Case.DEVICE else 0,
    )


def find_marks(prog: Program, snapshot: Snapshot) -> tuple[PageMarks, tuple[str, ...]]:
    """Get what struct pages do not show themselves, and which part of that is not known."""
    zones = snapshot.zones.found if snapshot.zones else ()
    frames, complete = frames_behind(prog, present_spans(snapshot))
    max_order = kinds_of_ram(prog).max_order
    pcp_free = _known(lambda: pcp_free_blocks(prog, zones))
    unaccepted = _known(lambda: unaccepted_blocks(prog, zones, max_order))
    unknown = []
    if not complete:
        unknown.append("which pages hold struct pages is not known: no page tables for all of them")
    if pcp_free is None or snapshot.zones is None:
        unknown.append("which pages are on per-CPU lists is not known: these cannot be read")
    marks = PageMarks(
        vmemmap=_spans(np.c_[frames, np.zeros(len(frames), np.int64)]),
        pcp_free=_of_blocks(pcp_free),
        unaccepted=_of_blocks(unaccepted),
        zero=_spans(np.array([*_zero_pages(prog)], np.int64).reshape(-1, 3)),
        hot_added=_spans(_hot_added(snapshot)),
    )
    return marks, tuple(unknown)


def _known(read: Callable[[], np.ndarray]) -> np.ndarray | None:
    try:
        return read()
    except (LookupError, FaultError):
        return None


def _of_blocks(blocks: np.ndarray | None) -> np.ndarray:
    if blocks is None:
        return _NO_SPANS
    return _spans(np.stack([blocks[:, 0], blocks[:, 0] + (1 << blocks[:, 1]), blocks[:, 1]], 1))


def _spans(spans: np.ndarray) -> np.ndarray:
    # In ascending order. Only damaged ones overlap; then the first one counts.
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if not len(spans):
        return spans.astype(np.int64)
    ends = np.maximum.accumulate(spans[:, 1])
    return spans[np.r_[True, spans[1:, 0] >= ends[:-1]]]


def _zero_pages(prog: Program) -> Iterator[tuple[int, int, int]]:
    for pfn, order in ((zero_pfn(prog), 0), (huge_zero_pfn(prog), hpage_pmd_order(prog))):
        if pfn is not None and pfn < 1 << 52:
            yield pfn, pfn + (1 << order), order


def _hot_added(snapshot: Snapshot) -> np.ndarray:
    pages, sections = snapshot.geometry.pages_per_section, snapshot.sections
    late = sections.nr[(sections.word & np.uint64(snapshot.flags.early)) == 0].tolist()
    merged = union((nr * pages, (nr + 1) * pages) for nr in late)
    return np.array([(start, end, 0) for start, end in merged], np.int64).reshape(-1, 3)
