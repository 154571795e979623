# SPDX-License-Identifier: LGPL-2.1-or-later

"""QEMU's monitor: a guest that is stopped goes on, whatever becomes of us."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.monitor import Monitor
from support.waiting import SECONDS, wait_until

from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.machine.qmp import execute
from drgn_zonedev.opening import guest as qmp
from drgn_zonedev.opening.guest import QmpError, connect, open_guest, paused

EVENT = b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with connect(str(path)) as monitor:
        # As drgn does.
        assert b"QMP" in monitor.recv(4096)
        yield monitor


def test_guest_is_stopped_and_goes_on(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    with connected(tmp_path / "qmp") as monitor, paused(monitor) as was_running:
        assert was_running
        assert not other.running
    assert other.running
    assert other.heard == ["query-status", "stop", "cont"]


def test_guest_that_was_stopped_stays_so(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    other.running = False
    with connected(tmp_path / "qmp") as monitor, paused(monitor) as was_running:
        assert not was_running
    assert other.heard == ["query-status"]


def test_guest_goes_on_after_an_exception(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    with connected(tmp_path / "qmp") as monitor:
        with pytest.raises(KeyboardInterrupt):
            with_interrupt(monitor, other)
        assert other.running


def with_interrupt(monitor: socket.socket, other: Monitor) -> None:
    with paused(monitor):
        assert not other.running
        raise KeyboardInterrupt


def test_what_is_not_for_us_is_left_alone_or_skipped(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    other.before = {
        "query-status": EVENT,
        # The rest of a line, and the answer to somebody who was interrupted.
        "stop": b'conds": 2}}\r\n{"return": {"running": false}}\r\n' + EVENT,
    }
    with connected(tmp_path / "qmp") as monitor, paused(monitor):
        assert not other.running
    assert other.running


def test_not_a_byte_more_than_the_answer_is_read(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(EVENT + EVENT[:20])
    assert qmp._read_line(ours, time.monotonic() + 1) == EVENT
    assert ours.recv(4096) == EVENT[:20]


def test_refusal_is_told_and_the_guest_is_released(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    other.refused = {"stop"}
    refused = pytest.raises(QmpError, match="QEMU refused stop: not now")
    with connected(tmp_path / "qmp") as monitor, refused, paused(monitor):
        pass
    assert other.heard[-1] == "cont"


def test_machine_that_ends_while_it_is_stopped_is_told(tmp_path: Path) -> None:
    other = Monitor(tmp_path / "qmp")
    other.ends_after = "stop"
    lost = pytest.raises(QmpError, match="QEMU closed the connection")
    with connected(tmp_path / "qmp") as monitor, lost, paused(monitor):
        other.ended.wait(10)


def test_busy_socket_is_told_from_a_slow_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # QEMU lets another client connect, and says nothing to it.
    monkeypatch.setattr(qmp, "_GREETING_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp"))
        listener.listen()
        with pytest.raises(QmpError, match="one client at a time"):
            connect(str(tmp_path / "qmp"))


def test_address_is_taken_as_drgn_takes_it(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"{}\r\n")).start()
        with connect(f"localhost:{port}") as monitor:
            assert monitor.getblocking()
            assert monitor.recv(4) == b"{}\r\n"
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / "file:1"))


# With QEMU itself. A machine without a disk runs its firmware.


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    sockets = [tmp_path / "ours", tmp_path / "theirs"]
    command = [find_tool("qemu-system-x86_64"), "-accel", "tcg", "-M", "q35", "-m", "64M"]
    command += ["-nodefaults", "-no-user-config", "-display", "none"]
    for path in sockets:
        command += ["-qmp", f"unix:{path},server=on,wait=off"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: all(path.exists() for path in sockets))
            yield tmp_path
        finally:
            process.kill()


def is_running(machine: Path) -> bool:
    status = execute(machine / "theirs", "query-status", {})
    assert isinstance(status, dict)
    return bool(status["running"])


def pausing(machine: Path, then: str) -> subprocess.Popen[str]:
    """A process that stops the machine, says so, and goes on with some code."""
    code = f"""
        import os, signal, sys, time
        # The tests may run where these are ignored (nohup, a shell's background job).
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from drgn_zonedev.opening.guest import connect, paused
        monitor = connect({str(machine / "ours")!r})
        monitor.recv(4096)
        monitor.sendall(b'{{"execute":"qmp_capabilities"}}\\n')
        with paused(monitor):
            print("paused", flush=True)
            {then}
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "paused\n"
    return process


