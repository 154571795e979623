# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A lock between processes.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError, StepProgress, report

__all__ = ("lock",)


@contextmanager
def lock(path: Path, progress: StepProgress = None, timeout: float = 1800) -> Iterator[None]:
    """Hold the lock file `path`; the kernel releases it however the process ends."""
    with path.open("w") as file:
        deadline = time.monotonic() + timeout
        reported = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as e:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"another process has held {path} for {timeout:.0f} s: end it"
                    ) from e
            if not reported:
                report(progress, f"waiting for another process to release {path}")
                reported = True
            time.sleep(min(0.5, timeout))
        yield
