# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A process that goes through struct pages for another one: see
:mod:`~drgn_zonedev.verification.pool.scheduler`.

It opens the same core dump, and needs no debugging symbols: what it must know of
``struct page`` comes with the task, so it can start before they are loaded.
"""

from __future__ import annotations

import importlib
from multiprocessing.connection import Connection

from drgn_zonedev.opening.core import Dump, reopen

__all__ = ("main",)


# What most tasks need: there is time for it, until the symbols are loaded elsewhere.
_IMPORTED_EARLY = "drgn_zonedev.verification.scan"


def main(fd: int) -> None:
    """
    Do what comes over a socket until it is closed.

    The first message is a :class:`~drgn_zonedev.opening.core.Dump`, and
    the answer is why it cannot be opened, or nothing. The second one is what begins a
    :class:`~drgn_zonedev.verification.task.ScanTask`. Each one behind that is a number and a piece
    of work, and the answer is the number and what came of it.
    """
    with Connection(fd) as connection:
        try:
            dump: Dump = connection.recv()
            try:
                prog = reopen(dump)
            except Exception as e:
                # What libelf and libkdumpfile do not like has no type of its own.
                connection.send(str(e) or type(e).__name__)
                return
            importlib.import_module(_IMPORTED_EARLY)
            connection.send("")
            do = connection.recv()()
            while True:
                number, work = connection.recv()
                connection.send((number, do(prog, work, _ignore)))
        except (EOFError, ConnectionError):
            # The process that asked is gone.
            return


def _ignore(pages: int) -> None:
    pass
