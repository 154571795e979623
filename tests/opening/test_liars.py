# SPDX-License-Identifier: LGPL-2.1-or-later

"""QMP servers that lie: one line, status 2, and any signal ends us."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.liars import GREETING, LIES, Liar

from drgn_zonedev.opening import guest
from drgn_zonedev.opening.failures import CannotOpenError
from drgn_zonedev.opening.guest import QmpError, connect, paused
from drgn_zonedev.shell import cli

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# On a machine that has something else to do.
_A_SECOND = 3.0


@contextmanager
def lying(path: Path, lie: str) -> Iterator[Path]:
    liar = Liar(path, lie)
    try:
        yield path
    finally:
        liar.close()


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: str
) -> None:
    monkeypatch.setattr(guest, "_OPENING_SECONDS", 1.0)
    begun = time.monotonic()
    with lying(tmp_path / "qmp", lie) as path:
        assert cli.main(["--qemu", str(path), "--pause", "check"]) == 2
    assert time.monotonic() - begun < 1 + _A_SECOND
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert str(path) in err


def test_silence_is_not_waited_for_longer_than_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guest, "_SECONDS", 1.0)
    with lying(tmp_path / "qmp", "silence") as path, connect(str(path)) as monitor:
        begun = time.monotonic()
        with pytest.raises(CannotOpenError, match="did not answer within 1 s"):
            guest.open_guest(str(path), monitor)
        assert time.monotonic() - begun < 1 + _A_SECOND


def test_limit_of_memory_is_gone_afterwards(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with lying(tmp_path / "qmp", "an array") as path:
        assert cli.main(["--qemu", str(path), "check"]) == 2
    assert resource.getrlimit(resource.RLIMIT_AS) == before


WITHOUT_ROOM = """
import sys
from drgn_zonedev.opening import guest
from drgn_zonedev.shell.cli import main
guest._OPENING_BYTES = 0
sys.exit(main(sys.argv[1:]))
"""


def test_answer_that_is_too_long_ends_with_the_memory_for_it(tmp_path: Path) -> None:
    # Not in this process: it may have room left from earlier tests.
    with lying(tmp_path / "qmp", "an answer without end") as path:
        command = [sys.executable, "-c", WITHOUT_ROOM, "--qemu", str(path), "check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "the answer is too long" in done.stderr


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("lie", ["silence", "half a greeting", "events", "a line without end"])
def test_signal_ends_the_command_line_that_waits(
    tmp_path: Path, lie: str, number: signal.Signals
) -> None:
    with lying(tmp_path / "qmp", lie) as path:
        command = [sys.executable, "-m", "drgn_zonedev", "--qemu", str(path), "check"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=_default)
        time.sleep(1.5)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) in (-number, 128 + number)
        assert time.monotonic() - begun < 1
        assert process.stderr
        assert process.stderr.read() == b""


def _default() -> None:
    # Whoever started the tests may have told them to ignore it (nohup).
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_a_read_that_gets_no_answer(tmp_path: Path, number: signal.Signals) -> None:
    code = f"""
        import os, drgn
        from drgn_zonedev.opening.guest import connect, interruptible
        from drgn_zonedev.util.signals import cleaning_up
        monitor = connect({str(tmp_path / "qmp")!r})
        with cleaning_up(), interruptible(monitor):
            print("waiting", flush=True)
            drgn.Program().set_qemu_qmp(os.dup(monitor.fileno()))
    """
    with lying(tmp_path / "qmp", "events"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=_default,
        )
        assert process.stdout
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) in (-number, 128 + number)
        assert time.monotonic() - begun < 1 + _A_SECOND / 3


def test_guest_goes_on_if_a_signal_meets_a_read_without_answer(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    heard: list[str] = []

    def serve() -> None:
        # Answers the first two commands, then nothing.
        for line in theirs.makefile("rb"):
            message = json.loads(line.strip(b"\x01\r\n") or b"{}")
            if not message:
                continue
            heard.append(message["execute"])
            if len(heard) <= 2:
                answer = {"return": {"running": True}, "id": message["id"]}
                theirs.sendall(json.dumps(answer).encode() + b"\n")

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    code = f"""
        import os, socket, drgn
        from drgn_zonedev.opening.guest import paused
        from drgn_zonedev.util.signals import cleaning_up
        monitor = socket.socket(fileno={ours.fileno()})
        with cleaning_up(), paused(monitor):
            print("paused", flush=True)
            drgn.Program().set_qemu_qmp(os.dup(monitor.fileno()))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[ours.fileno()],
        preexec_fn=_default,
    )
    assert process.stdout
    assert process.stdout.readline() == b"paused\n"
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert time.monotonic() - begun < 1 + _A_SECOND / 3
    ours.close()
    server.join(10)
    assert heard[:3] == ["query-status", "stop", "cont"]


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b"null",
        b'"no"',
        b"[" * 60_000,
        b'{"id": "zonedev-TAG", "error": "no"}',
        b'{"id": "zonedev-TAG", "error": null}',
        b'{"id": "zonedev-TAG", "return": null}',
        b'{"id": "zonedev-TAG", "return": []}',
        b'{"id": "zonedev-TAG", "return": {}}',
        b'{"id": "zonedev-TAG", "return": {"running": "yes"}}',
        b'{"id": "zonedev-TAG"}',
        b"x" * (1 << 18),
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_answer_that_is_none(answer: bytes) -> None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        tag = json.loads(theirs.recv(4096))["id"].rpartition("-")[2]
        with suppress(OSError):
            theirs.sendall(answer.replace(b"TAG", tag.encode()) + b"\n")

    threading.Thread(target=serve, daemon=True).start()
    with ours, theirs, pytest.raises(QmpError), paused(ours):
        pass


def test_deadline_holds_while_events_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while not ended.is_set():
                theirs.sendall(b'{"event": "X"}\n')

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    begun = time.monotonic()
    with pytest.raises(QmpError, match="did not answer"), paused(ours):
        pass
    assert time.monotonic() - begun < 0.5 + _A_SECOND
    ended.set()
    ours.close()


def test_greeting_is_left_for_drgn(tmp_path: Path) -> None:
    with lying(tmp_path / "qmp", "silence") as path, connect(str(path)) as monitor:
        assert monitor.recv(4096) == GREETING
