# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads the symbols and types that a program's kernel has in its own image."""

from __future__ import annotations

from drgn import FaultError, PlatformFlags, Program

from drgn_zonedev.debuginfo.btf import MAX_BTF_BYTES, parse_btf
from drgn_zonedev.debuginfo.btf_types import BtfTypes
from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.declarations import DECLARED_TYPES, LEADING_DIMENSIONS
from drgn_zonedev.debuginfo.kallsyms_tables import Memory, read_kallsyms
from drgn_zonedev.debuginfo.kernel_objects import KernelObjects
from drgn_zonedev.debuginfo.symbol_table import KernelSymbols
from drgn_zonedev.debuginfo.vmcoreinfo import vmcoreinfo_symbols

__all__ = ("image_objects", "image_symbols")


def image_symbols(prog: Program) -> KernelSymbols:
    """
    Read the kernel's symbols.

    :raises DebugInfoError: if it has none, or they are damaged
    """
    try:
        vmcoreinfo = prog["VMCOREINFO"].string_()
    except LookupError:
        raise DebugInfoError("there is no VMCOREINFO, which says where kallsyms is") from None
    return read_kallsyms(_memory(prog), vmcoreinfo_symbols(vmcoreinfo))


def image_objects(prog: Program, symbols: KernelSymbols) -> KernelObjects:
    """
    Read the kernel's types, and get what finds objects by them.

    :raises DebugInfoError: if there are none, or they are damaged
    """
    start, stop = symbols.named("__start_BTF"), symbols.named("__stop_BTF")
    if not start or not stop:
        raise DebugInfoError("the kernel has no BTF: CONFIG_DEBUG_INFO_BTF=n")
    size = stop[0].address - start[0].address
    if not 0 < size <= MAX_BTF_BYTES:
        raise DebugInfoError(f"BTF is damaged: it has {size} bytes")
    memory = _memory(prog)
    btf = parse_btf(memory.read(start[0].address, size), memory.byteorder)
    return KernelObjects(prog, BtfTypes(prog, btf, LEADING_DIMENSIONS), symbols, DECLARED_TYPES)


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
