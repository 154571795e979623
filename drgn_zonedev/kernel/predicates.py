# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Predicates in Bulk
------------------

The ``drgn_zonedev.kernel.predicates`` module evaluates for arrays of PFNs what
:mod:`drgn_zonedev.kernel.mmzone`, :mod:`drgn_zonedev.kernel.memremap` and
:mod:`drgn_zonedev.kernel.zone_device` evaluate for one: ``pfn_valid()``,
``pfn_to_online_page()``, ``get_dev_pagemap()``, ``pgmap_pfn_valid()`` and
``pfn_zone_device()``, by the same rules. A million PFNs take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drgn_zonedev.kernel.mmzone import SectionFlags
from drgn_zonedev.kernel.sections import Sections
from drgn_zonedev.model import Pgmap

__all__ = ("Predicates",)


@dataclass(frozen=True)
class Predicates:
    """
    The predicates for an array of PFNs.

    :param pfn: PFNs, in any order.
    """

    flags: SectionFlags
    sections: Sections
    pgmaps: Sequence[Pgmap]
    pfn: np.ndarray

    @cached_property
    def section_row(self) -> np.ndarray:
        """Index of each PFN's section in ``sections``, or -1 if it is not present."""
        return self.sections.row_of(self.pfn)

    def has_flag(self, flag: int) -> np.ndarray:
        """Whether the word of each PFN's section has a flag."""
        if not len(self.sections):
            return np.zeros(len(self.pfn), bool)
        found = (self.sections.word[self.section_row] & np.uint64(flag)) != 0
        return found & (self.section_row >= 0)

    @cached_property
    def pfn_section_valid(self) -> np.ndarray:
        """``pfn_section_valid()``"""
        return self.sections.test_bit(self.sections.subsection_map, self.section_row, self.pfn)

    @cached_property
    def pfn_valid(self) -> np.ndarray:
        """``pfn_valid()``"""
        populated = self.has_flag(self.flags.early) | self.pfn_section_valid
        return self.has_flag(self.flags.has_mem_map) & populated

    @cached_property
    def online(self) -> np.ndarray:
        """Whether ``pfn_to_online_page()`` would return a page; see the function of that name."""
        online = self.has_flag(self.flags.online)
        if self.flags.asks_subsection:
            online = online & self.pfn_section_valid
        if self.flags.asks_claim:
            return online & ~self.claimed
        if not self.flags.taint:
            return online
        return online & ~(self.has_flag(self.flags.taint) & (self.pgmap != 0))

    @cached_property
    def claimed(self) -> np.ndarray:
        """Whether each PFN is in a range of a pgmap, live or not."""
        found = np.zeros(len(self.pfn), bool)
        for pgmap in self.pgmaps:
            for range_ in pgmap.ranges:
                found |= self._within(range_.start_pfn, range_.end_pfn)
        return found

    @cached_property
    def pgmap(self) -> np.ndarray:
        """``get_dev_pagemap()``: address of the live pgmap that claims each PFN, or 0."""
        found = np.zeros(len(self.pfn), np.uint64)
        for pgmap in self.pgmaps:
            if pgmap.ref.state != "live":
                continue
            for range_ in pgmap.ranges:
                found[self._within(range_.start_pfn, range_.end_pfn)] = pgmap.address
        return found

    @cached_property
    def pgmap_pfn_valid(self) -> np.ndarray:
        """``pgmap_pfn_valid()`` of the pgmap that ``get_dev_pagemap()`` finds."""
        found = np.zeros(len(self.pfn), bool)
        for pgmap in self.pgmaps:
            for i, range_ in enumerate(pgmap.ranges[: pgmap.nr_range]):
                found |= self._within(pgmap.pfn_first(i), range_.end_pfn)
        return found & (self.pgmap != 0)

    @cached_property
    def zone_device(self) -> np.ndarray:
        """``pfn_zone_device()``"""
        return self.populated & self.pgmap_pfn_valid

    @cached_property
    def zone_device_reserved(self) -> np.ndarray:
        """``pfn_zone_device_reserved()``"""
        found = np.zeros(len(self.pfn), bool)
        for pgmap in self.pgmaps:
            for range_ in pgmap.ranges[:1] if pgmap.altmap else ():
                reserve = pgmap.altmap.reserve if pgmap.altmap else 0
                end_pfn = min(range_.start_pfn + reserve, range_.end_pfn)
                found |= self._within(range_.start_pfn, end_pfn)
        return found & (self.pgmap != 0) & self.populated

    @cached_property
    def populated(self) -> np.ndarray:
        """Whether the section has a memmap, and the subsection is populated."""
        return self.has_flag(self.flags.has_mem_map) & self.pfn_section_valid

    def _within(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        return (self.pfn >= start_pfn) & (self.pfn < end_pfn)
