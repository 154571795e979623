# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Cases
-----

The properties of cases that all views share: which matter most if there is not enough room
for all, their letters, and which a walker must not read.
"""

from __future__ import annotations

from drgn_zonedev.model import Case

__all__ = ("LETTERS", "TELLING", "may_read")

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
