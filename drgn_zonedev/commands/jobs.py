# SPDX-License-Identifier: LGPL-2.1-or-later

"""``--jobs``: how many processes read a core dump."""

from __future__ import annotations

import argparse
import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import Session
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn_zonedev.verification.task import ScanAll

__all__ = ("JOBS", "scanner_of")


def _jobs(text: str) -> int:
    jobs = int(text) if text.isdecimal() else 0
    if jobs < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return jobs


JOBS = Argument(
    "-j",
    "--jobs",
    metavar="N",
    type=_jobs,
    help="read a core dump in N processes (default: as many as pay off, up to 8; in drgn's "
    "REPL, 1)",
)
"""``--jobs``"""


def scanner_of(session: Session, jobs: int | None) -> AbstractContextManager[ScanAll]:
    """Get the function that scans the struct pages of a session."""
    from drgn_zonedev.verification.pool.scanner import scanner

    if session.scan_all is not None:
        # The command line starts processes before the debugging symbols are loaded.
        return contextlib.nullcontext(session.scan_all)
    # A REPL starts processes only if asked to.
    return scanner(session.prog, jobs or 1)
