# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A process that scans struct pages for another one: see
:mod:`~drgn_zonedev.verification.pool.scheduler`.

It opens the same core dump, but does not need debugging symbols: what it must know about ``struct
page`` comes with the task, so it can start before the symbols are loaded.
"""

from __future__ import annotations

import importlib
from multiprocessing.connection import Connection

from drgn_zonedev.opening.core import Dump, reopen

__all__ = ("main",)


# Most tasks need these; there is time to import them while the other process loads symbols.
_IMPORTED_EARLY = "drgn_zonedev.verification.scan"


def main(fd: int) -> None:
    """
    Do the work that comes over a socket, until it is closed.

    The first message is a :class:`~drgn_zonedev.opening.core.Dump`, and
    the answer is why it cannot be opened, or nothing. The second one is ``begin`` of a
    :class:`~drgn_zonedev.verification.task.ScanTask`. Each one after that is a number and a piece
    of work, and the answer is the number and the result.
    """
    with Connection(fd) as connection:
        try:
            dump: Dump = connection.recv()
            try:
                prog = reopen(dump)
            except Exception as e:
                # Errors of libelf and libkdumpfile do not have types of their own.
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
