# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is ended cleans up, says nothing, and tells by its status what ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

VMCORES = Path(__file__).parents[1] / "vmcores"

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
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(root)]}; "
    code += "from drgn_zonedev.__main__ import run; sys.exit(run())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    # As shells see it, that is 130.
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
