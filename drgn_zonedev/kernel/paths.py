# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Paths
-----

The ``drgn_zonedev.kernel.paths`` module names files of a kernel whose memory may be
damaged: drgn's ``d_path()`` and ``inode_path()`` never end where directories form a cycle.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import BadDataError, FaultError, Object, Program, TypeKind, container_of

from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.vmcore.reads import need_object, read_word

__all__ = ("file_path", "path_of_inode")

# PATH_MAX allows 2048 names.
_MAX_DEPTH = 2048

# Of one file system. fs.mount-max is 100000 by default.
_MAX_MOUNTS = 1 << 20

# A macro in include/linux/mount.h, unchanged since v2.6.34; see drgn's d_path().
_MNT_INTERNAL = 0x4000


def file_path(file: Object) -> str:
    """
    Get the path of an open file, like ``file_path()``: ``d_path()`` of its dentry and mount.

    :param file: ``struct file *``
    :return: The path, escaped; ``" (deleted)"`` follows if the file was unlinked. A file that
        is in no directory has the name of its file system in brackets.
    :raises BadDataError: if its directories form a cycle
    :raises FaultError: if a part of the path cannot be read
    """
    need_object(file[0])
    dentry, mnt = file.f_path.dentry.read_(), file.f_path.mnt.read_()
    return _path(dentry, container_of(mnt, "struct mount", "mnt"))


def path_of_inode(inode: Object) -> str | None:
    """
    Get a path of an inode, on one of the mounts of its file system: best of all, on one where the
    file can be seen, in the first mount namespace.

    :param inode: ``struct inode *``
    :return: ``None`` if no dentry refers to it, or its file system is not mounted
    :raises BadDataError: if its directories form a cycle
    :raises FaultError: if a part of the path cannot be read
    """
    prog = inode.prog_
    node = read_word(prog, inode.i_dentry.address_of_().value_())
    if not node:
        return None
    # Anonymous since Linux kernel commit 2420067cecac ("struct dentry: make ->d_u anonymous")
    # (in v7.1).
    anonymous = prog.type("struct dentry").has_member("d_alias")
    member = "d_alias" if anonymous else "d_u.d_alias"
    dentry = container_of(Object(prog, "struct hlist_node *", node), "struct dentry", member)
    need_object(dentry[0])
    mount = _best_mount(inode, dentry)
    return None if mount is None else _path(dentry, mount)


def _best_mount(inode: Object, dentry: Object) -> Object | None:
    super_block = inode.i_sb.read_()
    need_object(super_block[0])
    above, initial = set(_dentries_above(dentry)), _initial_namespace(inode.prog_)
    best, highest = None, (False, -1)
    for mount in _mounts(super_block):
        need_object(mount[0])
        # What is bound elsewhere may be another directory.
        rank = (mount.mnt.mnt_root.value_() in above, _reach(mount, initial))
        if rank > highest:
            best, highest = mount, rank
        if rank == (True, _BEST):
            break
    return best


_BEST = 3


def _reach(mount: Object, initial: int) -> int:
    # A mount of the kernel's own is at no path, and so is one that was detached: it has no
    # namespace.
    if mount.mnt.mnt_flags.value_() & _MNT_INTERNAL:
        return 0
    namespace = mount.mnt_ns.value_()
    if not namespace:
        return 1
    return _BEST if namespace == initial else 2


def _initial_namespace(prog: Program) -> int:
    try:
        return int(prog["init_task"].nsproxy.mnt_ns.value_())
    except (AttributeError, FaultError, LookupError):
        return 0


def _dentries_above(dentry: Object) -> Iterator[int]:
    """The addresses of a dentry and the directories above it."""
    for _ in range(_MAX_DEPTH):
        yield dentry.value_()
        above = dentry.d_parent.read_()
        if above.value_() == dentry.value_():
            return
        dentry = above


def _mounts(super_block: Object) -> Iterator[Object]:
    # Singly linked since Linux kernel commit 09a1b33c080f ("preparations to taking
    # MNT_WRITE_HOLD out of ->mnt_flags") (in v6.18).
    mounts = super_block.s_mounts
    if mounts.type_.unaliased_kind() != TypeKind.POINTER:
        prog, head = super_block.prog_, mounts.address_of_()
        yield from list_entries(prog, "struct mount", head, "mnt_instance")
        return
    mount = mounts.read_()
    for _ in range(_MAX_MOUNTS):
        if not mount:
            return
        yield mount
        mount = mount.mnt_next_for_sb.read_()


def _path(dentry: Object, mount: Object) -> str:
    need_object(dentry[0])
    operations = dentry.d_op.read_()
    if operations and operations.d_dname.value_():
        return f"[{c_string(dentry.d_sb.s_type.name)}]"
    deleted = " (deleted)" if _is_unlinked(dentry) else ""
    return f"/{'/'.join(reversed(list(_names(dentry, mount))))}{deleted}"


def _is_unlinked(dentry: Object) -> bool:
    # d_unlinked()
    is_root = dentry.d_parent.value_() == dentry.value_()
    return not is_root and not dentry.d_hash.pprev.value_()


def _names(dentry: Object, mount: Object) -> Iterator[str]:
    for _ in range(_MAX_DEPTH):
        need_object(dentry[0])
        need_object(mount[0])
        if dentry.value_() == mount.mnt.mnt_root.value_():
            parent = mount.mnt_parent.read_()
            if parent.value_() == mount.value_():
                return
            dentry, mount = mount.mnt_mountpoint.read_(), parent
            continue
        above = dentry.d_parent.read_()
        if above.value_() == dentry.value_():
            return
        yield c_string(dentry.d_name.name)
        dentry = above
    raise BadDataError(f"the directories above dentry {dentry.value_():#x} have no end")
