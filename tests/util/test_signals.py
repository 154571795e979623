# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is ended cleans up, says nothing, and tells by its status what ended it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drgn_zonedev.util.directories import new_directory, temporary_directory, write_file
from drgn_zonedev.util.signals import cleaning_up

VMCORES = Path(__file__).parents[2] / "vmcores"

# A plugin of drgn, which waits where drgn prints what is raised, and goes on.
_PLUGIN = """
import os, time
def drgn_prog_set(prog):
    open({here!r}, "w").close()
    deadline = time.monotonic() + 30
    while not os.path.exists({go!r}) and time.monotonic() < deadline:
        time.sleep(0.01)
"""

ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
each_signal = pytest.mark.parametrize(("number", "status"), ENDING)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Where exports are unpacked."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    return directory


def start(unpacked: Path, *argv: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "drgn_zonedev", "-c", str(VMCORES / "6.1-ghost"), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(unpacked), **environment},
    )


@each_signal
def test_unpacked_export_is_removed(
    number: signal.Signals, status: int, tmp_path: Path, unpacked: Path
) -> None:
    # Nobody reads this, so it does not end by itself.
    os.mkfifo(tmp_path / "fifo")
    with start(unpacked, "check", "-o", str(tmp_path / "fifo")) as process:
        wait_until(lambda: list(unpacked.iterdir()))
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == status
    assert list(unpacked.iterdir()) == []


def waiting_plugin(tmp_path: Path) -> tuple[str, Path, Path]:
    here, go = tmp_path / "here", tmp_path / "go"
    plugin = tmp_path / "plugin.py"
    plugin.write_text(_PLUGIN.format(here=str(here), go=str(go)))
    return f"waits={plugin}", here, go


@each_signal
def test_signal_is_not_lost_while_plugins_are_called(
    number: signal.Signals, status: int, tmp_path: Path, unpacked: Path
) -> None:
    plugin, here, go = waiting_plugin(tmp_path)
    with start(unpacked, "check", DRGN_PLUGINS=plugin) as process:
        wait_until(here.exists)
        process.send_signal(number)
        go.touch()
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == status
    assert list(unpacked.iterdir()) == []


def test_signal_that_is_ignored_stays_so(tmp_path: Path, unpacked: Path) -> None:
    plugin, here, go = waiting_plugin(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        # As by nohup.
        process = start(unpacked, "pgmaps", DRGN_PLUGINS=plugin)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        wait_until(here.exists)
        process.send_signal(signal.SIGHUP)
        go.touch()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out


def test_interrupted_import_says_nothing(tmp_path: Path) -> None:
    # In front of the real one: what is imported first of all that takes its time.
    (tmp_path / "drgn.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(root)]}; "
    code += "from drgn_zonedev.__main__ import run; sys.exit(run())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    # As shells see it, that is 130.
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


# At the worst moments, in this process.


@pytest.fixture
def ended() -> Iterator[None]:
    """Whatever handles signals when a test has ended: as before."""
    numbers = [*(number for number, _ in ENDING), signal.SIGALRM]
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def signal_after(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: signal.Signals
) -> None:
    """Send this process a signal at the end of each call of a function."""
    function = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        signal.raise_signal(number)
        return result

    monkeypatch.setattr(owner, name, wrapper)


def signal_before(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: signal.Signals
) -> None:
    """Send this process a signal at the beginning of each call of a function."""
    function = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(number)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)


def status_of(body: Callable[[], None]) -> Any:
    """Do what a process is for, and get its exit status."""
    try:
        with cleaning_up():
            body()
    except KeyboardInterrupt:
        return 130
    except SystemExit as e:
        return e.code
    return 0


@each_signal
@pytest.mark.parametrize("moment", ["made", "removed"])
def test_temporary_directory_outlives_no_signal(
    number: signal.Signals,
    status: int,
    moment: str,
    unpacked: Path,
    ended: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    if moment == "made":
        signal_after(monkeypatch, tempfile, "mkdtemp", number)
    else:
        signal_before(monkeypatch, shutil, "rmtree", number)
    came: list[str] = []

    def body() -> None:
        with temporary_directory("zonedev-") as directory:
            write_file(directory / "file", b"")
            came.append("inside")
        came.append("behind")

    assert status_of(body) == status
    assert came == ([] if moment == "made" else ["inside"])
    assert list(unpacked.iterdir()) == []


@each_signal
@pytest.mark.parametrize("moment", ["mkdtemp", "rename", "rmtree"])
def test_replaced_directory_is_the_old_one_or_the_new(
    number: signal.Signals,
    status: int,
    moment: str,
    tmp_path: Path,
    ended: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_file(out / "old", b"")
    if moment == "mkdtemp":
        signal_after(monkeypatch, tempfile, "mkdtemp", number)
    elif moment == "rename":
        signal_after(monkeypatch, Path, "rename", number)
    else:
        signal_before(monkeypatch, shutil, "rmtree", number)

    def body() -> None:
        with new_directory(out, replaced=["old"]) as directory:
            write_file(directory / "new", b"")

    assert status_of(body) == status
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert os.listdir(out) == (["old"] if moment == "mkdtemp" else ["new"])


class Raw(io.RawIOBase):
    """A file of which Python asks the position, and takes any error for no answer."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        signal.raise_signal(self.number)
        return 0


def in_callback_of_weak_reference(number: signal.Signals) -> None:
    something = Raw(number)
    reference = weakref.ref(something, lambda _: signal.raise_signal(number))
    del something
    assert reference() is None


def in_buffered_reader(number: signal.Signals) -> None:
    io.BufferedReader(Raw(number))


@each_signal
@pytest.mark.parametrize("lose", [in_callback_of_weak_reference, in_buffered_reader])
def test_signal_comes_again_if_python_loses_it(
    number: signal.Signals,
    status: int,
    lose: Callable[[signal.Signals], None],
    ended: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    came: list[str] = []

    def body() -> None:
        try:
            lose(number)
            came.append("lost")
            time.sleep(30)
        finally:
            # Cleaning up is not interrupted.
            time.sleep(0.3)
            came.append("cleaned up")

    assert status_of(body) == status
    assert came == ["lost", "cleaned up"]
    assert capfd.readouterr() == ("", "")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
