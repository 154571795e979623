# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Watches over a QMP connection for its parent process, which may wait in drgn's C code, where
neither signals nor timers interrupt it.

:mod:`drgn_zonedev.opening.guest` runs this file by its path, so it imports only the standard
library. The arguments are the file descriptor of the connection, a purpose, and a number of
seconds. Standard input is a pipe: the parent writes to it when it is done, Python writes the
number of each signal that the parent gets, and it closes when the parent ends, even by
SIGKILL.

With the purpose ``resume``, the watchdog resumes a stopped guest if the parent ends, or gets
a signal and does not end. With ``limit``, it shuts the connection down then, and also after
that many seconds: a wait for an answer ends with end-of-file.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

# How long to wait for QEMU's answer. There is nothing else to try without one.
_SECONDS = 5.0
# If the parent does not end this long after a signal, it waits in drgn's C code.
_GRACE = 0.6
_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
_DONE = b"d"


def main() -> None:
    """Wait until the parent is done, gone or stuck, and act on it."""
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
    """Return whether the parent is gone (true) or stuck (false), or ``None`` if it is done."""
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
