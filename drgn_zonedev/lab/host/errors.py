# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What the lab raises, and how it tells a caller what it is doing.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

__all__ = ("LabError", "NotPossible", "StepProgress", "logger", "report")

logger = logging.getLogger("drgn_zonedev.lab")

StepProgress = Optional[Callable[[str], None]]
"""Called with one line of text per step; None sends the lines to the logger."""


class LabError(Exception):
    """The lab could not do its work. The message says why, and what to do about it."""


class NotPossible(LabError):
    """This kernel cannot do what a scenario wants; the message is the reason."""


def report(progress: StepProgress, message: str) -> None:
    """Tell the caller (or, without a callback, the log) what is going on."""
    if progress is None:
        logger.info("%s", message)
    else:
        progress(message)
