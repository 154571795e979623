# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Looks of Kinds
--------------

The colour of each kind of page: RAM that is free is pale, what user space has is green and blue,
and what the kernel has is dark. Those of one colour differ in their hatching.
"""

from __future__ import annotations

from drgn_zonedev.census.kinds import PageKind

__all__ = ("KIND_LOOKS", "KIND_LOOKS_OF_RAM")

_BLACK, _WHITE = "#000000", "#ffffff"

KIND_LOOKS_OF_RAM = {
    PageKind.HWPOISON: ("#c44f00", _WHITE, "cross"),
    PageKind.OFFLINE: ("#6b7280", _WHITE, "down"),
    PageKind.UNACCEPTED: ("#cc79a7", _BLACK, "down"),
    PageKind.HUGETLB: ("#e69f00", _BLACK, None),
    PageKind.SELF_HOSTED_VMEMMAP: ("#f0e442", _BLACK, "up"),
    PageKind.VMEMMAP: ("#f0e442", _BLACK, None),
    PageKind.PAGE_TABLE: ("#7b4b94", _WHITE, None),
    PageKind.SLAB: ("#8c5a2b", _WHITE, None),
    PageKind.KERNEL: ("#8c5a2b", _WHITE, "up"),
    PageKind.RESERVED: ("#6b7280", _WHITE, None),
    PageKind.THP: ("#009e73", _BLACK, "up"),
    PageKind.ANON: ("#009e73", _BLACK, None),
    PageKind.KSM: ("#009e73", _BLACK, "cross"),
    PageKind.SHMEM: ("#56b4e9", _BLACK, "up"),
    PageKind.FILE: ("#56b4e9", _BLACK, None),
    PageKind.ZERO: (_WHITE, _BLACK, "up"),
    PageKind.PCP_FREE: ("#d3d9de", _BLACK, "up"),
    PageKind.FREE: ("#d3d9de", _BLACK, None),
}
"""Fill, ink and hatching of the kinds of RAM's pages; of several in a pixel, the first is drawn."""

KIND_LOOKS = {
    **KIND_LOOKS_OF_RAM,
    **{kind: (_WHITE, _BLACK, None) for kind in PageKind if kind not in KIND_LOOKS_OF_RAM},
}
"""Likewise, of all kinds."""
