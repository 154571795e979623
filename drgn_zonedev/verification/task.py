# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Tasks
-----

How to go through struct pages, as plain data: any search can run here or in other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from drgn import Program

__all__ = ("Begin", "Do", "ScanAll", "ScanTask", "scan_here")


class _Work(Protocol):
    @property
    def pages(self) -> int:
        """Number of struct pages."""


class _Result(Protocol):
    def extend(self, other: Any) -> None:
        """Append the result of the work after this."""


WorkT = TypeVar("WorkT", bound=_Work)
ResultT = TypeVar("ResultT", bound=_Result)

Do = Callable[[Program, WorkT, Callable[[int], None]], ResultT]
"""
Scans struct pages with a program, which needs no debugging symbols. The third argument is
called with the number of struct pages that were scanned.
"""

Begin = Callable[[], Do[WorkT, ResultT]]


@dataclass(frozen=True)
class ScanTask(Generic[WorkT, ResultT]):
    """
    How to do works. ``cut`` cuts a work into pieces of about this many struct pages. ``begin`` is
    called once in each process, and returns the function that does pieces there; it is a module's
    function, or a :func:`functools.partial` of one. ``nothing`` returns the result of no piece.
    """

    cut: Callable[[WorkT, int], Iterable[WorkT]]
    begin: Begin[WorkT, ResultT]
    nothing: Callable[[], ResultT]


class ScanAll(Protocol):
    """
    Does several works, and yields the result of each, in order. The last argument is called with
    the number of struct pages that were scanned.
    """

    def __call__(
        self,
        prog: Program,
        task: ScanTask[WorkT, ResultT],
        works: Sequence[WorkT],
        progress: Callable[[int], None],
        /,
    ) -> Iterator[ResultT]:
        """Do a task."""


def scan_here(
    prog: Program,
    task: ScanTask[WorkT, ResultT],
    works: Sequence[WorkT],
    progress: Callable[[int], None],
) -> Iterator[ResultT]:
    """Do a task with this program, in this process."""
    do = task.begin()
    for work in works:
        yield do(prog, work, progress)
