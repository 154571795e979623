# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.host.boards import BOARDS, Registers
from drgn_zonedev.lab.kernels.addresses import symbol_address
from drgn_zonedev.lab.machine.gdbstub import encode_packet, fail_call, stopped_at, write_memory


def registers_of(architecture: str) -> Registers:
    found = BOARDS[architecture].registers
    assert found is not None
    return found


AMD64, ARM64 = registers_of("amd64"), registers_of("arm64")
ADDRESS = 0xFFFFFFFF81234560
CALLER = 0xFFFFFFFF81ABCDEF
STACK = 0xFFFFC90000012340
SYSTEM_MAP = f"""\
{ADDRESS - 16:016x} T __pfx_memmap_init_zone_device
{ADDRESS:016x} T memmap_init_zone_device
{ADDRESS + 64:016x} d memmap_init_zone_device_data
"""


def test_a_symbol_is_found_by_its_whole_name() -> None:
    assert symbol_address(SYSTEM_MAP, "memmap_init_zone_device") == ADDRESS


@pytest.mark.parametrize("symbol", ["memmap_init", "memmap_init_zone_device_data"])
def test_a_symbol_that_is_no_function_is_refused(symbol: str) -> None:
    with pytest.raises(LabError, match=f"no function {symbol}:"):
        symbol_address(SYSTEM_MAP, symbol)


def test_a_packet_ends_in_its_checksum() -> None:
    assert encode_packet("OK") == b"$OK#9a"


def registers(rip: int, rsi: int) -> str:
    values = {4: rsi, 7: STACK, 16: rip}
    return b"".join(values.get(i, 0).to_bytes(8, "little") for i in range(21)).hex()


def arm64_registers(pc: int, x1: int) -> str:
    values = {1: x1, 30: CALLER, 31: STACK, 32: pc}
    return b"".join(values.get(i, 0).to_bytes(8, "little") for i in range(34)).hex()


@contextmanager
def gdb_server(
    path: Path,
    rip: int,
    watched: int = 0,
    calls: Sequence[int] = (0,),
    written: str = "",
    registers: Callable[[int, int], str] = registers,
) -> Iterator[list[str]]:
    """A gdb server whose guest stops at that address whenever it is continued.

    The last time, it stops because that other address was written.

    :param calls: the second argument at each stop
    :param written: what it says of writes to memory; before that, it says that it has stopped
    """
    packets: list[str] = []
    entries = iter(calls)
    stops = iter([*["T05thread:01;"] * len(calls), f"T05thread:02;watch:{watched:x};"])
    answers = {"Z": "OK", "z": "OK", "s": "T05", "G": "OK", "D": "OK", "M": written}
    answers["m"] = CALLER.to_bytes(8, "little").hex()

    def answer(kind: str) -> str:
        if kind == "c":
            return next(stops)
        return registers(rip, next(entries)) if kind == "g" else answers[kind]

    def serve() -> None:
        client, _ = server.accept()
        with client:
            if written:
                client.sendall(encode_packet("T02thread:01;"))
            while True:
                data = client.recv(4096)
                if not data:
                    return
                for packet in re.findall(rb"\$([^#]*)#..", data):
                    packets.append(packet.decode())
                    client.sendall(b"+" + encode_packet(answer(packets[-1][0])))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield packets
        thread.join(10)


def wait_a_while() -> Callable[[], None]:
    deadline = time.monotonic() + 10

    def check() -> None:
        assert time.monotonic() < deadline

    return check


def test_memory_is_overwritten_and_the_guest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with gdb_server(path, ADDRESS, written="OK") as packets:
        write_memory(path, 0xFFFFEA0000001000, b"\xff\x05", wait_a_while())
    assert packets == ["Mffffea0000001000,2:ff05", "D"]


def test_memory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    refused = pytest.raises(LabError, match="refuses to write to 0x1000")
    with gdb_server(path, ADDRESS, written="E14"), refused:
        write_memory(path, 0x1000, b"x", wait_a_while())


