# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Owners
------

Whose a page is: the slab cache, the file, or the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn import BadDataError, FaultError, Object, Program

from drgn_zonedev.kernel.paths import path_of_inode
from drgn_zonedev.model import Pgmap
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.vmcore.reads import need_object

__all__ = ("Owner", "file_owner", "pgmap_owner", "slab_owner")

# Debugging information may have a type without its members.
_UNREADABLE = (AttributeError, BadDataError, FaultError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Owner:
    """
    ``type`` is ``slab-cache``, ``file`` or ``pgmap``, and ``address`` that of the ``struct
    kmem_cache``, ``struct address_space`` or ``struct dev_pagemap``. ``name`` is that of the cache,
    the path, or the device; ``None`` if it is not known. All text is escaped. ``inode`` is a
    file's number, and ``file_system`` is ``sb->s_id``.
    """

    type: str
    address: int
    name: str | None = None
    inode: int | None = None
    file_system: str | None = None


def slab_owner(prog: Program, address: int) -> Owner:
    """Get the owner of a slab by its ``struct kmem_cache *``."""
    try:
        return Owner("slab-cache", address, c_string(_object(prog, "kmem_cache", address).name))
    except _UNREADABLE:
        return Owner("slab-cache", address)


def file_owner(prog: Program, address: int) -> Owner:
    """Get the owner of a page by its ``struct address_space *``."""
    try:
        inode = _object(prog, "address_space", address).host.read_()
        need_object(inode[0])
        number, file_system = inode.i_ino.value_(), c_string(inode.i_sb.s_id)
    except _UNREADABLE:
        return Owner("file", address)
    return Owner("file", address, _path(inode), number, file_system)


def _path(inode: Object) -> str | None:
    try:
        return path_of_inode(inode)
    except _UNREADABLE:
        return None


def pgmap_owner(pgmap: Pgmap) -> Owner:
    """Get the owner of a device page."""
    return Owner("pgmap", pgmap.address, pgmap.device.name if pgmap.device else None)


def _object(prog: Program, tag: str, address: int) -> Object:
    found = Object(prog, f"struct {tag} *", address)
    need_object(found[0])
    return found
