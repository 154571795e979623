# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The lab's exceptions and progress reports.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

__all__ = ("GuestEndedError", "LabError", "NotPossible", "StepProgress", "logger", "report")

logger = logging.getLogger("drgn_zonedev.lab")

StepProgress = Optional[Callable[[str], None]]
"""Called with one line of text per step; None sends the lines to the logger."""


class LabError(Exception):
    """The lab could not do its work. The message says why, and what to do about it."""


class GuestEndedError(LabError):
    """
    The guest panicked or rebooted; the message holds the end of its console, and ``console``
    all of it.
    """

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console


class NotPossible(LabError):
    """This kernel does not support a scenario; the message is the reason."""


def report(progress: StepProgress, message: str) -> None:
    """Report progress to the caller or, without a callback, to the log."""
    if progress is None:
        logger.info("%s", message)
    else:
        progress(message)
