# SPDX-License-Identifier: LGPL-2.1-or-later

"""
QEMU's Monitor
--------------

Stops a QEMU guest while its memory is read, and has it go on whatever happens.

QEMU serves one client per QMP socket. So there is one connection, which drgn uses
to find the guest's memory, and we use to stop the guest: nobody else talks while
drgn waits for an answer. A process of its own holds the connection, too, and has
the guest go on if this process ends without having done so.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drgn

from drgn_zonedev.opening.failures import CannotOpenError
from drgn_zonedev.util.signals import held_back

__all__ = ("QmpError", "connect", "connect_guest", "open_guest", "paused")

_SECONDS = 10.0
_GREETING_SECONDS = 5.0
# No answer to what is asked here is longer.
_MAX_MESSAGE = 1 << 16
_IDS = itertools.count(1)
_WATCHDOG = Path(__file__).with_name("watchdog.py")


class QmpError(OSError):
    """QEMU does not answer, or not as it should."""


def connect(address: str) -> socket.socket:
    """
    Connect to a QMP socket, and wait for QEMU's greeting, which is left to be read.

    :param address: As ``drgn.Program.set_qemu_qmp()`` takes it: ``host:port``, or
        the path of a Unix domain socket.
    :raises OSError: if nobody listens there
    :raises QmpError: if QEMU does not greet: it is busy with another client
    """
    host, colon, port = address.rpartition(":")
    if colon and address[0] not in "/." and port.isdecimal() and 0 < int(port) < 1 << 16:
        monitor = socket.create_connection((host or "localhost", int(port)), _SECONDS)
        monitor.settimeout(None)
    else:
        monitor = _connect_unix(address)
    if not select.select([monitor], [], [], _GREETING_SECONDS)[0]:
        monitor.close()
        raise QmpError(
            f"QEMU does not answer within {_GREETING_SECONDS:.0f} s: it serves one client at a "
            "time, and there may be another one"
        )
    return monitor


def _connect_unix(path: str) -> socket.socket:
    monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        monitor.connect(path)
    except BaseException:
        monitor.close()
        raise
    return monitor


def connect_guest(address: str) -> socket.socket:
    """
    Like :func:`connect()`.

    :raises CannotOpenError: if that fails; says what to do about it
    """
    try:
        return connect(address)
    except OSError as e:
        hint = ": check the address"
        if isinstance(e, (ConnectionError, FileNotFoundError)):
            # As drgn tells them apart.
            kind = "tcp" if ":" in address and "/" not in address else "unix"
            hint = f": is QEMU running with -qmp {kind}:{address},server=on,wait=off?"
        elif isinstance(e, PermissionError):
            hint = ": try as root"
        raise CannotOpenError(f"cannot open {address}: {e.strerror or e}{hint}") from e


def open_guest(address: str, monitor: socket.socket) -> drgn.Program:
    """
    Open a QEMU guest, without its debugging symbols.

    :param address: For messages.
    :param monitor: Of :func:`connect_guest()`.
    :raises CannotOpenError: if drgn cannot, or it is no Linux kernel
    """
    prog = drgn.Program()
    try:
        # drgn loads its plugins here, and goes on whatever they raise.
        with held_back():
            # drgn closes what it is given.
            prog.set_qemu_qmp(os.dup(monitor.fileno()))
    except Exception as e:
        raise CannotOpenError(_why_not_opened(address, e)) from e
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise CannotOpenError(
            f"{address} is not a Linux kernel: give a vmcore, not a process's core"
        )
    return prog


def _why_not_opened(address: str, e: Exception) -> str:
    if isinstance(e, PermissionError):
        return f"cannot open {address}: {e.strerror}: try as root"
    reason = e.strerror if isinstance(e, OSError) and e.strerror else e
    advice = "give an ELF or kdump vmcore, or an export"
    if isinstance(e, FileNotFoundError):
        advice = "check the path"
    return f"cannot open {address}: {reason}: {advice}"


@contextlib.contextmanager
def paused(monitor: socket.socket) -> Iterator[bool]:
    """
    Stop the guest, unless it is stopped anyhow, and have it go on when the context
    is left, or this process ends in whatever way.

    :param monitor: A connection in command mode: drgn has read the greeting.
    :return: Context manager for whether the guest was running.
    :raises QmpError: if QEMU refuses
    """
    if not _execute(monitor, "query-status")["running"]:
        yield False
        return
    with _watchdog(monitor) as release:
        try:
            _execute(monitor, "stop")
            yield True
        finally:
            _execute(monitor, "cont")
            release()


@contextlib.contextmanager
def _watchdog(monitor: socket.socket) -> Iterator[Any]:
    # Not a fork: that would share what this process has locked. In a session of its
    # own, it does not get our Ctrl-C.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WATCHDOG), str(monitor.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[monitor.fileno()],
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def release() -> None:
        assert process.stdin is not None
        process.stdin.write(b"done")
        process.stdin.flush()

    try:
        if not process.stdout.read(1):
            raise QmpError("the process that would have the guest go on does not start")
        yield release
    finally:
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


def _execute(monitor: socket.socket, command: str) -> Any:
    try:
        return _converse(monitor, command)
    except ConnectionError as e:
        raise QmpError("QEMU closed the connection") from e


def _converse(monitor: socket.socket, command: str) -> Any:
    tag = next(_IDS)
    monitor.sendall(json.dumps({"execute": command, "id": f"zonedev-{tag}"}).encode() + b"\n")
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            answer = json.loads(_read_line(monitor, deadline))
        except ValueError:
            # The rest of a line that drgn has read the beginning of.
            continue
        if answer.get("id") != f"zonedev-{tag}":
            continue
        if "error" in answer:
            raise QmpError(f"QEMU refused {command}: {answer['error'].get('desc')}")
        return answer["return"]


def _read_line(monitor: socket.socket, deadline: float) -> bytes:
    # Not a byte more than the line: what comes next may be for drgn.
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([monitor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise QmpError(f"QEMU did not answer within {_SECONDS:.0f} s")
        waiting = monitor.recv(4096, socket.MSG_PEEK)
        if not waiting or len(line) > _MAX_MESSAGE:
            raise QmpError("QEMU closed the connection")
        line += monitor.recv(waiting.find(b"\n") + 1 or len(waiting))
    return line
