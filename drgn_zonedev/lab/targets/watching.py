# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Have a guest checked repeatedly, from the outside or by itself, and collect the tallies.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.machine.boot import Guest
from drgn_zonedev.lab.targets.watch import MARK

__all__ = ("last_tally", "observer_words", "watch_outside")

_WATCH = ("-m", "drgn_zonedev.lab.targets.watch")
# Time for a check that has begun to end and report; on a busy host, that takes minutes.
_SPARE_SECONDS = 300


def watch_outside(guest: Guest, seconds: float, *, pause: bool = False) -> dict[str, Any]:
    """
    Check a running guest over QMP for some time, and return the last tally.

    :param pause: stop the guest during each check
    """
    command = [sys.executable, *_WATCH, "--qemu", guest.qmp_socket]
    command += ["-s", str(guest.kernel.vmlinux), "--seconds", str(seconds)]
    if pause:
        command.append("--pause")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + _SPARE_SECONDS, check=False
    )
    if done.returncode:
        raise LabError(f"the watcher ended: {done.stderr.strip()}")
    return _tallies(done.stdout)[-1]


def observer_words(seconds: float) -> list[str]:
    """Return what makes ``boot_observed()`` check the guest that it boots from now on."""
    words = [*_WATCH, "-s", "/extra/vmlinux", "--seconds", str(seconds)]
    return [*words, "--ready", "/tmp/observing"]


def last_tally(guest: Guest, seconds: float) -> dict[str, Any]:
    """Wait until a guest has checked itself for some time, and return its last tally."""
    deadline = time.monotonic() + seconds + _SPARE_SECONDS
    while time.monotonic() < deadline:
        tallies = _tallies(guest.log.read_text("latin-1"))
        if tallies and tallies[-1]["seconds"] >= seconds:
            return tallies[-1]
        time.sleep(1)
    raise LabError("the guest's own checks did not end")


def _tallies(text: str) -> list[dict[str, Any]]:
    # Other output may begin in the middle of such a line.
    found = []
    for body in re.findall(rf"{MARK}(\{{.*\}})\r?$", text, re.MULTILINE):
        try:
            found.append(json.loads(body))
        except ValueError:
            continue
    return found
