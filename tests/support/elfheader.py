# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Makes QEMU's ELF dumps fit for makedumpfile, which looks for the program headers
right behind the ELF header. QEMU puts section headers there, and program
headers behind those. This is for tests only: it writes into the dump.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_EHDR_SIZE = 64
_E_PHOFF = 32
# e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
_SIZES = 54


def without_sections(dump: Path) -> None:
    """Move a dump's program headers to where makedumpfile expects them, in place."""
    dump.chmod(0o600)
    with dump.open("r+b") as file:
        header = bytearray(file.read(_EHDR_SIZE))
        (offset,) = struct.unpack_from("<Q", header, _E_PHOFF)
        size, count = struct.unpack_from("<HH", header, _SIZES)
        program_headers = os.pread(file.fileno(), size * count, offset)
        struct.pack_into("<QQ", header, _E_PHOFF, _EHDR_SIZE, 0)
        struct.pack_into("<HHHHH", header, _SIZES, size, count, 0, 0, 0)
        file.seek(0)
        file.write(header + program_headers)
