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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable

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
    pages: int = 0
    """Struct pages that were verified, in all checks together."""
    torn_pages: int = 0
    """How many of these changed each time that they were read."""
    last: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By the slug of an ``error`` finding: where the last check saw it."""
    ever: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Likewise, where any check saw it."""
    errors: dict[str, int] = field(default_factory=dict)
    """In how many checks an ``error`` finding was seen, with an example of each."""
    crashes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0

    def add(self, report: Report) -> None:
        """Count one check."""
        self.retries += report.coverage.retries
        self.torn += report.coverage.torn
        self.unknown += bool(report.coverage.torn)
        counts = report.coverage.by_case.values()
        self.pages += sum(count.verified for count in counts)
        self.torn_pages += sum(count.torn for count in counts)
        self.last = {}
        for case in {r.case.value for r in report.ranges}:
            self.cases[case] = self.cases.get(case, 0) + 1
        for finding in report.findings:
            if finding.severity.value == "error":
                facts = [(e.what, e.value, e.expected, e.note) for e in finding.evidence[:3]]
                place = (finding.start_pfn, finding.end_pfn)
                self.last.setdefault(finding.slug, []).append(place)
                if place not in self.ever.setdefault(finding.slug, []):
                    self.ever[finding.slug].append(place)
                span = f"[{finding.start_pfn:#x}, {finding.end_pfn:#x})"
                self.errors[f"{finding.slug} {span} {facts}"] = self.checks


def watch(
    prog: Program,
    seconds: float,
    every: float = 10,
    still: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Tally]:
    """
    Check a running kernel for some time; yield the tally now and then, and at the end.

    :param still: each check is made inside of such a context
    """
    from drgn_zonedev.report import check

    tally = Tally()
    start = reported = time.monotonic()
    while not tally.checks or tally.seconds < seconds:
        tally.checks += 1
        try:
            with still():
                report = check(prog)
            tally.add(report)
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

    from drgn_zonedev.opening.guest import connect_guest, open_guest, paused

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--qemu", metavar="SOCKET")
    parser.add_argument("-s", "--symbols", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--pause", action="store_true", help="stop the guest during each check")
    parser.add_argument("--ready", metavar="FILE", type=Path, help="make this when all is set up")
    args = parser.parse_args()
    still: Callable[[], AbstractContextManager[object]] = nullcontext
    if args.qemu:
        monitor = connect_guest(args.qemu)
        prog = open_guest(args.qemu, monitor)
        if args.pause:
            still = partial(paused, monitor)
    else:
        prog = drgn.Program()
        prog.set_kernel()
    prog.load_debug_info([args.symbols])
    # The first check takes longest, because nothing is cached.
    next(watch(prog, 0))
    if args.ready:
        args.ready.touch()
    for tally in watch(prog, args.seconds, still=still):
        print(f"{MARK}{json.dumps(asdict(tally))}", flush=True)


if __name__ == "__main__":
    main()
