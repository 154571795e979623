# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much memory something takes that is no command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

__all__ = ("growth_of", "in_child")


def growth_of(work: Callable[[], object]) -> float:
    """How many MiB this process grows by at most."""
    # Sets the high-water mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def in_child(module: str, *arguments: str) -> float:
    """Run a module that prints a number: memory is measured where nothing else was done."""
    command = [sys.executable, "-m", module, *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(json.loads(done.stdout))


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
