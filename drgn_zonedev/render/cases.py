# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Cases
-----

What every view has to agree on about the cases: which of them matter most where
there is no room for all, their letters, and which of them a walker must not read.
"""

from __future__ import annotations

from drgn_zonedev.model import Case

__all__ = ("LETTERS", "TELLING", "may_read")

# Where there is room for one of them only, the first of these is shown: what is not
# known might be anything, what changes right now comes before what stays.
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

# Capitals are what a PFN walker must not read.
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
    """Return whether a PFN walker may read struct pages of that case, if it asks the kernel."""
    return LETTERS[case].islower()
