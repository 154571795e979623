# SPDX-License-Identifier: LGPL-2.1-or-later

"""
QEMU's Monitor
--------------

Stops a QEMU guest while its memory is read, and has it go on whatever happens.

QEMU serves one client per QMP socket. So there is one connection, which drgn uses
to find the guest's memory, and we use to stop the guest: nobody else talks while
drgn waits for an answer. A process of its own holds the connection, too, and has
the guest go on if this process ends without having done so.

drgn waits for answers in C, without a limit of time or size, and no signal interrupts
that. So whatever it waits for, silence ends it (``SO_RCVTIMEO``), and a process of its
own shuts the connection down if finding the guest takes too long, or if this process
got a signal and does not end. A limit of memory ends answers that are too long.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drgn

from drgn_zonedev.opening.failures import CannotOpenError, require_kernel, why_not_opened
from drgn_zonedev.util.signals import ending_at_once

__all__ = (
    "QmpError",
    "connect",
    "connect_guest",
    "interruptible",
    "open_guest",
    "paused",
)

_SECONDS = 10.0
# All answers that drgn needs to find the guest's memory.
_OPENING_SECONDS = 10.0
_OPENING_BYTES = 256 << 20
_GREETING_SECONDS = 5.0
# No answer to what is asked here is longer.
_MAX_MESSAGE = 1 << 16
_MAX_REASON = 200
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
    else:
        monitor = _connect_unix(address)
    monitor.settimeout(None)
    # Of every answer that drgn waits for.
    monitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(_SECONDS), 0))
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
        monitor.settimeout(_SECONDS)
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


def open_guest(
    address: str, monitor: socket.socket, vmcoreinfo: bytes | None = None
) -> drgn.Program:
    """
    Open a QEMU guest, without its debugging symbols.

    :param address: For messages.
    :param monitor: Of :func:`connect_guest()`.
    :param vmcoreinfo: Of :func:`.read_vmcoreinfo()`, for a guest without ``-device vmcoreinfo``.
    :raises CannotOpenError: if drgn cannot, or it is no Linux kernel
    """
    prog = drgn.Program(vmcoreinfo=vmcoreinfo)
    begun = time.monotonic()
    try:
        # Nothing is to be cleaned up yet, and drgn goes on whatever its plugins raise.
        with _watched(monitor, "limit", _OPENING_SECONDS), _less_memory(), ending_at_once():
            # drgn closes what it is given.
            prog.set_qemu_qmp(os.dup(monitor.fileno()))
    except Exception as e:
        raise CannotOpenError(_why_not_opened(address, e, time.monotonic() - begun)) from e
    require_kernel(prog, address)
    return prog


@contextlib.contextmanager
def _less_memory() -> Iterator[None]:
    # drgn keeps all of an answer, and of what precedes it.
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _OPENING_BYTES
    known = [other for other in (soft, hard) if other != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *known]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _why_not_opened(address: str, e: Exception, seconds: float) -> str:
    if isinstance(e, (PermissionError, FileNotFoundError)):
        return why_not_opened(address, e, "check the path")
    if isinstance(e, MemoryError):
        return f"cannot open {address}: it says too much: check that this is QEMU's QMP socket"
    if isinstance(e, BlockingIOError) or seconds >= _OPENING_SECONDS:
        return (
            f"cannot open {address}: QEMU did not answer within {seconds:.0f} s: check that it "
            "runs, and serves nobody else"
        )
    return why_not_opened(address, e, "give an ELF or kdump vmcore, or an export")


@contextlib.contextmanager
def paused(monitor: socket.socket) -> Iterator[bool]:
    """
    Stop the guest, unless it is stopped anyhow, and have it go on when the context
    is left, or this process ends in whatever way.

    :param monitor: A connection in command mode: drgn has read the greeting.
    :return: Context manager for whether the guest was running.
    :raises QmpError: if QEMU refuses
    """
    running = _execute(monitor, "query-status").get("running")
    if not isinstance(running, bool):
        raise QmpError("QEMU answered query-status with nonsense")
    if not running:
        yield False
        return
    with _watched(monitor, "resume") as release:
        try:
            _execute(monitor, "stop")
            yield True
        finally:
            _execute(monitor, "cont")
            release()


@contextlib.contextmanager
def interruptible(monitor: socket.socket) -> Iterator[None]:
    """Let signals end this process while drgn waits for an answer that does not come."""
    with _watched(monitor, "limit"):
        yield


@contextlib.contextmanager
def _watched(
    monitor: socket.socket, purpose: str, seconds: float = 0
) -> Iterator[Callable[[], None]]:
    # Not a fork: that would share what this process has locked. In a session of its
    # own, it does not get our Ctrl-C.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WATCHDOG), str(monitor.fileno()), purpose, str(seconds)],
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
            raise QmpError("the process that watches over the connection does not start")
        os.set_blocking(process.stdin.fileno(), False)
        with _signals_told(process.stdin.fileno()):
            yield release
    finally:
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


@contextlib.contextmanager
def _signals_told(pipe: int) -> Iterator[None]:
    # Python writes their numbers there as they come, even if it cannot handle them yet.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


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
        answer = _parse(_read_line(monitor, deadline))
        if answer is None or answer.get("id") != f"zonedev-{tag}":
            continue
        if "error" in answer:
            error = answer["error"]
            why = error.get("desc") if isinstance(error, dict) else error
            raise QmpError(f"QEMU refused {command}: {str(why)[:_MAX_REASON]}")
        if not isinstance(answer.get("return"), dict):
            raise QmpError(f"QEMU answered {command} with nonsense")
        return answer["return"]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except ValueError:
        # The rest of a line that drgn has read the beginning of.
        return None
    except RecursionError as e:
        raise QmpError("QEMU sent nonsense") from e
    if not isinstance(answer, dict):
        raise QmpError("QEMU sent nonsense")
    return answer


def _read_line(monitor: socket.socket, deadline: float) -> bytes:
    # Not a byte more than the line: what comes next may be for drgn.
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        # Events may come all the time.
        if left <= 0 or not select.select([monitor], [], [], left)[0]:
            raise QmpError(f"QEMU did not answer within {_SECONDS:.0f} s")
        waiting = monitor.recv(4096, socket.MSG_PEEK)
        if not waiting:
            raise QmpError("QEMU closed the connection")
        if len(line) > _MAX_MESSAGE:
            raise QmpError(f"QEMU sent a line of more than {_MAX_MESSAGE} bytes")
        line += monitor.recv(waiting.find(b"\n") + 1 or len(waiting))
    return line
