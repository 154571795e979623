# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads which kernel a dump is of from its ``VMCOREINFO``, without drgn."""

from __future__ import annotations

from pathlib import Path

from drgn_zonedev.export.archive import ArchiveError, beginnings
from drgn_zonedev.fleet.find import PACKED_EXPORT, Found
from drgn_zonedev.vmcore.vmcoreinfo_note import opened_reader, vmcoreinfo_note
from drgn_zonedev.vmcore.vmcoreinfo_words import UNNAMED, DumpedKernel, parse_vmcoreinfo

__all__ = ("dumped_kernel",)

# Program headers and notes of an export.
_BEGINNING = 1 << 20


def dumped_kernel(found: Found) -> DumpedKernel:
    """
    Find out which kernel a dump is of.

    :raises OSError: if it cannot be read
    """
    if found.format == PACKED_EXPORT:
        note = _note_in_archive(Path(found.path))
    else:
        with opened_reader(found.path) as (read, _):
            note = vmcoreinfo_note(read)
    return parse_vmcoreinfo(note) if note else UNNAMED


def _note_in_archive(path: Path) -> bytes | None:
    try:
        vmcore = beginnings(path, _BEGINNING).get("vmcore", b"")
    except ArchiveError:
        # The check reports what is wrong with the archive.
        return None
    return vmcoreinfo_note(lambda offset, size: vmcore[offset : offset + size])
