# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Memory Behind vmemmap
-------------------------

The ``drgn_zonedev.kernel.vmemmap`` module looks up the physical pages that hold the
struct pages. Since Linux kernel v5.19, tails of compound device pages can share them
(``vmemmap_populate_compound_pages()``); only the page tables say where they do.
"""

from __future__ import annotations

import operator

import numpy as np
from drgn import IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, page_frames

__all__ = ("UNMAPPED", "vmemmap_page_frames", "vmemmap_pages")


@takes_program_or_default
def vmemmap_pages(prog: Program, start_pfn: IntegerLike, end_pfn: IntegerLike) -> tuple[int, int]:
    """
    Get the pages of vmemmap that hold the struct pages of a range of PFNs.

    :return: Half-open range of page numbers (virtual address divided by the page
        size).
    """
    start, end = operator.index(start_pfn), operator.index(end_pfn)
    return page_layout(prog).memmap_pages(start, end, prog["PAGE_SIZE"].value_())


@takes_program_or_default
def vmemmap_page_frames(prog: Program, first: int, end: int) -> np.ndarray | None:
    """
    Translate pages of vmemmap: see :func:`~drgn_zonedev.vmcore.pagetables.page_frames()`.

    :param first: Virtual page number, see :func:`vmemmap_pages()`.
    :param end: One more than the last.
    :return: PFN of each page, or :data:`UNMAPPED`; ``None`` if nothing can be
        translated, or if the dump does not have all page tables.
    """
    frames = page_frames(prog, first, end)
    return None if frames is None or (frames == UNKNOWN).any() else frames