def test_the_guest_runs_up_to_the_address_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with (
        gdb_server(path, ADDRESS) as packets,
        stopped_at(path, ADDRESS, wait_a_while(), where=AMD64),
    ):
        pass
    assert packets == [f"Z1,{ADDRESS:x},1", "c", "g"]


def test_the_guest_goes_on_until_an_address_is_written(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with (
        gdb_server(path, ADDRESS, 0xFFFFEA0000001000) as packets,
        stopped_at(path, ADDRESS, wait_a_while(), where=AMD64, write_to=0xFFFFEA0000001000),
    ):
        pass
    assert packets[3:] == [f"z1,{ADDRESS:x},1", "Z2,ffffea0000001000,8", "c"]


def test_the_guest_passes_over_calls_with_other_arguments(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with (
        gdb_server(path, ADDRESS, calls=(0x100, 0x200, 0x300)) as packets,
        stopped_at(path, ADDRESS, wait_a_while(), where=AMD64, argument=0x200),
    ):
        pass
    stop_there = [f"Z1,{ADDRESS:x},1", "c", "g"]
    assert packets == [*stop_there, f"z1,{ADDRESS:x},1", "s", *stop_there]


def test_another_write_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with (
        gdb_server(path, ADDRESS, 0x1000),
        pytest.raises(LabError, match="instead of writing to 0x2000"),
        stopped_at(path, ADDRESS, wait_a_while(), where=AMD64, write_to=0x2000),
    ):
        pytest.fail("something else was written")


def test_a_stop_elsewhere_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with (
        gdb_server(path, 0x1000),
        pytest.raises(LabError, match="at 0x1000 instead"),
        stopped_at(path, ADDRESS, wait_a_while(), where=AMD64),
    ):
        pytest.fail("the guest is somewhere else")


def test_a_call_returns_an_error_to_its_caller(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    # QEMU's step may not take the guest anywhere, which makes two stops of one call.
    with gdb_server(path, ADDRESS, calls=(0x100, 0x100, 0x200, 0x300)) as packets:
        fail_call(path, ADDRESS, 0x300, wait_a_while(), where=AMD64)
    stop_there = [f"Z1,{ADDRESS:x},1", "c", "g", f"z1,{ADDRESS:x},1"]
    # The other calls are left alone, the one that is meant is not made.
    left_alone = [*stop_there, "s"] * 3
    *before, changed, detached = packets
    assert before == [*left_alone, *stop_there, f"m{STACK:x},8"]
    words = bytes.fromhex(changed[1:])
    values = [int.from_bytes(words[i : i + 8], "little") for i in range(0, 17 * 8, 8)]
    assert values[0] == (1 << 64) - 12
    assert values[7] == STACK + 8
    assert values[16] == CALLER
    assert values[1:7] == [0, 0, 0, 0x300, 0, 0]
    assert not any(values[8:16])
    assert (changed[0], detached) == ("G", "D")


def test_a_call_on_arm64_returns_to_the_link_register(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with gdb_server(path, ADDRESS, calls=(0x100, 0x300), registers=arm64_registers) as packets:
        fail_call(path, ADDRESS, 0x300, wait_a_while(), where=ARM64)
    # Nothing is on the stack.
    assert not [packet for packet in packets if packet.startswith("m")]
    words = bytes.fromhex(packets[-2][1:])
    values = [int.from_bytes(words[i : i + 8], "little") for i in range(0, 33 * 8, 8)]
    assert (values[0], values[30:]) == ((1 << 64) - 12, [CALLER, STACK, CALLER])


def test_waiting_ends_when_the_check_says_so(tmp_path: Path) -> None:
    def check() -> None:
        raise LabError("time is up")

    with (
        pytest.raises(LabError, match="time is up"),
        stopped_at(tmp_path / "gdb", 0, check, where=AMD64),
    ):
        pytest.fail("there is no guest")
