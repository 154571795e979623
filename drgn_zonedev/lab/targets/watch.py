# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Check a running kernel repeatedly, and count the results.

::

    python -m drgn_zonedev.lab.targets.watch --qemu SOCKET -s VMLINUX --seconds 60

The tests run this beside a guest whose memory keeps changing, and inside of it.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drgn import Program

    from drgn_zonedev.model import Report

__all__ = ("MARK", "Tally", "main", "watch")

MARK = "watched: "
"""Prefix of each line that :func:`main` prints, so that it can be found in a console."""


@dataclass
class Tally:
    """The results of many checks."""

    checks: int = 0
    retries: int = 0
    torn: int = 0
    unknown: int = 0
    """Checks with ranges or errors that are unknown because they were torn."""
    cases: dict[str, int] = field(default_factory=dict)
    """In how many checks a case was seen."""
    errors: dict[str, int] = field(default_factory=dict)
    """In how many checks an ``error`` finding was seen, with an example of each."""
    crashes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0

    def add(self, report: Report) -> None:
        """Count one check."""
        self.retries += report.coverage.retries
        self.torn += report.coverage.torn
        self.unknown += bool(report.coverage.torn)
        for case in {r.case.value for r in report.ranges}:
            self.cases[case] = self.cases.get(case, 0) + 1
        for finding in report.findings:
            if finding.severity.value == "error":
                facts = [(e.what, e.value, e.expected, e.note) for e in finding.evidence[:3]]
                span = f"[{finding.start_pfn:#x}, {finding.end_pfn:#x})"
                self.errors[f"{finding.slug} {span} {facts}"] = self.checks


def watch(prog: Program, seconds: float, every: float = 10) -> Iterator[Tally]:
    """Check a running kernel for some time; yield the tally now and then, and at the end."""
    from drgn_zonedev.report import check

    tally = Tally()
    start = reported = time.monotonic()
    while not tally.checks or tally.seconds < seconds:
        tally.checks += 1
        try:
            tally.add(check(prog))
        except Exception:
            # Report any exception, and continue.
            last = " / ".join(traceback.format_exc().strip().splitlines()[-3:])
            tally.crashes[last] = tally.crashes.get(last, 0) + 1
        now = time.monotonic()
        tally.seconds = now - start
        if now - reported >= every or tally.seconds >= seconds:
            reported = now
            yield tally


def main() -> None:
    """Watch, and print a line of JSON now and then."""
    import drgn

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--qemu", metavar="SOCKET")
    parser.add_argument("-s", "--symbols", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--ready", metavar="FILE", type=Path, help="make this when all is set up")
    args = parser.parse_args()
    prog = drgn.Program()
    if args.qemu:
        prog.set_qemu_qmp(args.qemu)
    else:
        prog.set_kernel()
    prog.load_debug_info([args.symbols])
    # The first check takes longest, because nothing is cached.
    next(watch(prog, 0))
    if args.ready:
        args.ready.touch()
    for tally in watch(prog, args.seconds):
        print(f"{MARK}{json.dumps(asdict(tally))}", flush=True)


if __name__ == "__main__":
    main()
