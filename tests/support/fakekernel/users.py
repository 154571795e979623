# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes, files and page tables of a fake kernel: who uses its pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .kernel import FakeKernel

__all__ = ("File", "Process", "Users")

PAGE = 4096
_ENTRIES = 512
# Bit 1 makes a table or a page of an entry on arm64, and may be set on x86-64.
_PRESENT, _HUGE = 3, 1 << 7
_KTHREAD = 0x00200000
# Words of struct page.
_MAPPING, _INDEX, _COUNTS = 3, 4, 6
_NO_MAPPING = 0xFFFFFFFF
# Where processes map things.
_FIRST_ADDRESS = 0x7F0000000000
_OF_KERNEL = 256


@dataclass
class Process:
    """A process under construction; ``mm`` and ``task`` are addresses."""

    pid: int
    name: str
    task: int
    mm: int
    files: list[int] = field(default_factory=list)
    next_address: int = _FIRST_ADDRESS


@dataclass
class File:
    """A file: addresses of its ``struct file``, ``inode``, ``address_space`` and ``dentry``."""

    path: str
    file: int
    inode: int
    mapping: int
    dentry: int
    vmas: list[int] = field(default_factory=list)


class Users:
    """
    Adds users to a kernel that was made with ``users=True``.

    Every method makes what the kernel would have; ``kernel`` pokes at it.
    """

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self._tasks = [kernel.variables["init_task"][1]]
        self.rename(self._tasks[0], "swapper/0", 0, _KTHREAD)
        self._link(self._tasks, "task_struct", "tasks")
        # Any address will do.
        self.namespace = kernel.allocate(8)
        proxy = kernel.new("nsproxy", mnt_ns=self.namespace)
        kernel.poke_member("task_struct", self._tasks[0], "nsproxy", proxy)
        self._supers: list[int] = []
        self._link_list(kernel.variables["super_blocks"][1], [])
        for number in range(256):
            self._link_list(self._wait_head(number), [])
        self._waiting: list[int] = []
        self._inodes: list[int] = []
        # Of each super block: where it is mounted, the mount, and its first dentry.
        self._mounts: dict[int, tuple[str, int, int]] = {}

    # Names.

    def rename(self, task: int, name: str, pid: int, flags: int = 0) -> None:
        """Set what a task says of itself."""
        kernel = self.kernel
        kernel.poke_member("task_struct", task, "tgid", pid)
        kernel.poke_member("task_struct", task, "flags", flags)
        at = task + kernel.layout.structs["task_struct"].members["comm"].offset
        kernel.poke(at, name.encode().ljust(16, b"\0"))

    def process(self, pid: int, name: str) -> Process:
        """A process with an address space."""
        kernel = self.kernel
        pgd = kernel.allocate(PAGE)
        # The kernel itself is mapped.
        kernel.poke(pgd + 8 * _OF_KERNEL, (1 | PAGE).to_bytes(8, "little"))
        mm = kernel.new("mm_struct", pgd=pgd)
        signal = kernel.new("signal_struct", nr_threads=1)
        task = kernel.new("task_struct", mm=mm, signal=signal)
        self.rename(task, name, pid)
        threads = [self.at("task_struct", task, "thread_node")]
        self._link_list(self.at("signal_struct", signal, "thread_head"), threads)
        self._tasks.append(task)
        self._link(self._tasks, "task_struct", "tasks")
        return Process(pid, name, task, mm)

    # Files.

    def file_system(self, mounted_at: str, disk: str = "pmem0", kind: str = "ext4") -> int:
        """A mounted file system; returns its super block."""
        kernel = self.kernel
        gendisk = kernel.new("gendisk")
        kernel.poke(gendisk, disk.encode().ljust(32, b"\0"))
        type_ = kernel.new("file_system_type", name=kernel.string(kind))
        block = kernel.new("super_block", s_type=type_)
        device = kernel.new("block_device", bd_disk=gendisk)
        kernel.poke_member("super_block", block, "s_bdev", device)
        self._link_list(self.at("super_block", block, "s_inodes"), [])
        self._supers.append(block)
        heads = [self.at("super_block", one, "s_list") for one in self._supers]
        self._link_list(kernel.variables["super_blocks"][1], heads)
        top = self._dentry("/", 0, block)
        above = self._mount(self._dentry("/", 0, block), 0, 0)
        point = self._dentry(mounted_at.strip("/"), kernel.member("mount", above, "mnt.mnt_root"))
        mount = self._mount(top, above, point)
        self._mounts[block] = (mounted_at, mount, top)
        self._add_mount(block, mount)
        return block

    def _mount(self, root: int, parent: int, point: int) -> int:
        mount = self.kernel.new("mount", mnt_mountpoint=point, mnt_ns=self.namespace)
        self.kernel.poke_member("mount", mount, "mnt.mnt_root", root)
        self.kernel.poke_member("mount", mount, "mnt_parent", parent or mount)
        return mount

    def _add_mount(self, block: int, mount: int) -> None:
        kernel = self.kernel
        if kernel.layout.has_member("mount", "mnt_instance"):
            head = self.at("super_block", block, "s_mounts")
            self._link_list(head, [self.at("mount", mount, "mnt_instance")])
        else:
            kernel.poke_member("super_block", block, "s_mounts", mount)

    def _dentry(self, name: str, parent: int, block: int = 0) -> int:
        kernel = self.kernel
        dentry = kernel.new("dentry", d_sb=block)
        kernel.poke_member("dentry", dentry, "d_name.name", kernel.string(name))
        kernel.poke_member("dentry", dentry, "d_parent", parent or dentry)
        kernel.poke_member("dentry", dentry, "d_hash.pprev", dentry)
        return dentry

    def file(self, block: int, name: str) -> File:
        """A file at the top of a file system, opened once."""
        kernel = self.kernel
        mounted_at, mount, top = self._mounts[block]
        dentry = self._dentry(name, top, block)
        inode = kernel.new("inode", i_sb=block, i_ino=len(name))
        mapping = self.at("inode", inode, "i_data")
        kernel.poke_member("inode", inode, "i_mapping", mapping)
        kernel.poke_member("inode", inode, "i_data.host", inode)
        old = kernel.layout.has_member("dentry", "d_u")
        alias = self.at("dentry", dentry, "d_u.d_alias" if old else "d_alias")
        kernel.poke_member("inode", inode, "i_dentry.first", alias)
        self._inodes.append(inode)
        own = [one for one in self._inodes if kernel.member("inode", one, "i_sb") == block]
        entries = [self.at("inode", one, "i_sb_list") for one in own]
        self._link_list(self.at("super_block", block, "s_inodes"), entries)
        opened = kernel.new("file", f_mapping=mapping)
        kernel.poke_member("file", opened, "f_path.dentry", dentry)
        kernel.poke_member("file", opened, "f_path.mnt", self.at("mount", mount, "mnt"))
        return File(f"{mounted_at}/{name}", opened, inode, mapping, dentry)

    # Mappings.

    def own(self, file: File, pfn: int, pages: int, *, index: int = 0, step: int = 1) -> None:
        """Have pages say that they belong to a file."""
        for i in range(0, pages, step):
            self.kernel.poke_page_word(pfn + i, _MAPPING, file.mapping)
            self.kernel.poke_page_word(pfn + i, _INDEX, index + i)

    def count(self, pfn: int, references: int, mappings: int = 0, pages: int = 1) -> None:
        """Set the counts of pages."""
        mapcount = (mappings - 1) % (1 << 32)
        for i in range(pages):
            self.kernel.poke_page_word(pfn + i, _COUNTS, references << 32 | mapcount)

    def map(
        self, process: Process, file: File, pfns: Sequence[int | None], *, index: int = 0
    ) -> int:
        """Map a part of a file, of which only some pages are present; returns the VMA."""
        start = process.next_address
        process.next_address += (len(pfns) + _ENTRIES) * PAGE
        vma = self.kernel.new(
            "vm_area_struct",
            vm_start=start,
            vm_end=start + len(pfns) * PAGE,
            vm_mm=process.mm,
            vm_pgoff=index,
            vm_file=file.file,
        )
        file.vmas.append(vma)
        nodes = [self.at("vm_area_struct", one, "shared.rb") for one in file.vmas]
        self.tree(self.at("address_space", file.mapping, "i_mmap.rb_root"), nodes)
        for i, pfn in enumerate(pfns):
            if pfn is not None:
                self.set_entry(process, start + i * PAGE, pfn << 12 | _PRESENT)
        return vma

    def map_huge(self, process: Process, file: File, pfn: int, *, index: int = 0) -> int:
        """Map 2 MiB of a file by one entry."""
        process.next_address = -(-process.next_address // (PAGE * _ENTRIES)) * PAGE * _ENTRIES
        start = process.next_address
        vma = self.map(process, file, [None] * _ENTRIES, index=index)
        self.set_entry(process, start, pfn << 12 | _PRESENT | _HUGE, level=1)
        return vma

    def set_entry(self, process: Process, address: int, entry: int, level: int = 0) -> None:
        """Set an entry of the page tables."""
        kernel = self.kernel
        table, is_top = kernel.member("mm_struct", process.mm, "pgd"), True
        for depth in (3, 2, 1, 0):
            at = 8 * (address >> 12 + 9 * depth & _ENTRIES - 1)
            read, write = self._door(table, is_top)
            if depth == level:
                write(at, entry)
                return
            below = read(at)
            if not below & 1:
                below = kernel.physical_page() << 12 | _PRESENT
                write(at, below)
            table, is_top = below & ~0xFFF, False

    def _door(self, table: int, is_top: bool):  # type: ignore[no-untyped-def]
        kernel = self.kernel
        page = None if is_top else kernel.physical[table >> 12]

        def read(at: int) -> int:
            raw = kernel.memory.read(table + at, 8) if page is None else page[at : at + 8]
            return int.from_bytes(raw, "little")

        def write(at: int, value: int) -> None:
            data = value.to_bytes(8, "little")
            if page is None:
                kernel.poke(table + at, data)
            else:
                page[at : at + 8] = data

        return read, write

    def tree(self, root: int, nodes: Sequence[int]) -> None:
        """Make a red-black tree of nodes that are in order."""
        self.kernel.poke_member("rb_root", root, "rb_node", self._subtree(nodes))

    def _subtree(self, nodes: Sequence[int]) -> int:
        if not nodes:
            return 0
        middle = len(nodes) // 2
        for member, part in (("rb_left", nodes[:middle]), ("rb_right", nodes[middle + 1 :])):
            self.kernel.poke_member("rb_node", nodes[middle], member, self._subtree(part))
        return nodes[middle]

    def anon_vma(self, process: Process, pfns: Sequence[int | None], index: int) -> int:
        """Map anonymous memory; returns its anon_vma."""
        kernel = self.kernel
        nothing = File("", 0, 0, kernel.new("address_space"), 0)
        vma = self.map(process, nothing, pfns, index=index)
        anon = kernel.new("anon_vma")
        chain = kernel.new("anon_vma_chain", vma=vma, anon_vma=anon)
        node = self.at("anon_vma_chain", chain, "rb")
        self.tree(self.at("anon_vma", anon, "rb_root.rb_root"), [node])
        return anon

    # What holds pages without a mapping.

    def pipe(self, process: Process, pfns: Iterable[int], kind: str = "pipefifo_fops") -> int:
        """Have a process keep a pipe with pages in it; returns the pipe_inode_info."""
        kernel = self.kernel
        size = kernel.layout.structs["pipe_buffer"].size
        buffers = kernel.allocate(16 * size)
        for i, pfn in enumerate(pfns):
            kernel.poke_member("pipe_buffer", buffers + i * size, "page", kernel.page(pfn))
            kernel.poke_member("pipe_buffer", buffers + i * size, "ops", buffers)
        pipe = kernel.new("pipe_inode_info", ring_size=16, bufs=buffers)
        self.open(process, kind, pipe)
        return pipe

    def ring(self, process: Process, pfns: Sequence[int]) -> int:
        """Have a process register a buffer with io_uring; returns the io_ring_ctx."""
        kernel = self.kernel
        head, size = (kernel.layout.structs[tag].size for tag in ("io_mapped_ubuf", "bio_vec"))
        buffer = kernel.allocate(head + len(pfns) * size)
        kernel.poke_member("io_mapped_ubuf", buffer, "nr_bvecs", len(pfns))
        for i, pfn in enumerate(pfns):
            kernel.poke_member("bio_vec", buffer + head + i * size, "bv_page", kernel.page(pfn))
        context, table = kernel.new("io_ring_ctx"), kernel.allocate(16)
        entry = buffer
        if kernel.layout.has_member("io_ring_ctx", "buf_table"):
            entry = kernel.new("io_rsrc_node", buf=buffer)
            kernel.poke_member("io_ring_ctx", context, "buf_table.nr", 2)
            kernel.poke_member("io_ring_ctx", context, "buf_table.nodes", table)
        else:
            kernel.poke_member("io_ring_ctx", context, "nr_user_bufs", 2)
            kernel.poke_member("io_ring_ctx", context, "user_bufs", table)
        kernel.poke(table + 8, entry.to_bytes(8, "little"))
        self.open(process, "io_uring_fops", context)
        return context

    def thread(self, process: Process, **members: int) -> int:
        """Add a thread to a process; returns its task."""
        kernel = self.kernel
        signal = kernel.member("task_struct", process.task, "signal")
        thread = kernel.new("task_struct", signal=signal, **members)
        kernel.poke_member("signal_struct", signal, "nr_threads", 2)
        threads = [self.at("task_struct", t, "thread_node") for t in (process.task, thread)]
        self._link_list(self.at("signal_struct", signal, "thread_head"), threads)
        return thread

    def open(self, process: Process, operations: str, private: int) -> int:
        """Open a file with some operations; returns the ``struct file``."""
        kernel = self.kernel
        f_op = kernel.variables[operations][1]
        process.files.append(kernel.new("file", f_op=f_op, private_data=private))
        table = kernel.allocate(8 * 64)
        for fd, file in enumerate(process.files, 3):
            kernel.poke(table + 8 * fd, file.to_bytes(8, "little"))
        fdt = kernel.new("fdtable", max_fds=64, fd=table)
        files = kernel.new("files_struct", fdt=fdt)
        kernel.poke_member("task_struct", process.task, "files", files)
        return process.files[-1]

    def take_files(self, process: Process, thread: int) -> None:
        """Have a thread take the table of open files with it."""
        files = self.kernel.member("task_struct", process.task, "files")
        self.kernel.poke_member("task_struct", thread, "files", files)
        self.kernel.poke_member("task_struct", process.task, "files", 0)

    # Who waits.

    def wait_for_removal(self, process: Process, pgmap: int) -> None:
        """Have a task wait in memunmap_pages()."""
        kernel = self.kernel
        entry = kernel.new("swait_queue", task=process.task)
        head = self.at("dev_pagemap", pgmap, "done.wait.task_list")
        self._link_list(head, [self.at("swait_queue", entry, "task_list")])

    def wait_for_page(self, process: Process, pfn: int, offset: int = 0) -> int:
        """Have a task wait for a page; returns its wait_bit_queue_entry."""
        kernel = self.kernel
        entry = kernel.new("wait_bit_queue_entry")
        page = kernel.page(pfn) + offset
        kernel.poke_member("wait_bit_queue_entry", entry, "key.flags", page)
        kernel.poke_member("wait_bit_queue_entry", entry, "wq_entry.private", process.task)
        link = self.at("wait_bit_queue_entry", entry, "wq_entry.entry")
        self._waiting.append(link)
        self._link_list(self._wait_head(7), self._waiting)
        return entry

    def _wait_head(self, number: int) -> int:
        size = self.kernel.layout.structs["wait_queue_head"].size
        table = self.kernel.variables["bit_wait_table"][1]
        return self.at("wait_queue_head", table + number * size, "head")

    # Lists.

    def at(self, struct: str, address: int, member: str) -> int:
        """Address of a member."""
        return address + self.kernel.layout.locate(struct, member)[0]

    def _link(self, entries: Sequence[int], struct: str, member: str) -> None:
        heads = [self.at(struct, entry, member) for entry in entries]
        self._link_list(heads[0], heads[1:])

    def _link_list(self, head: int, entries: Sequence[int]) -> None:
        ring = [head, *entries]
        for a, b in zip(ring, [*ring[1:], head]):
            self.kernel.poke_member("list_head", a, "next", b)
            self.kernel.poke_member("list_head", b, "prev", a)
