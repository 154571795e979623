# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Structures between pages and the processes that use them, for any layout.

No file of layouts/ has them. Their members are where C would put them if these were all; what
changed over the releases comes in two editions: that of 5.10, and that of 7.x.
"""

from __future__ import annotations

import dataclasses

from .layoutfile import Layout, Member, Struct

__all__ = ("WAIT_TABLE", "with_users")

WAIT_TABLE = 256

_LIST = "struct list_head"

# Name of a structure: its members.
_Declared = dict[str, tuple[tuple[str, str], ...]]

_COMMON: _Declared = {
    "rb_node": (
        ("__rb_parent_color", "unsigned long"),
        ("rb_right", "struct rb_node *"),
        ("rb_left", "struct rb_node *"),
    ),
    "rb_root": (("rb_node", "struct rb_node *"),),
    "rb_root_cached": (("rb_root", "struct rb_root"), ("rb_leftmost", "struct rb_node *")),
    "hlist_node": (("next", "struct hlist_node *"), ("pprev", "struct hlist_node **")),
    "hlist_head": (("first", "struct hlist_node *"),),
    "hlist_bl_node": (("next", "struct hlist_bl_node *"), ("pprev", "struct hlist_bl_node **")),
    "address_space": (("host", "struct inode *"), ("i_mmap", "struct rb_root_cached")),
    "inode": (
        ("i_sb", "struct super_block *"),
        ("i_mapping", "struct address_space *"),
        ("i_ino", "unsigned long"),
        ("i_dentry", "struct hlist_head"),
        ("i_sb_list", _LIST),
        ("i_data", "struct address_space"),
    ),
    "qstr": (("hash_len", "unsigned long"), ("name", "const char *")),
    "dentry_operations": (("d_dname", "void *"),),
    "vfsmount": (("mnt_root", "struct dentry *"), ("mnt_flags", "int")),
    "path": (("mnt", "struct vfsmount *"), ("dentry", "struct dentry *")),
    "file_operations": (("owner", "void *"),),
    "file": (
        ("f_op", "struct file_operations *"),
        ("f_path", "struct path"),
        ("f_mapping", "struct address_space *"),
        ("private_data", "void *"),
    ),
    "file_system_type": (("name", "const char *"),),
    "gendisk": (("disk_name", "char [32]"),),
    "block_device": (("bd_disk", "struct gendisk *"),),
    "mm_struct": (("pgd", "unsigned long *"),),
    "vma_links": (("rb", "struct rb_node"), ("rb_subtree_last", "unsigned long")),
    "vm_area_struct": (
        ("vm_start", "unsigned long"),
        ("vm_end", "unsigned long"),
        ("vm_mm", "struct mm_struct *"),
        ("shared", "struct vma_links"),
        ("vm_pgoff", "unsigned long"),
        ("vm_file", "struct file *"),
    ),
    "anon_vma": (("root", "struct anon_vma *"), ("rb_root", "struct rb_root_cached")),
    "anon_vma_chain": (
        ("vma", "struct vm_area_struct *"),
        ("anon_vma", "struct anon_vma *"),
        ("rb", "struct rb_node"),
    ),
    "signal_struct": (("nr_threads", "int"), ("thread_head", _LIST)),
    "fdtable": (("max_fds", "unsigned int"), ("fd", "struct file **")),
    "files_struct": (("count", "atomic_t"), ("fdt", "struct fdtable *")),
    "task_struct": (
        ("__state", "unsigned int"),
        ("flags", "unsigned int"),
        ("tasks", _LIST),
        ("mm", "struct mm_struct *"),
        ("tgid", "int"),
        ("comm", "char [16]"),
        ("thread_node", _LIST),
        ("files", "struct files_struct *"),
        ("signal", "struct signal_struct *"),
        ("nsproxy", "struct nsproxy *"),
    ),
    "nsproxy": (("mnt_ns", "void *"),),
    "pipe_buf_operations": (("release", "void *"),),
    "pipe_buffer": (
        ("page", "struct page *"),
        ("offset", "unsigned int"),
        ("len", "unsigned int"),
        ("ops", "struct pipe_buf_operations *"),
    ),
    "pipe_inode_info": (("ring_size", "unsigned int"), ("bufs", "struct pipe_buffer *")),
    "bio_vec": (("bv_page", "struct page *"), ("bv_len", "unsigned int")),
    "io_mapped_ubuf": (("nr_bvecs", "unsigned int"), ("bvec", "struct bio_vec [0]")),
    "swait_queue_head": (("lock", "struct raw_spinlock"), ("task_list", _LIST)),
    "swait_queue": (("task", "struct task_struct *"), ("task_list", _LIST)),
    "completion": (("done", "unsigned int"), ("wait", "struct swait_queue_head")),
    "wait_queue_head": (("lock", "struct raw_spinlock"), ("head", _LIST)),
    "wait_queue_entry": (("flags", "unsigned int"), ("private", "void *"), ("entry", _LIST)),
    "wait_bit_key": (("flags", "unsigned long *"), ("bit_nr", "int")),
    "wait_bit_queue_entry": (
        ("key", "struct wait_bit_key"),
        ("wq_entry", "struct wait_queue_entry"),
    ),
    "request_queue": (
        ("q_usage_counter", "struct percpu_ref"),
        ("mq_freeze_wq", "struct wait_queue_head"),
    ),
}

_DENTRY = (
    ("d_hash", "struct hlist_bl_node"),
    ("d_parent", "struct dentry *"),
    ("d_name", "struct qstr"),
    ("d_op", "struct dentry_operations *"),
    ("d_sb", "struct super_block *"),
)
_MOUNT = (
    ("mnt_parent", "struct mount *"),
    ("mnt_mountpoint", "struct dentry *"),
    ("mnt", "struct vfsmount"),
    ("mnt_ns", "void *"),
)
_SUPER_BLOCK = (
    ("s_list", _LIST),
    ("s_bdev", "struct block_device *"),
    ("s_type", "struct file_system_type *"),
    ("s_inodes", _LIST),
)

_OLD: _Declared = {
    "dentry_union": (("d_alias", "struct hlist_node"),),
    "dentry": (*_DENTRY, ("d_u", "struct dentry_union")),
    "mount": (*_MOUNT, ("mnt_instance", _LIST)),
    "super_block": (*_SUPER_BLOCK, ("s_mounts", _LIST)),
    "io_ring_ctx": (("nr_user_bufs", "unsigned int"), ("user_bufs", "struct io_mapped_ubuf **")),
}
_NEW: _Declared = {
    "dentry": (*_DENTRY, ("d_alias", "struct hlist_node")),
    "mount": (*_MOUNT, ("mnt_next_for_sb", "struct mount *")),
    "super_block": (*_SUPER_BLOCK, ("s_mounts", "struct mount *")),
    "io_rsrc_node": (("type", "unsigned char"), ("buf", "struct io_mapped_ubuf *")),
    "io_rsrc_data": (("nr", "unsigned int"), ("nodes", "struct io_rsrc_node **")),
    "io_ring_ctx": (("flags", "unsigned int"), ("buf_table", "struct io_rsrc_data")),
}


def with_users(layout: Layout) -> Layout:
    """The same kernel, with these structures besides."""
    is_old = layout.has_member("page", "pgmap")
    declared = {**_COMMON, **(_OLD if is_old else _NEW)}
    # What they refer to must be known before a member's size is.
    with_them = dataclasses.replace(layout, structs=dict(layout.structs))
    todo = dict(declared)
    while todo:
        for tag, members in list(todo.items()):
            if not _needs(members) & todo.keys():
                with_them.structs[tag] = _placed(with_them, todo.pop(tag))
    return with_them


def _needs(members: tuple[tuple[str, str], ...]) -> set[str]:
    types = (type_ for _, type_ in members if not type_.endswith("*"))
    return {type_.replace("struct ", "").partition(" [")[0] for type_ in types}


def _placed(layout: Layout, members: tuple[tuple[str, str], ...]) -> Struct:
    struct, offset = Struct(0, anonymous=False), 0
    for name, type_ in members:
        struct.members[name] = Member(type_, offset)
        offset += -(-layout.sizeof(type_) // 8) * 8
    struct.size = offset
    return struct
