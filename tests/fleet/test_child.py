# SPDX-License-Identifier: LGPL-2.1-or-later

"""The process that checks one dump."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from drgn_zonedev.fleet import child
from drgn_zonedev.fleet.child import DATA_FACTOR

PRINT_LIMITS = """
import runpy, sys
def run_module(*args, **kwargs):
    import resource
    for name in ("DATA", "CORE"):
        print(*resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
    print(*sys.argv[1:])
runpy.run_module = run_module
sys.argv[1:] = {arguments!r}
runpy.run_path({path!r}, run_name="__main__")
"""


def run_child(*arguments: str) -> list[str]:
    code = PRINT_LIMITS.format(arguments=list(arguments), path=child.__file__)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_limits_are_set_before_anything_is_read() -> None:
    data, core, arguments = run_child("1000000000", str(os.getpid()), "check", "-j", "1")
    assert data == f"{DATA_FACTOR}000000000 {DATA_FACTOR}000000000"
    assert core == "0 0"
    assert arguments == "check -j 1"


def test_without_a_limit_there_is_none() -> None:
    data, _, _ = run_child("0", str(os.getpid()), "check")
    assert data.split() == ["-1", "-1"]


def test_orphan_does_nothing() -> None:
    command = [sys.executable, child.__file__, "0", "1", "--version"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_child_is_zonedev(tmp_path: Path) -> None:
    command = [sys.executable, child.__file__, "0", str(os.getpid()), "--version"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith(b"zonedev ")
