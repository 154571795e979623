# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Waiting for Pages
-----------------

The ``drgn_zonedev.kernel.waiters`` module finds the tasks that wait until device memory is
no longer used. They are found by what they wait on, without looking at any stack:
``pgmap->done`` (``memunmap_pages()``), the freezing of a pmem device's queue, which was its
pgmap's reference up to v5.16, and the reference count of one page (file systems, before they
truncate a DAX file).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import Object, Program, TypeKind, container_of, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.arguments import require_struct
from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.memremap import pgmap_ref
from drgn_zonedev.vmcore.reads import need_object, read_memory, read_word

__all__ = ("page_waiters", "removal_waiters")


def removal_waiters(pgmap: Object) -> Iterator[Object]:
    """
    Iterate over the tasks that wait until the last reference of a pgmap is dropped.

    :param pgmap: ``struct dev_pagemap *``
    :return: Iterator of ``struct task_struct *``
    :raises FaultError: if the tasks cannot be read
    """
    require_struct(pgmap, "struct dev_pagemap")
    yield from _queued(pgmap.done.wait)
    queue = _request_queue(pgmap)
    if queue is not None:
        yield from _queued(queue.mq_freeze_wq)


def _request_queue(pgmap: Object) -> Object | None:
    # pmem_attach_disk() up to Linux kernel commit b80892ca022e ("memremap: remove support for
    # external pgmap refcounts") (in v5.17).
    ref = pgmap.ref
    if ref.type_.unaliased_kind() != TypeKind.POINTER:
        return None
    ref = pgmap_ref(pgmap)
    if not ref or ref.value_() == pgmap.internal_ref.address_of_().value_():
        return None
    return container_of(ref, "struct request_queue", "q_usage_counter")


def _queued(queue: Object) -> Iterator[Object]:
    # A completion has a simple wait queue since Linux kernel commit a5c6234e1028 ("completion:
    # Use simple wait queues") (in v5.7).
    simple = queue.type_.has_member("task_list")
    head = queue.task_list if simple else queue.head
    # A queue of zeros was never initialised. Exports do not have the type of an entry.
    if read_word(queue.prog_, head.address_) in (0, head.address_):
        return
    tag, link = ("swait_queue", "task_list") if simple else ("wait_queue_entry", "entry")
    for entry in list_entries(queue.prog_, f"struct {tag}", head.address_of_(), link):
        need_object(entry[0])
        task = entry.task if simple else entry.private
        yield Object(queue.prog_, "struct task_struct *", task.value_())


@takes_program_or_default
def page_waiters(prog: Program) -> Iterator[tuple[int, Object]]:
    """
    Iterate over the tasks that wait in ``wait_var_event()`` on a page, until it has no other user.

    :return: Iterator of (PFN, ``struct task_struct *``)
    :raises FaultError: if a wait queue cannot be read
    :raises LookupError: if the debugging information does not have ``bit_wait_table``
    """
    layout, bits = page_layout(prog), prog.type("struct wait_bit_queue_entry")
    for head in _busy_queues(prog["bit_wait_table"]):
        for entry in list_entries(prog, "struct wait_queue_entry", head, "entry"):
            at = entry.value_() - offsetof(bits, "wq_entry")
            waiting = Object(prog, bits, address=at % (1 << 64))
            need_object(waiting)
            # page->_refcount up to Linux kernel commit 38607c62b34b ("fs/dax: properly refcount
            # fs dax pages") (in v6.15), the page since.
            pfn = (waiting.key.flags.value_() - layout.vmemmap) // layout.size
            yield pfn, Object(prog, "struct task_struct *", waiting.wq_entry.private.value_())


def _busy_queues(table: Object) -> Iterator[Object]:
    # The heads of lists that are not empty. The table is one read.
    prog, queue = table.prog_, table.type_.type
    address, count, size = table.address_, table.type_.length, sizeof(queue)
    assert address is not None
    assert count
    at = offsetof(queue, "head")
    raw = np.frombuffer(read_memory(prog, address, count * size), np.uint8).reshape(count, size)
    first = np.ascontiguousarray(raw[:, at : at + 8]).view("<u8")[:, 0]
    heads = np.arange(count, dtype=np.uint64) * np.uint64(size) + np.uint64(address + at)
    for head in heads[(first != heads) & (first != 0)].tolist():
        yield Object(prog, "struct list_head *", head)
