# SPDX-License-Identifier: LGPL-2.1-or-later

"""Waiting, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60
"""What anything that takes a moment may take on a machine that is busy."""


def wait_until(condition: Callable[[], object]) -> None:
    """Ask again and again; fails after a minute."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.05)
