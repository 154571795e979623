# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Recognises files that are given for a dump or a vmlinux by mistake, for the error message.
"""

from __future__ import annotations

import os
import struct

import drgn

__all__ = ("no_dump", "no_symbols")

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
# Linux kernel Documentation/arch/x86/boot.rst: the magic number of a bzImage's header.
_BZIMAGE_MAGIC_OFFSET, _BZIMAGE_MAGIC = 0x202, b"HdrS"
_ELF, _ET_OFFSET, _ET_CORE = b"\x7fELF", 16, 4


def no_dump(path: str) -> str | None:
    """Say why a file is not a dump and what to do, if it is easily mistaken for one."""
    head = _head(path)
    packer = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if packer:
        return f"it is compressed with {packer}: unpack it first"
    if head.startswith(_ELF) and not _is_core(head):
        return "it is an ELF file, but not a dump: give the dump to -c, and its vmlinux to -s"
    return None


def no_symbols(path: str, build_id: bytes | None) -> str:
    """
    Say what kind of file was given for a vmlinux, as far as it can be recognised.

    :param build_id: Of the kernel whose symbols are missing.
    """
    head = _head(path)
    if head[_BZIMAGE_MAGIC_OFFSET:].startswith(_BZIMAGE_MAGIC):
        return "a compressed kernel without symbols"
    if not head.startswith((_ELF, *_COMPRESSED)):
        return "no ELF file"
    if _is_core(head):
        return "a dump, which -c takes"
    # A program that is nothing but this file, which libelf unpacks if it has to.
    module = drgn.Program(drgn.host_platform).extra_module(path, create=True)
    try:
        module.try_file(path, force=True)
    except (OSError, ValueError):
        return "an ELF file that cannot be read"
    if module.build_id and module.build_id == build_id and module.wants_debug_file():
        return "of the right build, but stripped or cut off"
    which = f"build ID {module.build_id.hex()}" if module.build_id else "no build ID"
    return f"{which}, no DWARF" if module.wants_debug_file() else which


def _head(path: str) -> bytes:
    try:
        # Reading from a device or a pipe could wait.
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as f:
            return f.read(0x400)
    except OSError:
        return b""


def _is_core(head: bytes) -> bool:
    # The byte order is only read of 32-bit and 64-bit ELF files.
    return head[_ET_OFFSET : _ET_OFFSET + 2] in (
        struct.pack("<H", _ET_CORE),
        struct.pack(">H", _ET_CORE),
    )
