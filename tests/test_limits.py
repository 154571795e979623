# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Too little memory, too small a disk, too few descriptors: the answer, or one line and the
status that says that nothing was judged. Never the status that means findings.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

VMCORES = Path(__file__).parents[1] / "vmcores"
# In thousands, as for ulimit -v: some of them fail in the middle of imports.
MEMORY_KIB = [60, 140, 200, 220, 260, 280, 300, 330, 600, 1000]
ENOUGH_KIB = 600


def limited(limit: int, value: int) -> Callable[[], None]:
    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(limit, (value, value))

    return set_limit


def zonedev(set_limit: Callable[[], None], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drgn_zonedev", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=set_limit,
    )


def assert_answer_or_one_line(done: subprocess.CompletedProcess[str], *statuses: int) -> None:
    assert done.returncode in (0, *statuses), done.stderr
    if done.returncode:
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("zonedev: error: ")


@pytest.mark.parametrize("kib", MEMORY_KIB)
@pytest.mark.parametrize("command", ["check", "check -j 3", "export OUT", "pfn 0"])
def test_memory(tmp_path: Path, kib: int, command: str) -> None:
    words = command.replace("OUT", str(tmp_path / "out")).split()
    dump = str(VMCORES / "6.1-devdax-2m")
    done = zonedev(limited(resource.RLIMIT_AS, 1000 * kib << 10), "-c", dump, *words)
    assert_answer_or_one_line(done, 3)
    assert done.returncode == 0 or kib < ENOUGH_KIB


@pytest.mark.parametrize("size", [0, 1 << 10, 100 << 10, 64 << 20])
@pytest.mark.parametrize("command", ["check", "check -o OUT", "export OUT"])
def test_disk(tmp_path: Path, size: int, command: str) -> None:
    words = command.replace("OUT", str(tmp_path / "out")).split()
    dump = str(VMCORES / "6.1-empty")
    done = zonedev(limited(resource.RLIMIT_FSIZE, size), "-c", dump, *words)
    assert_answer_or_one_line(done, 2)
    assert (done.returncode == 0) == (size == 64 << 20)
    assert done.returncode == 0 or not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", range(4, 12))
def test_descriptors(number: int) -> None:
    dump = str(VMCORES / "6.1-empty")
    done = zonedev(limited(resource.RLIMIT_NOFILE, number), "-c", dump, "check")
    if done.returncode == 127 or "Fatal Python error" in done.stderr:
        # Python itself does not start.
        return
    # The answer may be there before the directory that was unpacked to cannot be removed.
    assert done.returncode in (0, 2, 3)
    assert "Traceback" not in done.stderr
