# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Where the functions of a kernel are when it runs with ``nokaslr``.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.kernels.known import Kernel

__all__ = ("elf_functions", "function_address", "symbol_address")

_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SHT_SYMTAB = 2
_STT_FUNC = 2


def function_address(kernel: Kernel, name: str) -> int:
    """Return the address of a function, from System.map or else from vmlinux."""
    if kernel.system_map is not None:
        return symbol_address(kernel.system_map.read_text(), name)
    for symbol, address in elf_functions(kernel.vmlinux):
        if symbol == name:
            return address
    raise LabError(f"{kernel.vmlinux} has no function {name}: the compiler may have inlined it")


def symbol_address(system_map: str, symbol: str) -> int:
    """Return the address of a function from the text of a System.map."""
    found = re.search(rf"^([0-9a-f]+) [tT] {re.escape(symbol)}$", system_map, re.MULTILINE)
    if found is None:
        raise LabError(f"System.map has no function {symbol}: the compiler may have inlined it")
    return int(found[1], 16)


def elf_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Iterate over the functions in the symbol table of a 64-bit little-endian ELF file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        if elf[:6] != b"\x7fELF\x02\x01":
            raise LabError(f"{path} is not a 64-bit little-endian ELF file: give a vmlinux")
        try:
            yield from _functions(elf)
        except struct.error as e:
            raise LabError(f"{path} is damaged: {e}: build it again") from e


def _functions(elf: mmap.mmap) -> Iterator[tuple[str, int]]:
    (table,) = struct.unpack_from("<Q", elf, 40)
    (count,) = struct.unpack_from("<H", elf, 60)
    headers = [_SECTION_HEADER.unpack_from(elf, table + i * 64) for i in range(count)]
    for _, kind, _, _, offset, size, link, *_ in headers:
        if kind != _SHT_SYMTAB:
            continue
        strings = headers[link][4]
        for name, info, _, _, value, _ in _SYMBOL.iter_unpack(elf[offset : offset + size]):
            if info & 0xF == _STT_FUNC:
                start = strings + name
                yield elf[start : elf.find(b"\0", start)].decode(errors="replace"), value
