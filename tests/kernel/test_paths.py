# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn import BadDataError, Object, Program
from support.usedpages import Machine, machine

from drgn_zonedev.kernel.paths import file_path, path_of_inode

BOTH = pytest.mark.parametrize("layout", ["6.1", "7.2"])


def path(made: Machine) -> str:
    prog: Program = made.kernel.program()
    return file_path(Object(prog, "struct file *", made.file.file))


def inode_path(made: Machine) -> str | None:
    prog: Program = made.kernel.program()
    return path_of_inode(Object(prog, "struct inode *", made.file.inode))


@BOTH
def test_a_path_goes_through_its_mounts(layout: str) -> None:
    made = machine(layout)
    assert path(made) == inode_path(made) == "/mnt/file"


@BOTH
def test_a_file_that_was_unlinked_is_said_to_be(layout: str) -> None:
    made = machine(layout)
    made.kernel.poke_member("dentry", made.file.dentry, "d_hash.pprev", 0)
    assert path(made) == "/mnt/file (deleted)"


def test_a_file_in_no_directory_has_the_name_of_its_file_system() -> None:
    made = machine("7.2")
    operations = made.kernel.new("dentry_operations", d_dname=made.file.inode)
    made.kernel.poke_member("dentry", made.file.dentry, "d_op", operations)
    assert path(made) == "[ext4]"


@BOTH
def test_an_inode_that_no_dentry_refers_to_has_no_path(layout: str) -> None:
    made = machine(layout)
    made.kernel.poke_member("inode", made.file.inode, "i_dentry.first", 0)
    assert inode_path(made) is None


def test_an_inode_of_a_file_system_that_is_not_mounted_has_no_path() -> None:
    made = machine("7.2")
    made.kernel.poke_member("super_block", made.file_system, "s_mounts", 0)
    assert inode_path(made) is None


def test_a_mount_of_the_kernel_is_only_second_best() -> None:
    made = machine("7.2")
    mount = made.kernel.member("super_block", made.file_system, "s_mounts")
    kernels = made.kernel.new("mount", mnt_next_for_sb=mount)
    made.kernel.poke_member("mount", kernels, "mnt.mnt_flags", 0x4000)
    made.kernel.poke_member("super_block", made.file_system, "s_mounts", kernels)
    assert inode_path(made) == "/mnt/file"


@pytest.mark.parametrize("what", ["detached", "elsewhere", "another directory"])
def test_a_path_is_that_of_the_mount_where_the_file_can_be_seen(what: str) -> None:
    made = machine("7.2")
    kernel = made.kernel
    mount = kernel.member("super_block", made.file_system, "s_mounts")
    root = kernel.member("mount", mount, "mnt.mnt_root")
    if what == "another directory":
        root = kernel.new("dentry", d_parent=root)
    namespaces = {"detached": 0, "elsewhere": kernel.allocate(8)}
    other = kernel.new(
        "mount", mnt_next_for_sb=mount, mnt_ns=namespaces.get(what, made.users.namespace)
    )
    kernel.poke_member("mount", other, "mnt.mnt_root", root)
    kernel.poke_member("mount", other, "mnt_parent", other)
    kernel.poke_member("super_block", made.file_system, "s_mounts", other)
    assert inode_path(made) == "/mnt/file"
    # Without the other one, it is the best.
    kernel.poke_member("mount", other, "mnt_next_for_sb", 0)
    assert inode_path(made) == "/file"


def test_mounts_that_form_a_cycle_end() -> None:
    made = machine("7.2")
    mount = made.kernel.member("super_block", made.file_system, "s_mounts")
    made.kernel.poke_member("mount", mount, "mnt_parent", mount + 0)
    point = made.kernel.member("dentry", made.file.dentry, "d_parent")
    made.kernel.poke_member("mount", mount, "mnt.mnt_root", 0)
    made.kernel.poke_member("dentry", point, "d_parent", made.file.dentry)
    with pytest.raises(BadDataError, match="have no end"):
        path(made)
