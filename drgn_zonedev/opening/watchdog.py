# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The process that watches over a QMP connection for another one, which may be waiting in
drgn's C code, where neither a signal nor a clock reaches it.

It is run by :mod:`drgn_zonedev.opening.guest`, by its path, and needs nothing but the
standard library. Its arguments are the file descriptor of the connection, what it is
for, and a number of seconds; its standard input is a pipe, on which the other process
says that all is well, or which signals it got, and which closes when that process ends,
even by SIGKILL.

``resume`` has a stopped guest go on when the other process ends, or gets a signal and
does not end. ``limit`` shuts the connection down then, and also after so many seconds:
whoever waits for an answer gets the end of the file.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

# An answer is not waited for longer: without it, nothing can be done anyhow.
_SECONDS = 5.0
# Whoever got a signal, and does not end by then, waits for an answer.
_GRACE = 0.6
_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
_DONE = b"d"


def main() -> None:
    """Wait for the other process to say that all is well, to be gone, or to be stuck."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"!")
    os.close(1)
    resumes, seconds = sys.argv[2] == "resume", float(sys.argv[3])
    is_gone = _wait(time.monotonic() + seconds if seconds else None)
    if is_gone is None:
        return
    monitor = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(OSError):
        if resumes:
            _resume(monitor, _SECONDS if is_gone else _GRACE / 3)
        if not is_gone:
            monitor.shutdown(socket.SHUT_RDWR)


def _wait(deadline: float | None) -> bool | None:
    """Tell whether the other process is gone, or stuck, or ``None`` if all is well."""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([0], [], [], left)[0]:
            return False
        heard = os.read(0, 256)
        if not heard:
            return True
        if _DONE in heard:
            return None
        if not _SIGNALS.isdisjoint(heard):
            grace = time.monotonic() + _GRACE
            deadline = grace if deadline is None else min(deadline, grace)


def _resume(monitor: socket.socket, seconds: float) -> None:
    # A command that was cut off leaves QEMU's parser waiting for its rest: a control
    # character makes it start afresh (docs/interop/qmp-spec of QEMU).
    monitor.sendall(b'\x01\n{"execute":"cont","id":"watchdog"}\n')
    deadline = time.monotonic() + seconds
    heard = b""
    while b'"watchdog"' not in heard:
        left = max(0.0, deadline - time.monotonic())
        if not left or not select.select([monitor], [], [], left)[0]:
            return
        more = monitor.recv(4096)
        if not more:
            return
        heard = heard[-64:] + more


if __name__ == "__main__":
    main()
