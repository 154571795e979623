# SPDX-License-Identifier: LGPL-2.1-or-later

"""
pfn_zone_device()
-----------------

The ``drgn_zonedev.kernel.zone_device`` module provides two functions that were named
on linux-mm in September 2019 and that were never merged into a kernel.

David Hildenbrand wanted "something like pfn_zone_device()" for PFN walkers, similar to
the ``pfn_zone_device_reserved()`` of an earlier patch. Dan Williams proposed a bit for each
subsection that says "whether a sub-section is ZONE_DEVICE, or not". Here,
``pfn_zone_device()`` is defined as true exactly if a struct page belongs to ``ZONE_DEVICE``
*and* may be touched. The series that Toshiki Fukasawa posted in November 2019 added another
bitmap to ``struct mem_section_usage``, ``subsection_dev_map``, which
``subsections_mark_device()`` filled after ``memmap_init_zone_device()``. A bit for
2 MiB cannot distinguish the two pages of an altmap's reserve from the rest of their
subsection, so in that series a walker then asked the pgmap for these.

A debugger does not need the bitmap. ``pgmap_array`` says which pgmap claims a PFN,
``dev_pagemap.nr_range`` which of the claims are initialised, ``vmem_altmap`` where the
data begins, and the reference whether the driver still uses it. The answers are exact
to the page: they are not rounded to subsections.

:class:`~drgn_zonedev.kernel.predicates.Predicates` evaluates both for arrays of PFNs.
"""

from __future__ import annotations

from drgn import IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mmzone import valid_section

from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_ranges,
    get_dev_pagemap,
    pgmap_altmap,
    pgmap_pfn_valid,
)
from drgn_zonedev.kernel.mmzone import pfn_section_valid, require_section, sparsemem_geometry

__all__ = ("pfn_zone_device", "pfn_zone_device_reserved")


@takes_program_or_default
def pfn_zone_device(prog: Program, pfn: IntegerLike) -> bool:
    """
    Return whether a PFN is ``ZONE_DEVICE`` memory whose ``struct page`` may be
    touched.

    That is so if its section has a memmap, its subsection is populated (also required in
    early sections, where ``pfn_valid()`` does not check it), and it lies after
    the altmap's pages in an initialised range of a live pgmap: exactly where
    :func:`~drgn_zonedev.classification.classify.classify` says ``device``.

    It is false for memory that ``memmap_init_zone_device()`` has not finished,
    for an altmap's reserve, for the pages that store the memmap (they are
    initialised, but have no pgmap), for memory that is being removed, for what a removed
    device or a failed ``memremap_pages()`` left behind, and for RAM.

    :param pfn: ``unsigned long``
    """
    pfn = require_number(pfn)
    if not _populated(prog, pfn):
        return False
    pgmap = get_dev_pagemap(prog, pfn)
    return bool(pgmap) and pgmap_pfn_valid(pgmap, pfn)


@takes_program_or_default
def pfn_zone_device_reserved(prog: Program, pfn: IntegerLike) -> bool:
    """
    Return whether a PFN is in the part of a device that its driver reserves
    (``vmem_altmap.reserve``). The struct pages exist, but no kernel
    initialises them: ``memmap_init_range()`` skips them, and
    ``memmap_init_zone_device()`` starts after them.

    :param pfn: ``unsigned long``
    """
    pfn = require_number(pfn)
    if not _populated(prog, pfn):
        return False
    pgmap = get_dev_pagemap(prog, pfn)
    altmap = pgmap_altmap(pgmap) if pgmap else None
    if altmap is None:
        return False
    ranges, _ = dev_pagemap_ranges(pgmap)
    # The kernel refuses an altmap for all ranges but the first.
    return any(
        r.start_pfn <= pfn < min(r.start_pfn + altmap.reserve, r.end_pfn) for r in ranges[:1]
    )


def _populated(prog: Program, pfn: int) -> bool:
    geometry = sparsemem_geometry(prog)
    if not 0 <= pfn < geometry.max_pfn:
        return False
    section = require_section(prog, pfn // geometry.pages_per_section)
    return valid_section(section) and pfn_section_valid(prog, pfn)
