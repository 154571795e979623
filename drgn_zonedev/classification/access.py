# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Access
------

Whether the memory behind struct pages may be read, as far as metadata says. That is another
question than whether the struct pages are initialised.
"""

from __future__ import annotations

from drgn_zonedev.model import Access, Case

__all__ = ("metadata_access",)

# Nothing says what is there, or what was left of it.
_UNKNOWN = (Case.PARTIAL, Case.ORPHAN, Case.GHOST, Case.UNKNOWN)

_BY_TYPE = {
    # migrate_to_ram() brings its pages to where processors reach them.
    "MEMORY_DEVICE_PRIVATE": Access.NO_MEMORY,
    # Registers of a device, or memory that reading changes.
    "MEMORY_DEVICE_PCI_P2PDMA": Access.MMIO,
}


def metadata_access(case: Case, memory_type: str | None) -> Access:
    """
    Get whether memory may be read.

    :param memory_type: The ``enum memory_type`` of its pgmap, ``None`` if no pgmap claims it.
    """
    if case in _UNKNOWN:
        return Access.UNKNOWN
    if case is Case.OFFLINE:
        return Access.OFFLINE
    if case is Case.METADATA:
        return Access.STRUCT_PAGES
    if case is Case.INITIALIZING and memory_type is None:
        # Only its struct page would say that the guest has not accepted it yet.
        return Access.UNKNOWN
    return _BY_TYPE.get(memory_type or "", Access.READABLE)
