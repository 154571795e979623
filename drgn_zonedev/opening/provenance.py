# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where a report comes from: which tool looked at which kernel, and by which types."""

from __future__ import annotations

import re

from drgn import FaultError, Program

from drgn_zonedev.debuginfo.finders import types_are_builtin
from drgn_zonedev.model import Provenance
from drgn_zonedev.util.tool_version import tool_version

__all__ = ("provenance_of",)

_BUILD_ID = re.compile(rb"^BUILD-ID=([0-9a-f]{8,64})$", re.MULTILINE)
_CRASH_TIME = re.compile(rb"^CRASHTIME=(\d{1,12})$", re.MULTILINE)


def provenance_of(prog: Program, source: str) -> Provenance:
    """
    Say where a report of a program comes from.

    :param source: What the user calls the program.
    """
    vmcoreinfo = _vmcoreinfo(prog)
    build_id, crash_time = _BUILD_ID.search(vmcoreinfo), _CRASH_TIME.search(vmcoreinfo)
    return Provenance(
        tool=tool_version(),
        source=source,
        build_id=build_id[1].decode() if build_id else None,
        crash_time=int(crash_time[1]) if crash_time else None,
        types="BTF" if types_are_builtin(prog) else "DWARF",
    )


def _vmcoreinfo(prog: Program) -> bytes:
    try:
        text: bytes = prog["VMCOREINFO"].string_()
    except (FaultError, LookupError, TypeError):
        return b""
    return text
