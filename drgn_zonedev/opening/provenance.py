# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where a report comes from: which tool looked at which kernel, and by which types."""

from __future__ import annotations

from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.debuginfo.finders import types_are_builtin
from drgn_zonedev.model import Provenance
from drgn_zonedev.util.tool_version import tool_version
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.vmcoreinfo_words import parse_vmcoreinfo

__all__ = ("provenance_of",)


def provenance_of(prog: Program, source: str | None = None) -> Provenance:
    """
    Say where a report of a program comes from.

    :param source: What the user calls the program, if that is not the path of its dump.
    """
    kernel = parse_vmcoreinfo(_vmcoreinfo(prog))
    return Provenance(
        tool=tool_version(),
        source=source or _source(prog),
        build_id=kernel.build_id or None,
        crash_time=kernel.crash_time,
        types="BTF" if types_are_builtin(prog) else "DWARF",
    )


def _source(prog: Program) -> str:
    if prog.flags & ProgramFlags.IS_LIVE:
        return "the running kernel"
    # A drgn program may also be a guest, or memory that a script added.
    return core_dump_path(prog) or "a program in drgn"


def _vmcoreinfo(prog: Program) -> bytes:
    try:
        text: bytes = prog["VMCOREINFO"].string_()
    except (FaultError, LookupError, TypeError):
        return b""
    return text
