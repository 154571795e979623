# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Cases
-----

The properties of cases that all views share: which matter most if there is not enough room
for all, their letters, and which a walker must not read; and what cases do not say of the memory
behind struct pages.
"""

from __future__ import annotations

from drgn_zonedev.model import Access, Case, Range

__all__ = ("LETTERS", "TELLING", "may_read", "unusual_access")

# If there is room for only one case, the first of these is shown: unknown first, because it
# may be any case, and cases that are changing before those that are not.
TELLING = (
    Case.UNKNOWN,
    Case.INITIALIZING,
    Case.TEARDOWN,
    Case.GHOST,
    Case.ORPHAN,
    Case.RESERVED,
    Case.PARTIAL,
    Case.OFFLINE,
    Case.METADATA,
    Case.DEVICE,
    Case.ONLINE,
)

# Capitals mark cases that a PFN walker must not read.
LETTERS = {
    Case.UNKNOWN: "?",
    Case.INITIALIZING: "I",
    Case.TEARDOWN: "T",
    Case.GHOST: "G",
    Case.ORPHAN: "X",
    Case.RESERVED: "R",
    Case.PARTIAL: "P",
    Case.OFFLINE: "F",
    Case.METADATA: "m",
    Case.DEVICE: "d",
    Case.ONLINE: "o",
}


def may_read(case: Case) -> bool:
    """Return whether a PFN walker that checks the PFN may read struct pages of that case."""
    return LETTERS[case].islower()


# What no case says of the memory behind struct pages.
_UNUSUAL = {
    Access.OFFLINE: "its memory is logically offline (PageOffline)",
    Access.HWPOISON: "its memory is poisoned (hwpoison)",
    Access.UNACCEPTED: "its memory is not accepted yet",
    Access.MMIO: "its memory is that of a PCI device (MMIO)",
    Access.NO_MEMORY: "processors have no memory there",
}


def unusual_access(range_: Range) -> str | None:
    """Say why the memory of a range must not be read, unless its case says so."""
    return None if range_.case is Case.OFFLINE else _UNUSUAL.get(range_.access)
