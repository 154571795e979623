# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Types for a Log
---------------

Gets ``struct page`` from a vmlinux or from BTF, for a log without a dump.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from drgn import MissingDebugInfoError, Program

from drgn_zonedev.debuginfo.btf import MAX_BTF_BYTES, Btf, BtfKind, parse_btf
from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.explanation.logged import page_fields_of_types
from drgn_zonedev.oops_log.answer import KnownKernel
from drgn_zonedev.oops_log.page_fields import PageFields
from drgn_zonedev.opening.failures import CannotOpenError

__all__ = ("fields_of_btf", "known_types")

_MAGIC: dict[bytes, Literal["little", "big"]] = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}


def known_types(paths: Sequence[str]) -> KnownKernel:
    """
    Get the members of ``struct page`` from files with types: a vmlinux with DWARF, or BTF
    as in ``/sys/kernel/btf/vmlinux``.

    :raises CannotOpenError: if the files have no types
    """
    for path in paths:
        byteorder = _byteorder_of_btf(path)
        if byteorder is not None:
            return KnownKernel(_of_btf_file(path, byteorder))
    return KnownKernel(_of_dwarf(paths))


def _byteorder_of_btf(path: str) -> Literal["little", "big"] | None:
    try:
        with open(path, "rb") as f:
            return _MAGIC.get(f.read(2))
    except OSError as e:
        raise CannotOpenError(f"cannot read {path}: {e.strerror}: give another file with -s") from e


def _of_btf_file(path: str, byteorder: Literal["little", "big"]) -> PageFields:
    with open(path, "rb") as f:
        data = f.read(MAX_BTF_BYTES + 1)
    try:
        return fields_of_btf(parse_btf(data, byteorder), Path(path).name)
    except (DebugInfoError, LookupError) as e:
        raise CannotOpenError(f"{path} has no struct page: {e}: give a vmlinux with -s") from e


# The members to look for, and their sizes in bytes.
_SIZES = {
    "flags": 8,
    "compound_head": 8,
    "compound_info": 8,
    "mapping": 8,
    "index": 8,
    "__folio_index": 8,
    "private": 8,
    "_mapcount": 4,
    "_refcount": 4,
    "memcg_data": 8,
    "mem_cgroup": 8,
}


def fields_of_btf(btf: Btf, name: str) -> PageFields:
    """
    Get the members of ``struct page`` from BTF.

    :param name: Name of the file.
    :raises LookupError: if there is no such type
    """
    found = btf.find(BtfKind.STRUCT, "page")
    if not found:
        raise LookupError("it is not BTF of a kernel")
    page = btf.type(found[0])
    offsets = dict(_members(btf, found[0], 0, 0))
    members = [(offsets[m] // 8, size, m) for m, size in _SIZES.items() if m in offsets]
    members.append((offsets["lru"] // 8 + 8, 8, "lru.prev"))
    return PageFields(page.reference, tuple(sorted(members)), f"of {name}")


# Nesting of anonymous structures in struct page.
_DEPTH = 8


def _members(btf: Btf, type_id: int, offset: int, depth: int) -> Iterator[tuple[str, int]]:
    for member in reversed(list(btf.members(btf.type(type_id)))):
        at = offset + member.bit_offset
        if member.name:
            yield member.name, at
        elif depth < _DEPTH:
            yield from _members(btf, member.type_id, at, depth + 1)


def _of_dwarf(paths: Sequence[str]) -> PageFields:
    prog, names = Program(), ", ".join(Path(path).name for path in paths)
    try:
        for path in paths:
            # The program has no modules that the file could match.
            prog.extra_module(path, create=True).try_file(path, force=True)
        return page_fields_of_types(prog, f"of {names}")
    except (LookupError, MissingDebugInfoError, OSError) as e:
        raise CannotOpenError(
            f"{names} has no struct page: {e}: give a vmlinux with DWARF, or BTF, with -s"
        ) from e
    except Exception as e:
        if type(e) is not Exception:
            raise
        # drgn raises errors of libdw and libelf as plain Exception.
        raise CannotOpenError(f"{names} is damaged: {e}: give another vmlinux with -s") from e
