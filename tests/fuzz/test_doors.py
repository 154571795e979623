# SPDX-License-Identifier: LGPL-2.1-or-later

"""What comes from outside besides dumps, drawn at random: scripts/fuzz at length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMES = ("headers and VMCOREINFO", "vmlinux", "QMP servers", "file names", "limits", "logs")

# A process of its own, as the tests' has drgn's threads, which do not survive a fork.
_FUZZ = """
import sys, tempfile
from pathlib import Path
from fuzz import doors, limited
from fuzz.run import unpacked
CHANGE
with tempfile.TemporaryDirectory() as directory:
    sys.exit(doors.fuzz_doors(1, int(sys.argv[1]), unpacked(Path(directory))) and 1)
"""


def fuzz(count: int, change: str = "") -> subprocess.CompletedProcess[str]:
    code = _FUZZ.replace("CHANGE", change)
    argv = [sys.executable, "-c", code, str(count)]
    return subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, check=False)


def test_everything_from_outside_is_answered() -> None:
    done = fuzz(6)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        f"6 {name}" for name in NAMES
    ]


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        ("limited.run = lambda: 4", "status 4"),
        ("limited.run = lambda: 1 // 0", "ZeroDivisionError"),
        ("doors._SECONDS = 0.2; limited.run = lambda: exec('while True: pass')", "SIGPROF"),
        ("limited.run = lambda: [__import__('os').write(2, b'x' * 9 + b'\\n') for _ in '12'] and 2",
         "status 2 without one line"),
        ("limited.run = lambda: open(limited.tempfile.tempdir + '/left', 'w') and 0",
         "left behind"),
    ],
)  # fmt: skip
def test_mistake_is_a_failure(mistake: str, why: str) -> None:
    done = fuzz(1, f"doors.DOORS = {{'vmlinux': doors.DOORS['vmlinux']}}; {mistake}")
    assert done.returncode == 1, done.stderr
    assert why in done.stdout
