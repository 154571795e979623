# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Core Dumps
----------

Opens core dumps, and says why one cannot be opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import drgn

from drgn_zonedev.opening.failures import (
    INCOMPLETE,
    CannotJudgeError,
    CannotOpenError,
    require_kernel,
    require_little_endian,
    require_page_tables,
    why_not_opened,
)
from drgn_zonedev.util.signals import held_back
from drgn_zonedev.util.strings import printable
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.file_types import no_dump
from drgn_zonedev.vmcore.kdump import lacks_its_bitmaps

__all__ = (
    "Dump",
    "distrust_headers",
    "dump_of",
    "open_core",
    "open_core_unread",
    "open_dump",
    "reopen",
    "warn_if_damaged",
)

# HAVE_PAGE_SIZE_* of arch/Kconfig, by architecture.
_PAGE_SIZES = {
    "X86_64": (1 << 12,),
    "I386": (1 << 12,),
    "AARCH64": (1 << 12, 1 << 14, 1 << 16),
    "ARM": (1 << 12,),
    "PPC64": (1 << 12, 1 << 14, 1 << 16, 1 << 18),
    "RISCV64": (1 << 12,),
    "RISCV32": (1 << 12,),
    "S390X": (1 << 12,),
    "S390": (1 << 12,),
    "LOONGARCH64": (1 << 12, 1 << 14, 1 << 16),
}


# Key in a program's cache: whether VMCOREINFO was given, not taken from the core dump.
_GIVEN = "given_vmcoreinfo"


def open_core(
    path: str,
    architecture: str | None = None,
    name: str | None = None,
    vmcoreinfo: bytes | None = None,
) -> drgn.Program:
    """
    Open a core dump, without its debugging symbols.

    :raises CannotOpenError: if drgn cannot read it as a dump of a kernel
    :raises CannotJudgeError: if it ends before its contents begin, or contradicts itself
    """
    prog = open_core_unread(path, architecture, name, vmcoreinfo)
    distrust_headers(prog)
    return prog


def open_core_unread(
    path: str,
    architecture: str | None = None,
    name: str | None = None,
    vmcoreinfo: bytes | None = None,
) -> drgn.Program:
    """
    Like :func:`open_core()`; :func:`distrust_headers()` must come before its memory is read.
    That takes numpy, which may be imported while drgn indexes debugging symbols.

    :param architecture: Name of a :class:`drgn.Architecture` in lower case, for a dump that
        does not record its own.
    :param name: Name of the file in errors, if it is a copy.
    :param vmcoreinfo: From :func:`.read_vmcoreinfo()`; replaces that of the dump.
    :raises CannotOpenError: if drgn cannot read it as a dump of a kernel
    :raises CannotJudgeError: if it ends before its contents begin
    """
    name, platform = name or path, None
    if _is_pipe(path):
        raise CannotOpenError(f"cannot open {name}: it is a pipe: write the dump to a file first")
    if architecture:
        platform = drgn.Platform(drgn.Architecture[architecture.upper()])
        _refuse_another_architecture(path, name, platform)
    prog = drgn.Program(platform, vmcoreinfo=vmcoreinfo)
    prog.cache[_GIVEN] = vmcoreinfo is not None
    if lacks_its_bitmaps(Path(path)):
        raise CannotJudgeError(f"{name} ends before its contents begin: {INCOMPLETE}")
    try:
        # drgn loads its plugins here, and ignores whatever they raise.
        with held_back():
            prog.set_core_dump(path)
    except Exception as e:
        # drgn raises errors of libelf and libkdumpfile as plain Exception.
        raise CannotOpenError(_why_not_opened(path, name, e)) from e
    require_kernel(prog, name)
    require_little_endian(prog, name)
    require_page_tables(prog, name)
    _refuse_page_size(prog)
    return prog


def _is_pipe(path: str) -> bool:
    # Opening it would wait for a writer, and nothing can seek in it.
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        # drgn says why it cannot be opened.
        return False


def _refuse_page_size(prog: drgn.Program) -> None:
    assert prog.platform is not None
    sizes = _PAGE_SIZES.get(prog.platform.arch.name)
    size = prog["PAGE_SIZE"].value_()
    if sizes and size not in sizes:
        architecture = prog.platform.arch.name.lower()
        raise CannotJudgeError(
            f"VMCOREINFO says pages of {size} bytes, which {architecture} does not have: "
            f"{INCOMPLETE}"
        )


