# SPDX-License-Identifier: LGPL-2.1-or-later

"""A bar with bytes, time left and a rate for people; nothing for pipes."""

from __future__ import annotations

import re
import subprocess
import sys

import pexpect
import pytest

SHOW = """
import time
from drgn_zonedev.commands.progress import progress_bar
with progress_bar() as progress:
    for _ in range(12):
        time.sleep(0.15)
        progress(1 << 20, 12 << 20)
"""


def test_pipes_see_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_people_see_bytes_time_left_and_a_rate() -> None:
    child = pexpect.spawn(sys.executable, ["-c", SHOW], encoding="utf-8", timeout=60)
    child.expect(r"memmap: +\d+%.*\d+(\.\d+)?M/12\.0M \[\d\d:\d\d<\d\d:\d\d, .*B/s\]")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_another_round_starts_from_nothing() -> None:
    twice = SHOW.replace("range(12)", "range(36)")
    child = pexpect.spawn(sys.executable, ["-c", twice], encoding="utf-8", timeout=60)
    child.expect(pexpect.EOF)
    percents = [int(p) for p in re.findall(r"memmap: +(\d+)%", child.before or "")]
    assert max(percents) == 100
    assert sum(a > b for a, b in zip(percents, percents[1:])) == 2


@pytest.mark.parametrize("total", [0, 4096])
def test_a_moment_is_too_short_for_a_bar(total: int) -> None:
    code = SHOW.replace("range(12)", "range(1)").replace("12 << 20", str(total))
    child = pexpect.spawn(sys.executable, ["-c", code], encoding="utf-8", timeout=60)
    child.expect(pexpect.EOF)
    assert "memmap" not in (child.before or "")