@pytest.mark.qemu
def test_machine_is_paused_only_meanwhile(machine: Path) -> None:
    with pausing(machine, "sys.stdin.readline()") as process:
        assert not is_running(machine)
        process.communicate("go on\n", timeout=SECONDS)
        assert process.returncode == 0
    assert is_running(machine)


@pytest.mark.qemu
def test_machine_that_is_stopped_stays_so(machine: Path) -> None:
    execute(machine / "theirs", "stop", {})
    with pausing(machine, "pass") as process:
        assert process.wait(SECONDS) == 0
    assert not is_running(machine)


@pytest.mark.qemu
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_machine_goes_on_after_a_signal(machine: Path, number: signal.Signals) -> None:
    with pausing(machine, "time.sleep(60)") as process:
        assert not is_running(machine)
        # To the whole group, as a terminal would send it.
        os.killpg(process.pid, number)
        assert process.wait(SECONDS) != 0
    wait_until(lambda: is_running(machine))


@pytest.mark.qemu
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_machine_goes_on_before_the_command_line_has_ended(
    machine: Path, number: signal.Signals
) -> None:
    then = """
            from drgn_zonedev.util.signals import cleaning_up
            with cleaning_up():
                print("ready", flush=True)
                time.sleep(60)
    """
    with pausing(machine, then.strip()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(SECONDS) == 128 + number
        # The watchdog was told that there is nothing to do, and not left alone.
        assert is_running(machine)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "crash",
    [
        "os.abort()",
        # In the middle of a command.
        'monitor.sendall(b\'{"execute":"human-mon\'); os._exit(1)',
        "os.close(monitor.fileno()); os._exit(1)",
    ],
)
def test_machine_goes_on_after_a_crash(machine: Path, crash: str) -> None:
    with pausing(machine, crash) as process:
        assert process.wait(SECONDS) != 0
    wait_until(lambda: is_running(machine))


# A top of page tables at 4 KiB, which leads to a page of 1 GiB from address 0 on.
VMCOREINFO = b"""\
OSRELEASE=7.3.0
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffffffff80001000
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
KERNELOFFSET=0
"""
TABLE, PAGE_OF_1G = 0x2000 | 3, 0x83


def physical(address: int) -> int:
    """A byte of the memory of that machine: anywhere else, what its address ends with."""
    entry = {0x1000: TABLE, 0x2000: PAGE_OF_1G}.get(address & ~0xFFF)
    return address & 0xFF if entry is None else entry >> 8 * (address % 8) & 0xFF


def serve_memory(listener: socket.socket) -> None:
    """Be a QEMU without vmcoreinfo, which says itself what is in memory."""
    client, _ = listener.accept()
    client.sendall(b'{"QMP": {}}\r\n')
    for line in client.makefile("rb"):
        answer: object = {"arch": "x86_64"} if b"query-target" in line else {}
        if b"human-monitor-command" in line:
            asked = json.loads(line)["arguments"]["command-line"].split()
            answer = ""
            if asked[0] == "xp":
                count, address = int(asked[1][1:-2]), int(asked[2], 16)
                read = (f"{physical(address + i):#04x}" for i in range(count))
                answer = f"{address:016x}: {' '.join(read)}\r\n"
        client.sendall(json.dumps({"return": answer}).encode() + b"\r\n")


def test_guest_without_vmcoreinfo_is_opened_with_one_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        # drgn lets no other thread run while it waits.
        multiprocessing.get_context("fork").Process(
            target=serve_memory, args=(listener,), daemon=True
        ).start()
        with connect(str(path)) as monitor:
            prog = open_guest(str(path), monitor, VMCOREINFO)
            assert prog["UTS_RELEASE"].string_() == b"7.3.0"
            assert prog.read(0xFFFF888000000042, 4) == b"\x42\x43\x44\x45"