def distrust_headers(prog: drgn.Program) -> None:
    """
    Make reads fault where the headers of a program's dump contradict each other. One call is
    enough.

    :raises CannotJudgeError: if too many segments are concerned to trust the others
    """
    try:
        _distrust(prog)
    except ValueError as e:
        raise CannotJudgeError(f"{e}: {INCOMPLETE}") from e


def _distrust(prog: drgn.Program) -> None:
    # Imports numpy, which is slow: refuse other files first.
    from drgn_zonedev.vmcore.contradictions import hide_contradictions

    hide_contradictions(prog)


def _refuse_another_architecture(core: str, name: str, platform: drgn.Platform) -> None:
    prog = drgn.Program()
    # The caller opens it again, and reports what is wrong with it.
    with contextlib.suppress(Exception), held_back():
        prog.set_core_dump(core)
    if prog.platform and prog.platform.arch not in (platform.arch, drgn.Architecture.UNKNOWN):
        architecture, other = prog.platform.arch.name.lower(), platform.arch.name.lower()
        raise CannotOpenError(
            f"{name} says that it is of {architecture}, not {other}: remove --architecture"
        )


def _why_not_opened(path: str, name: str, e: Exception) -> str:
    if isinstance(e, (PermissionError, FileNotFoundError)):
        return why_not_opened(name, e, "check the path")
    if os.path.isfile(path) and not os.path.getsize(path):
        return f"cannot open {name}: it is empty: the dump was not written, or not copied"
    if why := no_dump(path):
        return f"cannot open {name}: {why}"
    return why_not_opened(name, e, "give an ELF or kdump vmcore, or an export")


def warn_if_damaged(prog: drgn.Program, name: str | None = None) -> None:
    """
    Say on standard error that a program's ELF dump is shorter than its headers claim, or
    that these contradict each other.

    :param name: Name of the file in the message, if drgn was given a copy.
    """
    path = core_dump_path(prog)
    if not path or prog.flags & drgn.ProgramFlags.IS_LIVE:
        return
    name = name or path
    # Imports numpy, which is loaded by now.
    from drgn_zonedev.vmcore.contradictions import is_contradictory
    from drgn_zonedev.vmcore.left_out import end_of_dump

    size, claimed = end_of_dump(prog) or (0, 0)
    if size < claimed:
        _warn(
            f"{name} is cut off: it ends at {size} of {claimed} bytes, and the rest could not be "
            "checked"
        )
    if is_contradictory(prog):
        _warn(
            f"{name} is damaged: its program headers contradict each other, and the memory "
            "concerned could not be checked"
        )


def _warn(message: str) -> None:
    print(f"zonedev: {printable(message)}", file=sys.stderr)


def open_dump(core: Path, vmlinux: Path) -> drgn.Program:
    """Open a dump with the symbols of its kernel."""
    prog = drgn.Program()
    prog.set_core_dump(core)
    _distrust(prog)
    prog.load_debug_info([vmlinux])
    return prog


@dataclass(frozen=True)
class Dump:
    """
    The arguments to open a dump again; ``platform`` is the architecture and the flags.

    :ivar vmcoreinfo_is_given: Whether ``vmcoreinfo`` replaces that of the dump.
    """

    path: str
    platform: tuple[str, int]
    vmcoreinfo: bytes
    vmcoreinfo_is_given: bool


def dump_of(prog: drgn.Program) -> Dump:
    """Get the arguments to open a program's core dump again in another process."""
    core = core_dump_path(prog)
    assert core is not None
    assert prog.platform is not None
    return Dump(
        path=os.path.abspath(core),
        platform=(prog.platform.arch.name, prog.platform.flags.value),
        vmcoreinfo=prog["VMCOREINFO"].string_(),
        vmcoreinfo_is_given=prog.cache.get(_GIVEN, False),
    )


def reopen(dump: Dump) -> drgn.Program:
    """
    Open a core dump again, without its debugging symbols.

    :raises ValueError: if another file has replaced it
    """
    architecture, flags = dump.platform
    platform = drgn.Platform(drgn.Architecture[architecture], drgn.PlatformFlags(flags))
    given = dump.vmcoreinfo if dump.vmcoreinfo_is_given else None
    prog = drgn.Program(platform, vmcoreinfo=given)
    prog.set_core_dump(dump.path)
    _distrust(prog)
    if prog["VMCOREINFO"].string_() != dump.vmcoreinfo:
        raise ValueError(f"{dump.path} was replaced by another dump")
    return prog
