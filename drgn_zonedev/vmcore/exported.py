# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports
-------

What a dump that this tool wrote says of itself: which struct pages it was made with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.util.intervals import Span, union
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.left_out import is_in_scraps

__all__ = ("exported_ram", "leaves_out_ram", "with_memmap_line")

# A line of VMCOREINFO: the struct pages of devices or of all memory, and those of some more PFNs.
# Versions that do not know of PFNs ignore the line, and look at the file beside the vmcore.
_LINE = re.compile(
    rb"^DRGN_ZONEDEV_MEMMAP=(devices|all)((?:,0x[0-9a-f]{1,16}-0x[0-9a-f]{1,16})*)$",
    re.MULTILINE,
)
_SPAN = re.compile(rb",0x([0-9a-f]+)-0x([0-9a-f]+)")

# Earlier exports do not have that line, but a file beside the vmcore, unless the vmcore was taken
# out of its directory.
_META_SIZE = 1 << 12
_SCHEMA = re.compile(rb'\{\s*"schema": "drgn-zonedev/export/\d+"')
_OPTION = re.compile(rb'"all_memmap": (true|false)')


def with_memmap_line(vmcoreinfo: bytes, *, all_memmap: bool, pfns: Iterable[Span] = ()) -> bytes:
    """
    Add a line to VMCOREINFO that says which struct pages an export has; :func:`exported_ram()`
    reads it. The line of an earlier export stays: an export of it has no more than that.

    :param pfns: The RAM whose struct pages the export has, if not all.
    """
    if _LINE.search(vmcoreinfo):
        return vmcoreinfo
    spans = () if all_memmap else union(pfns)
    parts = "".join(f",{start:#x}-{end:#x}" for start, end in spans)
    whose = "all" if all_memmap else "devices"
    return vmcoreinfo + f"DRGN_ZONEDEV_MEMMAP={whose}{parts}\n".encode()


@takes_program_or_default
def leaves_out_ram(prog: Program) -> bool:
    """Return whether a program is an export that was made without the struct pages of all RAM."""
    if found := _LINE.search(prog["VMCOREINFO"].string_()):
        return found[1] == b"devices"
    meta = _meta(prog)
    option = _OPTION.search(meta)
    if _SCHEMA.match(meta) and option:
        return option[1] == b"false"
    return is_in_scraps(prog)


@takes_program_or_default
def exported_ram(prog: Program) -> tuple[Span, ...] | None:
    """
    Get the PFNs of RAM whose struct pages an export has, sorted and disjoint; ``None`` if nothing
    was left out.
    """
    if not leaves_out_ram(prog):
        return None
    found = _LINE.search(prog["VMCOREINFO"].string_())
    return union((int(a, 16), int(b, 16)) for a, b in _SPAN.findall(found[2] if found else b""))


def _meta(prog: Program) -> bytes:
    core = core_dump_path(prog)
    if core is None:
        return b""
    try:
        with open(os.path.join(os.path.dirname(core), "meta.json"), "rb") as file:
            return file.read(_META_SIZE)
    except OSError:
        return b""
