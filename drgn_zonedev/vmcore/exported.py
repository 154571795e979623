# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports
-------

What a dump that this tool wrote says of itself: which struct pages it was made with.
"""

from __future__ import annotations

import os
import re

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.left_out import is_in_scraps

__all__ = ("leaves_out_ram", "with_memmap_line")

# A line of VMCOREINFO.
_LINE = re.compile(rb"^DRGN_ZONEDEV_MEMMAP=(devices|all)$", re.MULTILINE)

# Exports did not always have that line, but there is a file beside the vmcore, unless somebody
# took the vmcore out of it.
_META_SIZE = 1 << 12
_SCHEMA = re.compile(rb'\{\s*"schema": "drgn-zonedev/export/\d+"')
_OPTION = re.compile(rb'"all_memmap": (true|false)')


def with_memmap_line(vmcoreinfo: bytes, *, all_memmap: bool) -> bytes:
    """
    Have VMCOREINFO say which struct pages an export has, as :func:`leaves_out_ram()` reads it.
    What was left out of an export is in no export of it.
    """
    if _LINE.search(vmcoreinfo):
        return vmcoreinfo
    return vmcoreinfo + b"DRGN_ZONEDEV_MEMMAP=" + (b"all" if all_memmap else b"devices") + b"\n"


@takes_program_or_default
def leaves_out_ram(prog: Program) -> bool:
    """Tell whether a program is an export that was made without the struct pages of RAM."""
    found = _LINE.search(prog["VMCOREINFO"].string_())
    if found:
        return found[1] == b"devices"
    meta = _meta(prog)
    option = _OPTION.search(meta)
    if _SCHEMA.match(meta) and option:
        return option[1] == b"false"
    return is_in_scraps(prog)


def _meta(prog: Program) -> bytes:
    core = core_dump_path(prog)
    if core is None:
        return b""
    try:
        with open(os.path.join(os.path.dirname(core), "meta.json"), "rb") as file:
            return file.read(_META_SIZE)
    except OSError:
        return b""
