# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Variants
--------

The ways to build ``pfn_zone_device()``, as data: what is looked up, and what for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.proposal.marks import Marks
from drgn_zonedev.snapshot import Snapshot

__all__ = ("VARIANTS", "Asked", "Variant")


@dataclass(frozen=True)
class Asked:
    """PFNs, and what a lookup could find out about them."""

    snapshot: Snapshot
    marks: Marks
    predicates: Predicates

    def bit(self, bitmap: np.ndarray) -> np.ndarray:
        """A bit of the PFNs' subsections."""
        p = self.predicates
        return self.snapshot.sections.test_bit(bitmap, p.section_row, p.pfn)

    def flag(self, column: np.ndarray) -> np.ndarray:
        """A flag of the PFNs' sections."""
        row = self.predicates.section_row
        if not len(column):
            return np.zeros(len(row), bool)
        return column[row] & (row >= 0)

    @cached_property
    def has_pgmap(self) -> np.ndarray:
        """``get_dev_pagemap() != NULL``"""
        return self.predicates.pgmap != 0

    @cached_property
    def online_with_taint(self) -> np.ndarray:
        """``pfn_to_online_page() != NULL`` by the rules of v5.12, whatever kernel this is."""
        p = self.predicates
        online = p.has_flag(self.snapshot.flags.online) & p.pfn_section_valid
        return online & ~(self.flag(self.marks.taint) & self.has_pgmap)


@dataclass(frozen=True)
class Variant:
    """
    A way to build it.

    ``bitmaps`` is how many bits a subsection would have besides that of
    ``subsection_map``. ``reads`` names what a lookup reads, in order: see
    :mod:`drgn_zonedev.proposal.cost`.
    """

    name: str
    what: str
    set: str
    cleared: str
    bitmaps: int
    reads: tuple[str, ...]
    lookup: Callable[[Asked], np.ndarray]


_BIT = ("section", "usage", "bitmap")

VARIANTS = (
    Variant(
        name="section-flag",
        what="a flag in the section's word",
        set="early: when the memory is hot-added",
        cleared="with the section",
        bitmaps=0,
        reads=("section",),
        lookup=lambda a: a.flag(a.marks.section),
    ),
    Variant(
        name="section-flag+pgmap",
        what="the same, and get_dev_pagemap() where it is set",
        set="early: when the memory is hot-added",
        cleared="with the section",
        bitmaps=0,
        reads=("section", "pgmap_array", "reference"),
        lookup=lambda a: a.flag(a.marks.section) & a.has_pgmap,
    ),
    Variant(
        name="taint+pgmap",
        what="pfn_valid(), not pfn_to_online_page(), and get_dev_pagemap(), as since v5.12",
        set="SECTION_TAINT_ZONE_DEVICE early, where a device ends inside of a section",
        cleared="with the section",
        bitmaps=0,
        reads=("section", "usage", "subsection_map", "pgmap_array", "reference"),
        lookup=lambda a: a.predicates.pfn_valid & ~a.online_with_taint & a.has_pgmap,
    ),
    Variant(
        name="early-bit",
        what="a bit for each subsection, set early",
        set="in fill_subsection_map(), when the memory is hot-added",
        cleared="in section_deactivate()",
        bitmaps=1,
        reads=_BIT,
        lookup=lambda a: a.predicates.pfn_valid & a.bit(a.marks.early),
    ),
    Variant(
        name="late-bit",
        what="a bit for each subsection, set late, as posted in November 2019",
        set="behind memmap_init_zone_device(), for the whole range",
        cleared="in section_deactivate()",
        bitmaps=1,
        reads=_BIT,
        lookup=lambda a: a.predicates.pfn_valid & a.bit(a.marks.late),
    ),
    Variant(
        name="late-bit-data",
        what="the same, with the altmap's head left unmarked",
        set="behind memmap_init_zone_device(), for the data only",
        cleared="in section_deactivate()",
        bitmaps=1,
        reads=_BIT,
        lookup=lambda a: a.predicates.pfn_valid & a.bit(a.marks.late_data),
    ),
    Variant(
        name="two-bits",
        what="two bits for each subsection: owned by a device, and initialised",
        set="owned early; initialised behind memmap_init_zone_device(), for the data only",
        cleared="initialised before the reference is killed; owned in section_deactivate()",
        bitmaps=2,
        reads=_BIT,
        lookup=lambda a: a.predicates.populated & a.bit(a.marks.early) & a.bit(a.marks.touchable),
    ),
    Variant(
        name="pgmap+range",
        what="get_dev_pagemap() and pgmap_pfn_valid(), as memory_failure() does",
        set="nothing: nr_range is counted up behind memmap_init_zone_device()",
        cleared="nothing: the reference is killed first",
        bitmaps=0,
        reads=("pgmap_array", "reference", "ranges"),
        lookup=lambda a: a.predicates.pgmap_pfn_valid,
    ),
)
