# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads the symbols and types that a program's kernel has in its own image."""

from __future__ import annotations

from pathlib import Path

from drgn import FaultError, PlatformFlags, Program, ProgramFlags

from drgn_zonedev.debuginfo.btf import MAX_BTF_BYTES, parse_btf
from drgn_zonedev.debuginfo.btf_types import BtfTypes
from drgn_zonedev.debuginfo.damage import DebugInfoError, require_contents
from drgn_zonedev.debuginfo.declarations import DECLARED_TYPES, LEADING_DIMENSIONS
from drgn_zonedev.debuginfo.kallsyms_tables import Memory, read_kallsyms
from drgn_zonedev.debuginfo.kernel_objects import KernelObjects
from drgn_zonedev.debuginfo.proc_kallsyms import parse_kallsyms
from drgn_zonedev.debuginfo.same_build import note_build_id, vmcoreinfo_build_id
from drgn_zonedev.debuginfo.symbol_table import KernelSymbols
from drgn_zonedev.debuginfo.vmcoreinfo import vmcoreinfo_symbols

__all__ = ("image_objects", "image_symbols")

# What nm(1) calls variables and constants.
_DATA_LETTERS = frozenset("bBdDgGrRsS")

_MAX_NOTES_BYTES = 1 << 16

_PROC_KALLSYMS = Path("/proc/kallsyms")


def image_symbols(prog: Program) -> KernelSymbols:
    """
    Read the kernel's symbols.

    :raises DebugInfoError: if it has none, or they are damaged
    """
    known = vmcoreinfo_symbols(_vmcoreinfo(prog))
    try:
        return read_kallsyms(_memory(prog), known)
    except DebugInfoError:
        if not _is_running_here(prog):
            raise
        return parse_kallsyms(_contents(_PROC_KALLSYMS), known)


def _is_running_here(prog: Program) -> bool:
    here = ProgramFlags.IS_LIVE | ProgramFlags.IS_LOCAL
    return prog.flags & here == here


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise DebugInfoError(f"cannot read {path}: {e.strerror or e}") from e


def image_objects(prog: Program, symbols: KernelSymbols) -> KernelObjects:
    """
    Read the kernel's types, and get what finds objects by them.

    :raises DebugInfoError: if there are none, or they are damaged
    """
    memory = _memory(prog)
    _require_same_build(_vmcoreinfo(prog), memory, symbols)
    extent = _extent(symbols, "__start_BTF", "__stop_BTF")
    if extent is None:
        raise DebugInfoError(_why_no_btf(symbols))
    start, size = extent
    if not 0 < size <= MAX_BTF_BYTES:
        raise DebugInfoError(f"BTF is damaged: it has {size} bytes")
    data = memory.read(start, size)
    require_contents(data, start, "the kernel's BTF")
    btf = parse_btf(data, memory.byteorder)
    return KernelObjects(prog, BtfTypes(prog, btf, LEADING_DIMENSIONS), symbols, DECLARED_TYPES)


def _vmcoreinfo(prog: Program) -> bytes:
    try:
        found: bytes = prog["VMCOREINFO"].string_()
    except LookupError:
        raise DebugInfoError("there is no VMCOREINFO, which says where kallsyms is") from None
    return found


def _extent(symbols: KernelSymbols, start: str, stop: str) -> tuple[int, int] | None:
    starts, stops = symbols.named(start), symbols.named(stop)
    if not starts or not stops:
        return None
    return starts[0].address, stops[0].address - starts[0].address


def _why_no_btf(symbols: KernelSymbols) -> str:
    if any(symbol.letter in _DATA_LETTERS for symbol in symbols):
        return "the kernel has no BTF: CONFIG_DEBUG_INFO_BTF=n"
    return "kallsyms knows functions, but no variables: CONFIG_KALLSYMS_ALL=n"


def _require_same_build(vmcoreinfo: bytes, memory: Memory, symbols: KernelSymbols) -> None:
    # read_kallsyms() has compared addresses.
    named, held = vmcoreinfo_build_id(vmcoreinfo), _held_build_id(memory, symbols)
    if named and held and named != held:
        raise DebugInfoError(
            f"the kernel in memory is of another build: VMCOREINFO says {named.hex()}, its notes "
            f"{held.hex()}"
        )


def _held_build_id(memory: Memory, symbols: KernelSymbols) -> bytes | None:
    extent = _extent(symbols, "__start_notes", "__stop_notes")
    if extent is None or not 0 < extent[1] <= _MAX_NOTES_BYTES:
        return None
    try:
        return note_build_id(memory.read(*extent), memory.byteorder)
    except DebugInfoError:
        # Nothing else needs them.
        return None


def _memory(prog: Program) -> Memory:
    assert prog.platform is not None
    flags = prog.platform.flags
    if not flags & PlatformFlags.IS_64_BIT:
        raise DebugInfoError("without vmlinux, only kernels of 64 bits can be debugged")

    def read(address: int, size: int) -> bytes:
        try:
            return prog.read(address, size)
        except (FaultError, OverflowError, MemoryError, ValueError) as e:
            raise DebugInfoError(
                f"the dump left out {address:#x}, which is in the kernel's image"
            ) from e

    return Memory(read, "little" if flags & PlatformFlags.IS_LITTLE_ENDIAN else "big")
