# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Variants
--------

The variants of ``pfn_zone_device()``, as data: what a lookup checks, and what it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.pfn_proposal.marks import Marks

__all__ = ("VARIANTS", "Asked", "Variant")


@dataclass(frozen=True)
class Asked:
    """PFNs, and all data that a lookup could check."""

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
        """``pfn_to_online_page() != NULL`` by the rules of v5.12, also on older kernels."""
        return self.online_memory & ~(self.flag(self.marks.taint) & self.has_pgmap)

    @cached_property
    def online_memory(self) -> np.ndarray:
        """In an online section and a populated subsection: RAM, or a device in a RAM section."""
        p = self.predicates
        return p.has_flag(self.snapshot.flags.online) & p.pfn_section_valid

    @cached_property
    def reserved(self) -> np.ndarray:
        """``pfn < altmap->base_pfn + altmap->reserve``, of the pgmap that claims it"""
        found = np.zeros(len(self.predicates.pfn), bool)
        for pgmap in self.snapshot.pgmaps:
            if pgmap.altmap:
                end_pfn = pgmap.altmap.base_pfn + pgmap.altmap.reserve
                for range_ in pgmap.ranges:
                    pfn = self.predicates.pfn
                    found |= (pfn >= range_.start_pfn) & (pfn < min(end_pfn, range_.end_pfn))
        return found


@dataclass(frozen=True)
class Variant:
    """
    A way to build ``pfn_zone_device()``.

    ``bitmaps`` is the number of bits per subsection in addition to ``subsection_map``. ``calls``
    names the functions that a lookup calls, in order; ``again`` names those for another PFN of the
    same range, if the walker keeps the pgmap and its reference: see
    :mod:`drgn_zonedev.pfn_proposal.cost`.

    ``lookup`` computes the answer, and ``owned`` the other bit of a variant with two.
    """

    name: str
    what: str
    set: str
    cleared: str
    bitmaps: int
    calls: tuple[str, ...]
    again: tuple[str, ...]
    lookup: Callable[[Asked], np.ndarray]
    owned: Callable[[Asked], np.ndarray] | None = None

    def online(self, asked: Asked) -> np.ndarray:
        """
        What ``pfn_to_online_page()`` would take for RAM, if it used this variant instead of
        ``SECTION_TAINT_ZONE_DEVICE`` and ``get_dev_pagemap()``.
        """
        return asked.online_memory & ~(self.owned or self.lookup)(asked)


_GET_PUT = ("get_dev_pagemap", "put_dev_pagemap")
_LATE = ("pfn_valid", "posted_bit")


def _section_flag(asked: Asked) -> np.ndarray:
    return asked.flag(asked.marks.section)


def _section_flag_pgmap(asked: Asked) -> np.ndarray:
    return asked.flag(asked.marks.section) & asked.has_pgmap


def _taint_pgmap(asked: Asked) -> np.ndarray:
    return asked.predicates.pfn_valid & ~asked.online_with_taint & asked.has_pgmap


def _early(asked: Asked) -> np.ndarray:
    return _has_memmap(asked) & asked.bit(asked.marks.early)


def _late(asked: Asked) -> np.ndarray:
    return asked.predicates.pfn_valid & asked.bit(asked.marks.late)


def _late_reserve(asked: Asked) -> np.ndarray:
    return _late(asked) & asked.has_pgmap & ~asked.reserved


def _late_data(asked: Asked) -> np.ndarray:
    return _has_memmap(asked) & asked.bit(asked.marks.late_data)


def _initialized(asked: Asked) -> np.ndarray:
    return _has_memmap(asked) & asked.bit(asked.marks.touchable)


def _pgmap_range(asked: Asked) -> np.ndarray:
    return asked.predicates.pgmap_pfn_valid


def _has_memmap(asked: Asked) -> np.ndarray:
    return asked.predicates.has_flag(asked.snapshot.flags.has_mem_map)


VARIANTS = (
    Variant(
        name="section-flag",
        what="a flag in the section's word",
        lookup=_section_flag,
        set="early: when the memory is hot-added",
        cleared="with the section",
        bitmaps=0,
        calls=("section",),
        again=("section",),
    ),
    Variant(
        name="section-flag+pgmap",
        what="the same, and get_dev_pagemap() if it is set",
        lookup=_section_flag_pgmap,
        set="early: when the memory is hot-added",
        cleared="with the section",
        bitmaps=0,
        calls=("section", *_GET_PUT),
        again=("section", "range"),
    ),
    Variant(
        name="taint+pgmap",
        what="pfn_valid(), not pfn_to_online_page(), and get_dev_pagemap(), as since v5.12",
        lookup=_taint_pgmap,
        set="SECTION_TAINT_ZONE_DEVICE early, where a device ends inside a section",
        cleared="with the section",
        bitmaps=0,
        calls=("pfn_valid", "pfn_to_online_page", *_GET_PUT),
        again=("pfn_valid", "pfn_to_online_page", "range"),
    ),
    Variant(
        name="early-bit",
        what="a bit for each subsection, set early",
        lookup=_early,
        set="in fill_subsection_map(), when the memory is hot-added",
        cleared="in section_deactivate()",
        bitmaps=1,
        calls=("first_bit",),
        again=("first_bit",),
    ),
    Variant(
        name="late-bit",
        what="a bit for each subsection, set late: patch 2/3 of November 2019 alone",
        lookup=_late,
        set="after memmap_init_zone_device(), for the whole range",
        cleared="in section_deactivate()",
        bitmaps=1,
        calls=_LATE,
        again=_LATE,
    ),
    Variant(
        name="late-bit+reserve",
        what="the same, and not in altmap->reserve: with patch 3/3, the whole series",
        lookup=_late_reserve,
        set="after memmap_init_zone_device(), for the whole range",
        cleared="in section_deactivate(); get_dev_pagemap() fails earlier, once the reference is "
        "killed",
        bitmaps=1,
        calls=(*_LATE, "get_dev_pagemap", "reserve", "put_dev_pagemap"),
        again=_LATE,
    ),
    Variant(
        name="late-bit-data",
        what="patch 2/3, but with the altmap's pages left unmarked",
        lookup=_late_data,
        set="after memmap_init_zone_device(), for the data only",
        cleared="in section_deactivate()",
        bitmaps=1,
        calls=("first_bit",),
        again=("first_bit",),
    ),
    Variant(
        name="two-bits",
        what="two bits for each subsection: owned by a device, and initialised (the one to check)",
        lookup=_initialized,
        owned=_early,
        set="owned early; initialised after memmap_init_zone_device(), for the data only",
        cleared="initialised before the reference is killed; owned in section_deactivate()",
        bitmaps=2,
        calls=("second_bit",),
        again=("second_bit",),
    ),
    Variant(
        name="pgmap+range",
        what="get_dev_pagemap() and pgmap_pfn_valid(), as memory_failure() does",
        lookup=_pgmap_range,
        set="nothing: nr_range is incremented after memmap_init_zone_device()",
        cleared="nothing: the reference is killed first",
        bitmaps=0,
        calls=("get_dev_pagemap", "pgmap_pfn_valid", "put_dev_pagemap"),
        again=("range",),
    ),
)
