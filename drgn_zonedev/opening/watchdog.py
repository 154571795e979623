# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The process that has a stopped guest go on if who stopped it is gone.

It is run by :func:`drgn_zonedev.opening.guest.paused`, by its path, and needs nothing but
the standard library. Its argument is the file descriptor of a QMP connection; its
standard input is a pipe, which closes when the other process ends, even by SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

# An answer is not waited for longer: without it, nothing can be done anyhow.
_SECONDS = 5


def main() -> None:
    """Wait for the other process to say that all is well, or to be gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"!")
    os.close(1)
    if os.read(0, 4):
        return
    monitor = socket.socket(fileno=int(sys.argv[1]))
    # A command that was cut off leaves QEMU's parser waiting for its rest: a control
    # character makes it start afresh (docs/interop/qmp-spec of QEMU).
    monitor.sendall(b'\x01\n{"execute":"cont","id":"watchdog"}\n')
    heard = b""
    while b'"watchdog"' not in heard and select.select([monitor], [], [], _SECONDS)[0]:
        more = monitor.recv(4096)
        if not more:
            return
        heard = heard[-64:] + more


if __name__ == "__main__":
    main()
