# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pager
-----

Text on a terminal goes through the user's pager, as git's does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ("page_text", "pager_command")

_DEFAULT = "less -FRX"
# Exit statuses of a shell that cannot run, or cannot find, a command.
_NOT_RUN = (126, 127)


def pager_command() -> str | None:
    """
    Get the shell command of the pager: ``$PAGER``, or less. There is none if standard output
    is not a terminal, the terminal cannot move its cursor, or ``$PAGER`` is empty or ``cat``.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    import shutil

    command = os.environ.get("PAGER")
    if command is None:
        return _DEFAULT if shutil.which(_DEFAULT.split()[0]) else None
    return None if command.strip() in ("", "cat") else command


def page_text(text: str, command: str) -> bool:
    """
    Show text in a pager, and wait for its end.

    :return: ``False`` if the pager could not be run; nothing was shown then
    """
    import subprocess

    sys.stdout.flush()
    # git sets this, too: colours, and no waiting for a key if everything fits.
    environment = {"LESS": "FRX", **os.environ}
    pager = subprocess.Popen(
        command, shell=True, stdin=subprocess.PIPE, stdout=sys.stdout, env=environment
    )
    with _interrupts_ignored():
        # The user has left the pager.
        with contextlib.suppress(BrokenPipeError):
            pager.communicate(f"{text}\n".encode(errors="backslashreplace"))
        return pager.wait() not in _NOT_RUN


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    # Ctrl-C is for the pager.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
