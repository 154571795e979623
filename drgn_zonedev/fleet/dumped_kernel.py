# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which kernel a dump is of, by its ``VMCOREINFO``, without opening it with drgn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.export.archive import ArchiveError, beginnings
from drgn_zonedev.fleet.find import PACKED_EXPORT, Found
from drgn_zonedev.util.strings import printable
from drgn_zonedev.vmcore.vmcoreinfo_note import opened_reader, vmcoreinfo_note

__all__ = ("UNNAMED", "DumpedKernel", "dumped_kernel", "parse_vmcoreinfo")

# Program headers and notes of an export.
_BEGINNING = 1 << 20
_MAX_WORD = 256


@dataclass(frozen=True)
class DumpedKernel:
    """
    What ``VMCOREINFO`` says; empty strings if it does not.

    :ivar crash_time: In seconds since 1970; ``None`` if the kernel did not crash.
    """

    release: str = ""
    build_id: str = ""
    crash_time: int | None = None


UNNAMED = DumpedKernel()


def dumped_kernel(found: Found) -> DumpedKernel:
    """
    Read which kernel a dump is of.

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
        # The check says what is wrong with it.
        return None
    return vmcoreinfo_note(lambda offset, size: vmcore[offset : offset + size])


def parse_vmcoreinfo(note: bytes) -> DumpedKernel:
    """Take from ``VMCOREINFO`` what names a kernel and its crash."""
    return DumpedKernel(
        _word(note, "OSRELEASE", r".+"),
        _word(note, "BUILD-ID", r"[0-9a-fA-F]+"),
        int(_word(note, "CRASHTIME", r"\d{1,18}") or 0) or None,
    )


def _word(note: bytes, name: str, pattern: str) -> str:
    found = re.search(rf"^{name}=({pattern})$".encode(), note, re.MULTILINE)
    return printable(found[1][:_MAX_WORD].decode(errors="backslashreplace")) if found else ""
