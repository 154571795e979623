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
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from drgn import Architecture, IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, page_frames

__all__ = (
    "UNKNOWN",
    "UNMAPPED",
    "VmemmapRules",
    "frames_behind",
    "vmemmap_page_frames",
    "vmemmap_pages",
    "vmemmap_rules",
)

# Pages that are translated together: the struct pages of 16 GiB of pages of 4 KiB.
_WINDOW = 1 << 16


@dataclass(frozen=True)
class VmemmapRules:
    """
    How ``vmemmap_populate()`` of an architecture maps the struct pages of a part of a section.

    ``base_pages`` says whether it uses pages of the size of a page for them, so that nothing else
    gets mapped than what shares these pages; if it is false, a larger page may be used, which maps
    struct pages of memory that is not there. ``shared`` says whether such a page can hold struct
    pages of more than one subsection. ``partial_altmap`` says whether their memory comes from
    the altmap, if there is one; ``None`` if that is not known.
    """

    base_pages: bool
    shared: bool
    partial_altmap: bool | None


@takes_program_or_default
def vmemmap_rules(prog: Program) -> VmemmapRules:
    """Get the rules of this kernel's architecture."""
    assert prog.platform is not None
    arch, page_size = prog.platform.arch, prog["PAGE_SIZE"].value_()
    if arch == Architecture.X86_64:
        # arch/x86/mm/init_64.c: vmemmap_populate_basepages(start, end, node, NULL).
        return VmemmapRules(base_pages=True, shared=False, partial_altmap=False)
    if arch == Architecture.AARCH64:
        # arch/arm64/mm/mmu.c. With pages of 4K, it used pages of 2 MiB for parts of sections, too,
        # up to Linux kernel commit d4234d131b0a ("arm64: mm: Populate vmemmap at the page level
        # if not section aligned") (in v6.14), which leaves no trace.
        return VmemmapRules(base_pages=page_size > 4096, shared=True, partial_altmap=True)
    # vmemmap_populate_hugepages() on riscv64 and loongarch64, PAGE_UNUSED in pages of 1 MiB on
    # s390x (arch/s390/mm/vmem.c), and pages of 2 MiB where alignment permits on ppc64 with a radix
    # MMU (radix__vmemmap_populate() in arch/powerpc/mm/book3s64/radix_pgtable.c).
    return VmemmapRules(base_pages=False, shared=True, partial_altmap=None)


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


def frames_behind(prog: Program, spans: Iterable[tuple[int, int]]) -> tuple[np.ndarray, bool]:
    """
    Get the physical pages that hold the struct pages of some PFNs.

    :param spans: Half-open ranges of PFNs.
    :return: Tuple of (half-open ranges of PFNs in ascending order, which do not overlap, a row
        each; whether all page tables could be read).
    """
    runs, complete = [np.empty((0, 2), np.int64)], True
    for start_pfn, end_pfn in spans:
        first, end = vmemmap_pages(prog, start_pfn, end_pfn)
        for start in range(first, end, _WINDOW):
            frames = page_frames(prog, start, min(start + _WINDOW, end))
            if frames is None:
                complete = False
                continue
            complete &= not (frames == UNKNOWN).any()
            runs.append(_runs(frames[frames >= 0]))
    return _merged(np.concatenate(runs)), bool(complete)


def _runs(frames: np.ndarray) -> np.ndarray:
    breaks = np.flatnonzero(np.diff(frames) != 1) + 1
    if not len(frames):
        return np.empty((0, 2), np.int64)
    first, last = frames[np.r_[0, breaks]], frames[np.r_[breaks - 1, len(frames) - 1]]
    return np.unique(np.stack([first, last + 1], axis=1), axis=0)


def _merged(spans: np.ndarray) -> np.ndarray:
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.r_[True, spans[1:, 0] > ends[:-1]]
    return np.stack([spans[first, 0], ends[np.r_[first[1:], True]]], axis=1)
