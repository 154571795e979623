# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Census
----------

Counts all pages by kind, node and zone, and by more if asked.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.census.bins import NO_ZONE, Bin
from drgn_zonedev.census.counting import COUNTING, Counted, counts
from drgn_zonedev.census.deciding import NO_PAGE_MARKS
from drgn_zonedev.census.grouping import By, label_names, labels_by
from drgn_zonedev.census.kinds import PAGE_KINDS, PageKind, kind_words
from drgn_zonedev.census.plan import find_marks, plan
from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot, with_names_if_known
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.zones import zone_type_name
from drgn_zonedev.model import KernelFacts, Pgmap
from drgn_zonedev.util.handles import Result, bind
from drgn_zonedev.verification.context import Progress, no_progress
from drgn_zonedev.verification.pool.scanner import scanner
from drgn_zonedev.verification.task import ScanAll, scan_here

__all__ = (
    "Census",
    "DeviceUse",
    "PageGroup",
    "page_census",
    "take_census",
)


@dataclass(frozen=True)
class PageGroup:
    """
    Pages that are alike. ``node`` and ``zone`` are those of the struct page, ``None`` where it
    says nothing; a zone that does not exist is its number. ``order`` is ``None`` unless pages are
    grouped by it. ``label`` is what else they are grouped by: see
    :func:`~drgn_zonedev.census.grouping.label_names`.
    """

    kind: PageKind
    node: int | None
    zone: str | None
    order: int | None
    pages: int
    label: object = None


@dataclass(frozen=True)
class DeviceUse:
    """How many pages of a type of device memory are idle, and how many are in use."""

    type: str
    idle: int
    in_use: int


@dataclass(frozen=True, repr=False)
class Census(Result):
    """
    All pages of all present sections, each in one of the groups. ``devices`` are those of the kind
    ``device``. ``unknown`` says in words what could not be told apart.
    """

    kernel: KernelFacts
    by: By | None
    groups: tuple[PageGroup, ...]
    devices: tuple[DeviceUse, ...]
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Census of {self.total_pages:,} pages: {len(self.groups)} groups>"

    @property
    def total_pages(self) -> int:
        """Number of pages in all groups: that of all PFNs of all present sections."""
        return sum(group.pages for group in self.groups)

    @property
    def pages_by_kind(self) -> dict[PageKind, int]:
        """The kinds that there are, in order of precedence, and how many pages each has."""
        found: Counter[PageKind] = Counter()
        for group in self.groups:
            found[group.kind] += group.pages
        return {kind: found[kind] for kind in PAGE_KINDS if kind in found}


@takes_program_or_default
def page_census(
    prog: Program,
    by: str | By | None = None,
    *,
    progress: Progress = no_progress,
    jobs: int | None = 1,
) -> Census:
    """
    Count all pages by kind, node and zone.

    :param by: Group them further, by ``order``, ``migratetype``, ``flags``, ``slab-cache``,
        ``pgmap`` or ``memory-block``.
    :param progress: Called with the number of bytes of struct pages that were gone
        through since the last call, and with how many there are.
    :param jobs: How many processes go through the struct pages of a core dump; see
        :func:`~drgn_zonedev.report.check()`.
    :raises LookupError: if the debugging information does not have what is needed
    :raises ValueError: if *jobs* is less than 1, or *by* is anything else
    """
    with scanner(prog, jobs) as scan_all:
        return take_census(prog, None if by is None else By(by), progress, scan_all)


def take_census(
    prog: Program,
    by: By | None,
    progress: Progress = no_progress,
    scan_all: ScanAll = scan_here,
) -> Census:
    """
    Like :func:`page_census()`.

    :param scan_all: Scans the struct pages.
    """
    snapshot = take_snapshot(prog)
    stretches = plan(prog, snapshot, classify_snapshot(prog, snapshot))
    decides = any(stretch.kind is None for stretch in stretches)
    marks, unknown = find_marks(prog, snapshot) if decides else (NO_PAGE_MARKS, ())
    labels = None if by is None else labels_by(prog, snapshot, by)
    works = list(counts(stretches, marks, kind_words(prog), labels))
    size, total, whole = page_layout(prog).size, sum(work.pages for work in works), Counted()

    def count_pages(pages: int) -> None:
        progress(pages * size, total * size)

    for counted in scan_all(prog, COUNTING, works, count_pages):
        whole.extend(counted)
    pgmaps = with_names_if_known(prog, snapshot.pgmaps)
    return bind(
        prog,
        Census(
            kernel=kernel_facts(prog),
            by=by,
            groups=tuple(_groups(prog, whole.bins, by, pgmaps)),
            devices=tuple(_devices(whole.bins)),
            unknown=unknown,
        ),
    )


def _groups(
    prog: Program, bins: Counter[Bin], by: By | None, pgmaps: tuple[Pgmap, ...]
) -> Iterator[PageGroup]:
    layout, is_device = page_layout(prog), by is By.PGMAP
    merged: Counter[Bin] = Counter()
    for each, pages in bins.items():
        # Devices are distinguished only when grouping by pgmap.
        merged[each if is_device else each._replace(device=None, in_use=False)] += pages
    name = label_names(prog, by, pgmaps) if by else None
    found: Counter[PageGroup] = Counter()
    for each in sorted(merged, key=_sort_key):
        node, number = divmod(each.zone, layout.zone_mask + 1)
        known = each.zone != NO_ZONE
        # Different labels can have the same name.
        group = PageGroup(
            kind=PAGE_KINDS[each.kind],
            node=node if known else None,
            zone=zone_type_name(prog, number) if known else None,
            order=each.order if by is By.ORDER and known else None,
            pages=0,
            label=name(each) if name else None,
        )
        found[group] += merged[each]
    yield from (dataclasses.replace(group, pages=pages) for group, pages in found.items())


def _sort_key(each: Bin) -> tuple[int, ...]:
    return each.kind, each.zone, each.order, each.label, each.in_use


def _devices(bins: Counter[Bin]) -> Iterator[DeviceUse]:
    pages: Counter[tuple[str, bool]] = Counter()
    for each, number in bins.items():
        if each.device is not None:
            pages[each.device, each.in_use] += number
    for type_ in sorted({type_ for type_, _ in pages}):
        yield DeviceUse(type_, idle=pages[type_, False], in_use=pages[type_, True])
