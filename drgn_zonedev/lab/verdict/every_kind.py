# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the census's kind of every page with what the guest's kernel said of it when its machine was
stopped.

Both are read from the memory of that instant, so that nothing may differ. Pages on per-CPU lists
are not an exception: the module walked the lists in the same instant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import Program

from drgn_zonedev.census.kinds import PAGE_KINDS, PageKind
from drgn_zonedev.census.listing import page_kinds
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.lab.truth.frozen import Frozen, Is, Use
from drgn_zonedev.lab.verdict.disagreement import Disagreement, runs

__all__ = ("kind_disagreements",)

# Which bits of which answers decide, in the order of precedence.
_DECIDED: tuple[tuple[str, int, PageKind], ...] = (
    ("answers", Is.MEMMAP, PageKind.VMEMMAP),
    ("answers", Is.BUDDY, PageKind.FREE),
    # Those after the first page of a free block.
    ("uses", Use.BUDDY, PageKind.FREE),
    ("answers", Is.PCP, PageKind.PCP_FREE),
    ("answers", Is.UNACCEPTED, PageKind.UNACCEPTED),
    ("answers", Is.OFFLINE, PageKind.OFFLINE),
    ("answers", Is.HWPOISON, PageKind.HWPOISON),
    ("answers", Is.RESERVED, PageKind.RESERVED),
    ("answers", Is.SLAB, PageKind.SLAB),
    ("answers", Is.TABLE, PageKind.PAGE_TABLE),
    ("answers", Is.HUGETLB, PageKind.HUGETLB),
    ("answers", Is.HUGE_ZERO, PageKind.ZERO),
    ("uses", Use.ZERO_PAGE, PageKind.ZERO),
    ("uses", Use.THP, PageKind.THP),
    ("answers", Is.KSM, PageKind.KSM),
    ("answers", Is.SHMEM, PageKind.SHMEM),
    ("answers", Is.FILE, PageKind.FILE),
    ("uses", Use.ANON | Use.SWAPCACHE, PageKind.ANON),
)
# What the pages of ranges are depends on their case, which is compared elsewhere.
_OF_RANGES = (PageKind.UNMAPPED, PageKind.UNINITIALISED)
# Set aside for struct pages, of a device or at the head of a memory block.
_ALSO = {
    PageKind.METADATA: (PageKind.DEVICE, PageKind.VMEMMAP),
    PageKind.SELF_HOSTED_VMEMMAP: (PageKind.VMEMMAP,),
}


def kind_disagreements(prog: Program, frozen: Frozen) -> Iterator[Disagreement]:
    """Yield where the kinds of pages differ, of all PFNs that the kernel answered for."""
    pfn, theirs = frozen.pfn, kinds_of_kernel(prog, frozen)
    for first, end in runs(pfn):
        ours = page_kinds(prog, int(pfn[first]), int(pfn[end - 1]) + 1).kind
        yield from _differences(pfn[first:end], ours, theirs[first:end])


def _differences(pfn: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> Iterator[Disagreement]:
    wrong = (ours != theirs) & ~np.isin(ours, [kind.code for kind in _OF_RANGES])
    for kind, others in _ALSO.items():
        wrong &= ~((ours == kind.code) & np.isin(theirs, [other.code for other in others]))
    rows = np.flatnonzero(wrong)
    pfn, ours, theirs = pfn[rows], ours[rows], theirs[rows]
    for first, end in runs(pfn, ours, theirs):
        start_pfn, end_pfn = int(pfn[first]), int(pfn[end - 1]) + 1
        yield Disagreement("kind", _name(ours[first]), _name(theirs[first]), start_pfn, end_pfn)


def _name(code: int) -> str:
    return PAGE_KINDS[code].value if code < len(PAGE_KINDS) else "not there"


def kinds_of_kernel(prog: Program, frozen: Frozen) -> np.ndarray:
    """Get the code of the kind that each page is of by the kernel's answers."""
    is_device = frozen.runs["zone"] == page_layout(prog).zone_device
    decided = [(frozen.runs[name] & np.uint32(bits)) != 0 for name, bits, _ in _DECIDED]
    codes = [PageKind.DEVICE.code, *(kind.code for *_, kind in _DECIDED)]
    kinds = np.select([is_device, *decided], codes, PageKind.KERNEL.code)
    return frozen.spread(kinds.astype(np.uint8))
