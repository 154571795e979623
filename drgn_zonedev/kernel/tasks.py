# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Tasks
-----

The ``drgn_zonedev.kernel.tasks`` module lists the processes of a kernel whose memory may be
damaged, and what they have open. drgn's ``for_each_task()`` never ends on a damaged tree of
PIDs, and ``for_each_file()`` reads one word at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Object, Program, StackFrame
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.kallsyms import symbol_name
from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.util.strings import c_string, printable
from drgn_zonedev.vmcore.reads import need_object, read_memory

__all__ = (
    "Process",
    "for_each_process",
    "open_files",
    "process_of_task",
    "stack_functions",
    "uninterruptible_threads",
)

# A macro: the task is a thread of the kernel.
_PF_KTHREAD = 0x00200000

# A macro, unchanged since v2.6.
_TASK_UNINTERRUPTIBLE = 2

# sysctl_nr_open is 1 << 20 by default.
_MAX_FILES = 1 << 20

# A stack has 16 KiB, so no more frames than that.
_MAX_FRAMES = 256


@dataclass(frozen=True)
class Process:
    """
    A process: its PID, its name, and the address of its ``struct mm_struct`` or 0. ``task`` is
    the address of a ``struct task_struct``: of its first thread, or of a thread that was asked
    about. ``name`` is untrusted text from the kernel, escaped.
    """

    pid: int
    name: str
    mm: int
    task: int


@takes_program_or_default
def for_each_process(prog: Program) -> Iterator[Process]:
    """
    Iterate over the processes of user space, like the kernel's ``for_each_process()``.

    :raises FaultError: at a process that cannot be read
    """
    tasks = prog["init_task"].tasks.address_of_()
    for leader in list_entries(prog, "struct task_struct", tasks, "tasks"):
        need_object(leader[0])
        if not leader.flags.value_() & _PF_KTHREAD:
            yield process_of_task(leader, _mm(leader))


def _mm(leader: Object) -> int:
    mm = leader.mm.value_()
    if mm or leader.signal.nr_threads.value_() <= 1:
        return int(mm)
    # The first thread has exited, and others go on.
    for thread in _threads(leader):
        if thread.mm.value_():
            return int(thread.mm.value_())
    return 0


def _threads(leader: Object) -> Iterator[Object]:
    head = leader.signal.thread_head.address_of_()
    return list_entries(leader.prog_, "struct task_struct", head, "thread_node")


def process_of_task(task: Object, mm: int | None = None) -> Process:
    """
    Describe the process of a task.

    :param task: ``struct task_struct *``
    :param mm: Its ``struct mm_struct *``, if that is not the task's own.
    :raises FaultError: if it cannot be read
    """
    need_object(task[0])
    return Process(
        pid=task.tgid.value_(),
        name=c_string(task.comm),
        mm=task.mm.value_() if mm is None else mm,
        task=task.value_(),
    )


@takes_program_or_default
def uninterruptible_threads(prog: Program, process: Process) -> Iterator[Object]:
    """
    Iterate over the threads of a process that sleep in the kernel and cannot be interrupted,
    as those that wait for I/O do.

    :return: Iterator of ``struct task_struct *``
    :raises FaultError: at a thread that cannot be read
    """
    # Renamed in Linux kernel commit 2f064a59a11f ("sched: Change task_struct::state") (in
    # v5.14).
    member = "__state" if prog.type("struct task_struct").has_member("__state") else "state"
    for thread in _threads(Object(prog, "struct task_struct *", process.task)):
        need_object(thread[0])
        if thread.member_(member).value_() & _TASK_UNINTERRUPTIBLE:
            yield thread


def open_files(leader: Object) -> Iterator[tuple[int, int]]:
    """
    Iterate over the files that a process has open, in the table of any of its threads.

    :param leader: ``struct task_struct *``: its first thread
    :return: Iterator of (file descriptor, address of the ``struct file``)
    :raises FaultError: if they cannot be read
    """
    for files in _file_tables(leader):
        need_object(files[0])
        fdt = files.fdt.read_()
        need_object(fdt[0])
        count = min(fdt.max_fds.value_(), _MAX_FILES)
        table = np.frombuffer(read_memory(leader.prog_, fdt.fd.value_(), 8 * count), "<u8")
        for fd in np.flatnonzero(table).tolist():
            yield fd, int(table[fd])


def _file_tables(leader: Object) -> Iterator[Object]:
    # One for all threads, unless they have taken leave of it: unshare(CLONE_FILES). A thread that
    # has exited has none.
    seen = {0}
    for thread in itertools.chain((leader,), _threads(leader)):
        files = thread.files.read_()
        if files.value_() not in seen:
            seen.add(files.value_())
            yield files


def stack_functions(task: Object) -> tuple[str, ...]:
    """
    Get the names of the kernel's functions on a task's stack, the innermost first.

    :param task: ``struct task_struct *``
    :return: Nothing if the stack cannot be unwound: the task runs, or debugging information
        is missing.
    """
    try:
        frames = list(task.prog_.stack_trace(task))[:_MAX_FRAMES]
    except (FaultError, LookupError, NotImplementedError, ValueError):
        return ()
    names = (_function(task.prog_, frame) for frame in frames)
    return tuple(itertools.takewhile(bool, names))


def _function(prog: Program, frame: StackFrame) -> str:
    # drgn names a frame by its address in user space, and in a module without debugging
    # information. What has no name at all is where the stack has ended.
    if frame.name == "???":
        return ""
    if not frame.name.startswith("0x"):
        return printable(frame.name)
    return (symbol_name(prog, frame.pc) or "") if frame.pc >> 63 else ""
