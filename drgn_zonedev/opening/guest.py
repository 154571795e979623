# SPDX-License-Identifier: LGPL-2.1-or-later

"""
QEMU's Monitor
--------------

Stops a QEMU guest while its memory is read, and resumes it even if this process is killed.

QEMU serves one client per QMP socket, so drgn and this module share a connection: drgn
finds the guest's memory through it, and this module stops the guest. They never wait for
an answer at the same time. A second process, the watchdog, also holds the connection, and
resumes the guest if this process ends before it does so itself.

drgn waits for answers in C, without a limit of time or size, and signals do not interrupt
it. Three things do: ``SO_RCVTIMEO`` ends each wait without data; the watchdog shuts the
connection down if finding the guest takes too long, or if this process gets a signal and
does not end; and a limit of memory ends answers that are too long.
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

from drgn_zonedev.opening.failures import (
    CannotOpenError,
    require_kernel,
    require_little_endian,
    require_page_tables,
    why_not_opened,
)
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
# For all answers together that drgn needs to find the guest's memory.
_OPENING_SECONDS = 10.0
_OPENING_BYTES = 256 << 20
_GREETING_SECONDS = 5.0
# No answer to the commands of this module is longer.
_MAX_MESSAGE = 1 << 16
_MAX_REASON = 200
_IDS = itertools.count(1)
_WATCHDOG = Path(__file__).with_name("watchdog.py")


class QmpError(OSError):
    """QEMU does not answer, or not as it should."""


def connect(address: str) -> socket.socket:
    """
    Connect to a QMP socket, and wait for QEMU's greeting, without reading it.

    :param address: As ``drgn.Program.set_qemu_qmp()`` takes it: ``host:port``, or
        the path of a Unix domain socket.
    :raises OSError: if the connection fails
    :raises QmpError: if QEMU does not send its greeting: it is busy with another client
    """
    host, _, port = address.rpartition(":")
    if _is_host_and_port(address):
        monitor = socket.create_connection((host or "localhost", int(port)), _SECONDS)
    else:
        monitor = _connect_unix(address)
    monitor.settimeout(None)
    # Ends drgn's waiting for an answer.
    monitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(_SECONDS), 0))
    if not select.select([monitor], [], [], _GREETING_SECONDS)[0]:
        monitor.close()
        raise QmpError(
            f"QEMU does not answer within {_GREETING_SECONDS:.0f} s: it serves one client at a "
            "time, and there may be another one"
        )
    return monitor


def _is_host_and_port(address: str) -> bool:
    _, colon, port = address.rpartition(":")
    return bool(colon) and address[0] not in "/." and port.isdecimal() and 0 < int(port) < 1 << 16


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

    :raises CannotOpenError: if that fails; the message says what to do about it
    """
    try:
        return connect(address)
    except OSError as e:
        hint = ": check the address"
        # drgn distinguishes them in the same way.
        kind = "tcp" if ":" in address and "/" not in address else "unix"
        if kind == "tcp" and not _is_host_and_port(address):
            hint = ": give HOST:PORT, with a PORT from 1 to 65535, or the path of a socket"
        elif isinstance(e, (ConnectionError, FileNotFoundError)):
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
    :param monitor: From :func:`connect_guest()`.
    :param vmcoreinfo: From :func:`.read_vmcoreinfo()`, for a guest without
        ``-device vmcoreinfo``.
    :raises CannotOpenError: if drgn cannot open it, or it is not a Linux kernel
    """
    prog = drgn.Program(vmcoreinfo=vmcoreinfo)
    begun = time.monotonic()
    try:
        # End at once on a signal: there is nothing to clean up yet, and drgn would ignore an
        # exception that a handler raises in its plugins.
        with _watched(monitor, "limit", _OPENING_SECONDS), _less_memory(), ending_at_once():
            # drgn closes the descriptor that it gets.
            prog.set_qemu_qmp(os.dup(monitor.fileno()))
            if vmcoreinfo is not None:
                # drgn 0.3.0 finds page tables only by what QEMU has.
                prog.set_linux_kernel_custom(vmcoreinfo, is_live=True)
    except Exception as e:
        raise CannotOpenError(_why_not_opened(address, e, time.monotonic() - begun)) from e
    require_kernel(prog, address)
    require_little_endian(prog, address)
    require_page_tables(prog, address)
    return prog


@contextlib.contextmanager
def _less_memory() -> Iterator[None]:
    # drgn keeps the whole answer in memory, and everything that QEMU sent before it.
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
        return (
            f"cannot open {address}: the answer is too long: check that this is QEMU's QMP socket"
        )
    if isinstance(e, BlockingIOError) or seconds >= _OPENING_SECONDS:
        return (
            f"cannot open {address}: QEMU did not answer within {seconds:.0f} s: check that it "
            "runs, and has no other client"
        )
    return why_not_opened(address, e, "give an ELF or kdump vmcore, or an export")


@contextlib.contextmanager
def paused(monitor: socket.socket) -> Iterator[bool]:
    """
    Stop the guest, unless it is stopped already, and resume it when the context exits or
    this process ends, even by SIGKILL.

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
    # Not a fork: that would inherit the locks of this process. In a session of its own, it
    # does not get our Ctrl-C.
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
            raise QmpError("the watchdog process of the connection does not start")
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
    # Python writes the number of each signal to the pipe at once, even while C code runs.
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
        # drgn has read the beginning of this line.
        return None
    except RecursionError as e:
        raise QmpError("QEMU sent nonsense") from e
    if not isinstance(answer, dict):
        raise QmpError("QEMU sent nonsense")
    return answer


def _read_line(monitor: socket.socket, deadline: float) -> bytes:
    # Do not read beyond the line: the next one may be for drgn.
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        # QEMU may send events without end, so check the deadline for each part.
        if left <= 0 or not select.select([monitor], [], [], left)[0]:
            raise QmpError(f"QEMU did not answer within {_SECONDS:.0f} s")
        waiting = monitor.recv(4096, socket.MSG_PEEK)
        if not waiting:
            raise QmpError("QEMU closed the connection")
        if len(line) > _MAX_MESSAGE:
            raise QmpError(f"QEMU sent a line of more than {_MAX_MESSAGE} bytes")
        line += monitor.recv(waiting.find(b"\n") + 1 or len(waiting))
    return line
