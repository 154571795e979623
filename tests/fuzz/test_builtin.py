# SPDX-License-Identifier: LGPL-2.1-or-later

"""Damaged BTF and kallsyms: scripts/fuzz at length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

# A process of its own, as the tests' has drgn's threads, which do not survive a fork.
_FUZZ = """
import sys
from pathlib import Path
import fuzz.builtin as door
{}
sys.exit(door.fuzz_builtin(1, int(sys.argv[1]), Path(sys.argv[2])))
"""


def fuzz(count: int, keep: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", _FUZZ.format(before), str(count), str(keep)]
    return subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, check=False)


def test_damaged_kernels_are_read_or_refused(tmp_path: Path) -> None:
    done = fuzz(150, tmp_path / "keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("150 kernels with BTF: ")
    assert " 0 read" not in done.stdout
    assert " 0 refused" not in done.stdout
    assert not (tmp_path / "keep").exists()


def test_error_of_another_kind_is_a_failure(tmp_path: Path) -> None:
    done = fuzz(2, tmp_path, "door._ask = lambda prog: 1 // 0")
    assert done.returncode == 2, done.stderr
    assert "ZeroDivisionError" in done.stdout
    assert len(list(tmp_path.iterdir())) == 2


def test_hang_and_greed_are_failures(tmp_path: Path) -> None:
    door = "door._ask = lambda prog: [None for _ in iter(int, 1)]; door._SECONDS = 0.2"
    assert "killed by SIGPROF" in fuzz(1, tmp_path, door).stdout
    assert "memory: " in fuzz(1, tmp_path, "door._MEMORY = 1").stdout
