# SPDX-License-Identifier: LGPL-2.1-or-later

"""
One Build
---------

Checks whether VMCOREINFO and a kernel's image are of the same build.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

__all__ = ("differing_address", "note_build_id", "vmcoreinfo_build_id")

_BUILD_ID = re.compile(rb"^BUILD-ID=((?:[0-9a-f]{2})+)$", re.MULTILINE)
_NT_GNU_BUILD_ID = 3
# Symbols whose address is in VMCOREINFO (VMCOREINFO_SYMBOL()). mem_section is left out: if it is a
# pointer, VMCOREINFO has the address that it points to.
_ADDRESSES = (
    *("_stext", "init_uts_ns", "swapper_pg_dir", "init_top_pgt", "node_online_map"),
    *("node_data", "contig_page_data"),
)


def vmcoreinfo_build_id(vmcoreinfo: bytes) -> bytes | None:
    """
    Get the build ID of the kernel, or ``None`` before Linux kernel commit 0935288c6e00
    ("kdump: append kernel build-id string to VMCOREINFO") (in v5.9).
    """
    found = _BUILD_ID.search(vmcoreinfo)
    return bytes.fromhex(found[1].decode()) if found else None


def note_build_id(notes: bytes, byteorder: Literal["little", "big"]) -> bytes | None:
    """Get the build ID in a kernel's ``.notes``, or ``None`` if it is missing or damaged."""
    at = 0
    while at + 12 <= len(notes):
        sizes = (notes[at + i : at + i + 4] for i in (0, 4, 8))
        name_size, size, kind = (int.from_bytes(field, byteorder) for field in sizes)
        name = at + 12
        start = name + name_size + -name_size % 4
        if kind == _NT_GNU_BUILD_ID and notes[name : name + name_size] == b"GNU\0":
            return notes[start : start + size] if size and start + size <= len(notes) else None
        at = start + size + -size % 4
    return None


def differing_address(
    known: Mapping[str, int], look_up: Callable[[str], int | None]
) -> tuple[str, int, int] | None:
    """
    Find a symbol that is not where VMCOREINFO says.

    :param known: The result of :func:`.vmcoreinfo_symbols()`.
    :param look_up: Gets the address of a symbol by its name, or ``None``.
    :return: Its name, its address in VMCOREINFO, and the address that was looked up.
    """
    for name in _ADDRESSES:
        found = look_up(name)
        if name in known and found is not None and found != known[name]:
            return name, known[name], found
    return None
