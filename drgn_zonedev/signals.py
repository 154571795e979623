# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Signals
-------

What ends ``zonedev`` lets it clean up first: files that it unpacked, processes that
it started, a guest that it stopped. This is for a process that is for nothing else;
in drgn's REPL, signals are drgn's business.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ("cleaning_up", "held_back", "nothing_to_clean_up")

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def nothing_to_clean_up() -> None:
    """Let Ctrl-C end this process without a word, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """
    Turn SIGTERM and SIGHUP into ``SystemExit(128 + n)``, as shells count, and SIGINT
    into :exc:`KeyboardInterrupt`. Those that are ignored, as by nohup, remain so.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    try:
        yield
    finally:
        nothing_to_clean_up()


def _end(number: int, frame: FrameType | None) -> None:
    # Cleaning up is not interrupted by another one.
    for ending in _ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have signals wait for the end of what would print their exceptions, and go on."""
    if threading.current_thread() is not threading.main_thread():
        # They are for another one.
        yield
        return
    came: list[int] = []
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, *_ENDING)}
    ours = {n: handler for n, handler in handlers.items() if callable(handler)}
    for each in ours:
        signal.signal(each, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for each, handler in ours.items():
            signal.signal(each, handler)
        if came:
            signal.raise_signal(came[0])
