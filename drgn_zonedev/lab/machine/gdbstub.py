# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Freeze a guest on entry to a function, through QEMU's gdb server.

This needs only a few packets of the gdb remote protocol. A gdb process would have to be kept
attached, watched and ended, which is less reliable.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from drgn_zonedev.lab.host.boards import Registers
from drgn_zonedev.lab.host.errors import LabError

__all__ = ("encode_packet", "fail_call", "stopped_at", "write_memory")

_POLL_SECONDS = 0.1
_ENOMEM = 12


def encode_packet(payload: str) -> bytes:
    """Frame a packet of the gdb remote protocol."""
    return f"${payload}#{sum(payload.encode()) & 0xFF:02x}".encode()


class _Connection:
    """
    A gdb remote protocol session; it must stay open for the guest to stay frozen.

    `check` is called several times a second; it raises to give up.
    """

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        self._check = check
        self._received = b""
        self.socket = socket.socket(socket.AF_UNIX)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.socket)
            self.socket.settimeout(_POLL_SECONDS)
            self._connect(str(path))
            stack.pop_all()

    def _connect(self, path: str) -> None:
        while True:
            try:
                self.socket.connect(path)
                return
            except OSError:  # QEMU has only just been started.
                self._pause()

    def _pause(self) -> None:
        self._check()
        time.sleep(_POLL_SECONDS)

    def _receive(self) -> str:
        """Wait for a packet and acknowledge it."""
        while True:
            if found := re.search(rb"\$([^#]*)#..", self._received, re.DOTALL):
                self._received = self._received[found.end() :]
                self.socket.sendall(b"+")
                return found[1].decode("latin-1")
            try:
                data = self.socket.recv(4096)
            except OSError:
                data = b""
            if not data:  # Nothing yet, or the end of QEMU: check() knows.
                self._pause()
            self._received += data

    def ask(self, payload: str) -> str:
        try:
            self.socket.sendall(encode_packet(payload))
            return self._receive()
        except OSError as e:
            self._check()
            raise LabError(f"QEMU's gdb server has gone: {e}") from e

    def answer(self, payload: str) -> str:
        """Like `ask`, for a running guest: in between, QEMU reports that it has stopped."""
        reply = self.ask(payload)
        while reply.startswith("T"):
            reply = self._receive()
        return reply


@contextlib.contextmanager
def stopped_at(
    path: Path,
    address: int,
    check: Callable[[], None],
    *,
    argument: int | None = None,
    write_to: int | None = None,
    where: Registers,
) -> Iterator[None]:
    """
    Let the guest run up to `address` and keep it frozen there inside the context.

    :param path: QEMU's gdb socket
    :param check: called several times a second; raises when it is time to give up
    :param where: the registers of its machine
    :param argument: of a function, the second one; calls with others are passed over
    :param write_to: go on from there, until this virtual address is next written
    """
    connection = _Connection(path, check)
    with connection.socket:
        if argument is None:
            _run_to(connection, address, where)
        else:
            _run_to_call(connection, address, argument, where)
        if write_to is not None:
            _run_to_write(connection, address, write_to)
        yield


def fail_call(
    path: Path,
    address: int,
    argument: int,
    check: Callable[[], None],
    *,
    where: Registers,
) -> None:
    """
    Have the first call of a function with that second argument return -ENOMEM.

    Calls cannot be counted instead: of QEMU's single steps, one in several hundred ends where it
    began, and the same call is then met twice.

    :param path: QEMU's gdb socket
    :param address: of the function, which must not have been inlined
    :param check: called several times a second; raises when it is time to give up
    :param where: the registers of its machine
    """
    connection = _Connection(path, check)
    with connection.socket:
        registers = _run_to_call(connection, address, argument, where)
        connection.ask(f"z1,{address:x},1")
        changed = _replaced(registers, where.result, _encode(-_ENOMEM % (1 << 64)))
        if where.link is None:
            stack = _decode(registers[where.stack])
            caller = connection.ask(f"m{stack:x},8")
            changed = _replaced(changed, where.stack, _encode(stack + 8))
        else:
            caller = registers[where.link]
        if connection.ask(f"G{_replaced(changed, where.program_counter, caller)}") != "OK":
            raise LabError("QEMU's gdb server refuses to change registers")
        connection.ask("D")


def write_memory(path: Path, address: int, data: bytes, check: Callable[[], None]) -> None:
    """
    Overwrite memory of a guest, which is stopped meanwhile.

    :param path: QEMU's gdb socket
    :param address: virtual
    :param check: called several times a second; raises when it is time to give up
    """
    connection = _Connection(path, check)
    with connection.socket:
        if connection.answer(f"M{address:x},{len(data):x}:{data.hex()}") != "OK":
            raise LabError(f"QEMU's gdb server refuses to write to {address:#x}")
        connection.answer("D")


def _decode(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


def _encode(value: int) -> str:
    return value.to_bytes(8, "little").hex()


def _replaced(text: str, where: slice, new: str) -> str:
    return text[: where.start] + new + text[where.stop :]


def _run_to(connection: _Connection, address: int, where: Registers) -> str:
    """Return the registers on entry."""
    # A hardware breakpoint: the guest has not mapped its code there yet.
    if connection.ask(f"Z1,{address:x},1") != "OK":
        raise LabError("QEMU's gdb server refuses the breakpoint")
    stop = connection.ask("c")
    registers = connection.ask("g")
    counter = _decode(registers[where.program_counter])
    if counter != address:
        raise LabError(f"the guest stopped ({stop[:3]}) at {counter:#x} instead of {address:#x}")
    return registers


def _run_to_call(connection: _Connection, address: int, argument: int, where: Registers) -> str:
    """Return the registers on entry to a function that is called with that second argument."""
    while True:
        registers = _run_to(connection, address, where)
        if _decode(registers[where.second_argument]) == argument:
            return registers
        # Without this, it would never get past the breakpoint.
        connection.ask(f"z1,{address:x},1")
        connection.ask("s")


def _run_to_write(connection: _Connection, address: int, write_to: int) -> None:
    connection.ask(f"z1,{address:x},1")
    if connection.ask(f"Z2,{write_to:x},8") != "OK":
        raise LabError("QEMU's gdb server refuses the watchpoint")
    stop = connection.ask("c")
    found = re.search(r"watch:([0-9a-f]+);", stop)
    if found is None or int(found[1], 16) != write_to:
        raise LabError(f"the guest stopped ({stop}) instead of writing to {write_to:#x}")
