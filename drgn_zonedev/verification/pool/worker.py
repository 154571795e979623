# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A process that goes through struct pages for another one: see
:mod:`~drgn_zonedev.verification.pool.scheduler`.

It opens the same core dump, and needs no debugging symbols: what it must know of
``struct page`` comes with the work, so it can start before they are loaded.
"""

from __future__ import annotations

from multiprocessing.connection import Connection

from drgn_zonedev.opening.core import Dump, reopen
from drgn_zonedev.verification.fastpath import cached_fast_path
from drgn_zonedev.verification.scan import scan

__all__ = ("main",)


def main(fd: int) -> None:
    """
    Do what comes over a socket until it is closed.

    The first message is a :class:`~drgn_zonedev.opening.core.Dump`, and
    the answer is why it cannot be opened, or nothing. Each one behind that is a number,
    the layout of ``struct page`` and a piece of work, and the answer is the number and
    what came of it.
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
            connection.send("")
            fast_path = cached_fast_path()
            while True:
                number, layout, work = connection.recv()
                done = scan(prog, layout, work, fast_path=fast_path(layout, work.promise))
                connection.send((number, done))
        except (EOFError, ConnectionError):
            # Whoever asked is gone.
            return
