# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from drgn import Object
from support.usedpages import machine

from drgn_zonedev.kernel.tasks import (
    for_each_process,
    open_files,
    process_of_task,
    stack_functions,
    uninterruptible_threads,
)

_KTHREAD = 0x00200000


def test_processes_are_those_of_user_space() -> None:
    made = machine("6.1")
    made.users.rename(made.second.task, "kworker", 2, _KTHREAD)
    (found,) = for_each_process(made.kernel.program())
    assert (found.pid, found.name, found.mm) == (100, "first", made.first.mm)
    assert found.task == made.first.task


def test_a_process_goes_on_after_its_first_thread() -> None:
    made = machine("7.2")
    kernel = made.kernel
    made.users.thread(made.first, mm=made.first.mm)
    kernel.poke_member("task_struct", made.first.task, "mm", 0)
    first, _ = for_each_process(kernel.program())
    assert (first.pid, first.mm) == (100, made.first.mm)


def test_threads_that_cannot_be_interrupted_are_those_that_wait_for_io() -> None:
    made = machine("7.2")
    prog = made.kernel.program()
    first, second = for_each_process(prog)
    made.kernel.poke_member("task_struct", made.first.task, "__state", 2)
    made.kernel.poke_member("task_struct", made.second.task, "__state", 1)
    assert [t.value_() for t in uninterruptible_threads(prog, first)] == [made.first.task]
    assert list(uninterruptible_threads(prog, second)) == []


def test_open_files_are_those_in_the_table() -> None:
    made = machine("7.2")
    pipe = made.users.open(made.first, "pipefifo_fops", 0)
    ring = made.users.open(made.first, "io_uring_fops", 0)
    prog = made.kernel.program()
    task = Object(prog, "struct task_struct *", made.first.task)
    assert list(open_files(task)) == [(3, pipe), (4, ring)]
    assert list(open_files(Object(prog, "struct task_struct *", made.second.task))) == []


def test_files_are_those_of_all_threads() -> None:
    made = machine("7.2")
    users = made.users
    first = users.open(made.first, "pipefifo_fops", 0)
    table = made.kernel.member("task_struct", made.first.task, "files")
    users.thread(made.first, files=table)
    task = Object(made.kernel.program(), "struct task_struct *", made.first.task)
    assert list(open_files(task)) == [(3, first)]
    # A new table, of the first thread only.
    second = users.open(made.first, "io_uring_fops", 0)
    assert list(open_files(task)) == [(3, first), (4, second), (3, first)]


def test_files_outlive_the_first_thread() -> None:
    made = machine("7.2")
    pipe = made.users.open(made.first, "pipefifo_fops", 0)
    made.users.take_files(made.first, made.users.thread(made.first))
    task = Object(made.kernel.program(), "struct task_struct *", made.first.task)
    assert list(open_files(task)) == [(3, pipe)]


def test_a_stack_that_cannot_be_unwound_is_empty() -> None:
    made = machine("7.2")
    task = Object(made.kernel.program(), "struct task_struct *", made.first.task)
    assert stack_functions(task) == ()
    assert process_of_task(task).name == "first"
