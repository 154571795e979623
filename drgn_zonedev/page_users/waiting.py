# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Waiting
-------

The tasks that wait until pages of a device are no longer used, with their stacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Object, Program

from drgn_zonedev.kernel.tasks import process_of_task, stack_functions
from drgn_zonedev.kernel.waiters import page_waiters, removal_waiters
from drgn_zonedev.model import Pgmap
from drgn_zonedev.page_users.pins import Awaited, Gap, Searched, Waiter
from drgn_zonedev.page_users.vma_search import FAILURES, gap_of

__all__ = ("Waiting", "waits_for_pages", "waits_for_removal")


@dataclass(frozen=True)
class Waiting:
    """Tasks that wait, and where the search for them failed."""

    waiters: tuple[Waiter, ...]
    gaps: tuple[Gap, ...]


def waits_for_removal(prog: Program, pgmap: Pgmap) -> Waiting:
    """Find the tasks that wait until a pgmap is no longer referenced."""
    obj = Object(prog, "struct dev_pagemap *", pgmap.address)
    tasks = ((task, None) for task in removal_waiters(obj))
    return _waiting(pgmap.address, Awaited.REMOVAL, tasks)


def waits_for_pages(prog: Program) -> Waiting:
    """Find the tasks that wait until a page is no longer used."""
    tasks = ((task, pfn) for pfn, task in page_waiters(prog))
    return _waiting(None, Awaited.PAGE, tasks)


def _waiting(
    address: int | None, awaited: Awaited, tasks: Iterator[tuple[Object, int | None]]
) -> Waiting:
    found: list[Waiter] = []
    try:
        for task, pfn in tasks:
            found.append(Waiter(process_of_task(task), awaited, pfn, stack_functions(task)))
    except FAILURES as e:
        return Waiting(tuple(found), (gap_of(Searched.WAITERS, address, e),))
    return Waiting(tuple(found), ())
