# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Holders of Pages
----------------

The ``drgn_zonedev.kernel.page_holders`` module finds the references to pages that open
files keep although nothing maps them: pages in a pipe (``vmsplice()``), and buffers that are
registered with io_uring.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Object, Program, TypeKind, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.tasks import Process, open_files
from drgn_zonedev.vmcore.reads import need_object, read_memory

__all__ = ("HolderKind", "PageHolder", "held_pages", "page_holders")

# A pipe has at most 2^20 pages for a process without privileges (fs.pipe-max-size), and at
# most 2^31 bytes otherwise.
_MAX_BUFFERS = 1 << 19
# IORING_MAX_REG_BUFFERS
_MAX_REGISTERED = 1 << 14
# A registered buffer has at most 1 GiB.
_MAX_VECTORS = 1 << 18


class HolderKind(enum.Enum):
    """What keeps references to pages."""

    PIPE = "pipe"
    IO_URING = "io_uring"


# An anonymous pipe has operations of its own since Linux kernel commit 262b2fa99cbe ("pipe:
# introduce struct file_operations pipeanon_fops") (in v6.15).
_OPERATIONS = {
    "pipefifo_fops": HolderKind.PIPE,
    "pipeanon_fops": HolderKind.PIPE,
    "io_uring_fops": HolderKind.IO_URING,
}


@dataclass(frozen=True)
class PageHolder:
    """A ``struct pipe_inode_info`` or ``struct io_ring_ctx``, by its address."""

    kind: HolderKind
    address: int


@takes_program_or_default
def page_holders(prog: Program, process: Process) -> Iterator[tuple[int, PageHolder]]:
    """
    Iterate over what a process has open, and may keep references to pages.

    :return: Iterator of (file descriptor, what it is): both ends of a pipe are one
    :raises FaultError: if it cannot be read
    """
    known = _operations(prog)
    # Tables that were copied have the same files.
    leader = Object(prog, "struct task_struct *", process.task)
    opened = list(dict.fromkeys(open_files(leader)))
    at = np.uint64(offsetof(prog.type("struct file"), "f_op"))
    addresses = np.array([file for _, file in opened], np.uint64)
    operations = read_records(prog, addresses + at, 8)[0].view("<u8")[:, 0]
    for (fd, file), operation in zip(opened, operations.tolist()):
        if operation in known:
            private = Object(prog, "struct file *", file).private_data.value_()
            yield fd, PageHolder(known[operation], private)


def _operations(prog: Program) -> dict[int, HolderKind]:
    found = {}
    for name, kind in _OPERATIONS.items():
        try:
            address = prog[name].address_
        except LookupError:
            continue
        if address is not None:
            found[address] = kind
    return found


@takes_program_or_default
def held_pages(prog: Program, holder: PageHolder) -> Iterator[int]:
    """
    Iterate over the references to pages that a pipe or an io_uring keeps. Those of an
    io_uring are pins (``FOLL_PIN``).

    :return: Iterator of PFNs, one for each reference
    :raises FaultError: if they cannot be read
    :raises LookupError: if the debugging information does not say where they are
    """
    if holder.kind is HolderKind.PIPE:
        return _pipe_pages(Object(prog, "struct pipe_inode_info *", holder.address))
    return _registered_pages(Object(prog, "struct io_ring_ctx *", holder.address))


def _pipe_pages(pipe: Object) -> Iterator[int]:
    prog = pipe.prog_
    need_object(pipe[0])
    # Renamed in Linux kernel commit 8cefc107ca54 ("pipe: Use head and tail pointers for the
    # ring, not cursor and length") (in v5.5).
    renamed = pipe[0].type_.has_member("ring_size")
    count = min((pipe.ring_size if renamed else pipe.buffers).value_(), _MAX_BUFFERS)
    type_ = prog.type("struct pipe_buffer")
    raw = _table(prog, pipe.bufs.value_(), count, sizeof(type_))
    # pipe_buf_release() clears the operations of a buffer that was read.
    in_use = _column(raw, offsetof(type_, "ops")) != 0
    for address in _column(raw, offsetof(type_, "page"))[in_use].tolist():
        yield _pfn(prog, address)


def _registered_pages(context: Object) -> Iterator[int]:
    prog = context.prog_
    need_object(context[0])
    vector = prog.type("struct bio_vec")
    for buffer in _registered_buffers(context):
        need_object(buffer[0])
        count = min(buffer.nr_bvecs.value_(), _MAX_VECTORS)
        # bvec is an array of variable length, and was a pointer before Linux kernel commit
        # 41edf1a5ec96 ("io_uring: keep table of pointers to ubufs") (in v5.13).
        vectors = buffer.bvec
        at = vectors.address_ if vectors.type_.kind.name == "ARRAY" else vectors.value_()
        raw = _table(prog, at, count, sizeof(vector))
        for address in _column(raw, offsetof(vector, "bv_page")).tolist():
            yield _pfn(prog, address)


def _registered_buffers(context: Object) -> Iterator[Object]:
    """``struct io_mapped_ubuf *``, each once: rings can share them."""
    prog, nodes = context.prog_, context[0].type_.has_member("buf_table")
    # In nodes since Linux kernel commit 3597f2786b68 ("io_uring/rsrc: unify file and buffer
    # resource tables") (in v6.13).
    count = context.buf_table.nr if nodes else context.nr_user_bufs
    table = context.buf_table.nodes if nodes else context.user_bufs
    number = min(count.value_(), _MAX_REGISTERED)
    if not number or not table:
        return
    if table.type_.type.kind != TypeKind.POINTER:
        # A table of the structures before 41edf1a5ec96 ("io_uring: keep table of pointers to
        # ubufs") (in v5.13), which is in v5.10.162 and later, too.
        yield from (table + index for index in range(number))
        return
    for address in np.frombuffer(read_memory(prog, table.value_(), 8 * number), "<u8").tolist():
        if not address:
            continue
        if nodes:
            node = Object(prog, "struct io_rsrc_node *", address)
            need_object(node[0])
            yield node.buf.read_()
        else:
            yield Object(prog, "struct io_mapped_ubuf *", address)


def _table(prog: Program, address: int, count: int, size: int) -> np.ndarray:
    raw = read_memory(prog, address, count * size) if count else b""
    return np.frombuffer(raw, np.uint8).reshape(count, size)


def _column(rows: np.ndarray, offset: int) -> np.ndarray:
    return np.ascontiguousarray(rows[:, offset : offset + 8]).view("<u8").reshape(-1)


def _pfn(prog: Program, page: int) -> int:
    layout = page_layout(prog)
    return (page - layout.vmemmap) // layout.size
