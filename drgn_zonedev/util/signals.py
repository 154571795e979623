# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Signals
-------

A signal that ends ``zonedev`` lets it clean up first: files that it unpacked, processes
that it started, a guest that it stopped. Use it in a process of its own; in drgn's REPL,
signals belong to drgn.

:func:`asyncio.Runner` and the handlers of :mod:`signal` raise an exception once. Python
loses one in a thousand of these (see ``_repeat()``), so here the signal comes again every
0.1 s until the program cleans up.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ("cleaning_up", "ending_at_once", "held_back", "nothing_to_clean_up")

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_SECONDS = 0.1


def nothing_to_clean_up() -> None:
    """Let Ctrl-C end this process without a word, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """
    Turn SIGTERM and SIGHUP into ``SystemExit(128 + n)``, as shells count, and SIGINT
    into :exc:`KeyboardInterrupt`. Those that are ignored, as by nohup, remain so.
    """
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, _interrupt)
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    hook, sys.unraisablehook = sys.unraisablehook, _ignore_what_comes_again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        nothing_to_clean_up()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _repeat(number)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    # Cleaning up is not interrupted by another one.
    if not _is_ending():
        _repeat(number)
        raise SystemExit(128 + number)


def _repeat(number: int) -> None:
    # Python prints and drops what a handler raises in the callback of a weak reference, as
    # imports have; its C code takes it for another exception when it makes a buffered
    # file; and a signal just before a system call does not interrupt it.
    def again(alarm: int, frame: FrameType | None) -> None:
        if not _is_ending():
            signal.raise_signal(number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)


def _is_ending() -> bool:
    # Code that cleans up handles the exception, or another one that was raised since.
    e = sys.exc_info()[1]
    while e is not None and not isinstance(e, (KeyboardInterrupt, SystemExit)):
        e = e.__context__
    return e is not None


def _ignore_what_comes_again(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, (KeyboardInterrupt, SystemExit)):
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """
    Let signals end this process wherever it is, in C code, too: nothing is cleaned up.
    Those that are ignored remain so.
    """
    with _handled_by(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have signals wait for the end of what would print their exceptions, and go on."""
    came: list[int] = []
    try:
        with _handled_by(lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def _handled_by(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals.
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, *_ENDING)}
    ours = {n: old for n, old in before.items() if callable(old)}
    for each in ours:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, old in ours.items():
            signal.signal(each, old)
