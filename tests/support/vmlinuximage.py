# SPDX-License-Identifier: LGPL-2.1-or-later

"""A kernel's image as its vmlinux has it: what a dump has in memory, without a guest."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from support.rawkallsyms import TEXT, Image

__all__ = ("vmlinux_image",)

_TABLES = ("names", "num_syms", "token_table", "token_index", "offsets", "relative_base")

# PT_LOAD
_LOAD = 1


def vmlinux_image(vmlinux: Path, system_map: Path) -> Image:
    """Read the loaded segments of a vmlinux, and find kallsyms by its System.map."""
    with vmlinux.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        segments = [s for s in _segments(elf) if s[1] >= TEXT]
        end = max(address + size for _, address, size in segments)
        data = bytearray(end - TEXT)
        for offset, address, size in segments:
            data[address - TEXT : address - TEXT + size] = elf[offset : offset + size]
    lines = [line.split(" ") for line in system_map.read_text().splitlines()]
    wanted = {f"kallsyms_{name}" for name in _TABLES}
    return Image(bytes(data), {name: int(at, 16) for at, _, name in lines if name in wanted})


def _segments(elf: mmap.mmap) -> list[tuple[int, int, int]]:
    (start,) = struct.unpack_from("<Q", elf, 32)
    (count,) = struct.unpack_from("<H", elf, 56)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + 56 * i) for i in range(count)]
    return [(offset, va, size) for kind, _, offset, va, _, size in headers if kind == _LOAD]
