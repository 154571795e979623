# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a store says of all dumps together."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from drgn_zonedev.fleet.check_alone import Ending
from drgn_zonedev.model import Case, Finding, Severity

__all__ = (
    "BugCount",
    "Failure",
    "FindingCount",
    "KernelCount",
    "MachineCount",
    "Summary",
    "dumps_seen",
    "kinds_found",
    "summarise",
)

# Machines differ in size by orders of magnitude.
_SIZES = (0, 1 << 30, 1 << 34, 1 << 37, 1 << 40)


@dataclass(frozen=True)
class KernelCount:
    """A release of the kernel, of how many builds, and its dumps."""

    release: str
    builds: int
    dumps: int
    with_errors: int
    not_judged: int


@dataclass(frozen=True)
class FindingCount:
    """How many dumps of a kernel have a finding, and on how many pages; how many are new."""

    slug: str
    severity: str
    release: str
    dumps: int
    pages: int
    new: int


@dataclass(frozen=True)
class BugCount:
    """How many dumps of a kernel show a known bug."""

    bug: str
    release: str
    dumps: int


@dataclass(frozen=True)
class MachineCount:
    """How many dumps have device memory of at least this many bytes, and less than the next."""

    least: int
    most: int | None
    dumps: int


@dataclass(frozen=True)
class Failure:
    """A dump that could not be judged, and why."""

    path: str
    ending: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """
    What is known of all dumps.

    :ivar new_dumps: Those that the last run saw first.
    :ivar is_first_run: Everything is new.
    """

    dumps: int
    judged: int
    same: int
    new_dumps: int
    is_first_run: bool
    kernels: tuple[KernelCount, ...]
    findings: tuple[FindingCount, ...]
    bugs: tuple[BugCount, ...]
    machines: tuple[MachineCount, ...]
    failures: tuple[Failure, ...]


def summarise(connection: sqlite3.Connection) -> Summary:
    """Read the summary of an open store."""
    last, runs = connection.execute("SELECT coalesce(max(id), 0), count(*) FROM runs").fetchone()
    dumps, judged, same, new = connection.execute(_DUMPS, (Ending.JUDGED.value, last)).fetchone()
    return Summary(
        dumps=dumps,
        judged=judged,
        same=same,
        new_dumps=new,
        is_first_run=runs <= 1,
        kernels=tuple(KernelCount(*row) for row in connection.execute(_KERNELS)),
        findings=tuple(FindingCount(*row) for row in connection.execute(_FINDINGS, (last,))),
        bugs=tuple(BugCount(*row) for row in connection.execute(_BUGS)),
        machines=tuple(_machines(connection)),
        failures=tuple(Failure(*row) for row in connection.execute(_FAILURES)),
    )


_DUMPS = """
SELECT count(*), coalesce(sum(ending = ?), 0), count(same_as), coalesce(sum(first_run = ?), 0)
FROM dumps
"""

_KERNELS = """
SELECT coalesce(k.release, 'unknown'), count(DISTINCT k.id), count(*),
    coalesce(sum(d.id IN (SELECT dump FROM findings WHERE severity = 'error')), 0),
    sum(d.ending <> 'judged')
FROM dumps d LEFT JOIN kernels k ON k.id = d.kernel
GROUP BY k.release ORDER BY k.release
"""

_FINDINGS = """
SELECT f.slug, f.severity, coalesce(k.release, 'unknown'), count(DISTINCT f.dump),
    CAST(total(f.pages) AS INTEGER),
    count(DISTINCT CASE WHEN f.first_run = ? THEN f.dump END)
FROM findings f JOIN dumps d ON d.id = f.dump LEFT JOIN kernels k ON k.id = d.kernel
GROUP BY f.slug, f.severity, k.release
ORDER BY f.severity = 'info', f.severity = 'warning', f.slug, k.release
"""

_BUGS = """
SELECT b.bug, coalesce(k.release, 'unknown'), count(DISTINCT b.dump)
FROM known_bugs b JOIN dumps d ON d.id = b.dump LEFT JOIN kernels k ON k.id = d.kernel
GROUP BY b.bug, k.release ORDER BY b.bug, k.release
"""

_DEVICE_BYTES = """
SELECT total(p.pages) * d.page_size
FROM dumps d LEFT JOIN pgmaps p ON p.dump = d.id
WHERE d.page_size IS NOT NULL GROUP BY d.id
"""

_FAILURES = "SELECT path, ending, reason FROM dumps WHERE ending <> 'judged' ORDER BY ending, path"

_KINDS = """
SELECT DISTINCT slug, severity, page_case FROM findings
WHERE dump IN (SELECT id FROM dumps WHERE seen_run >= ?)
"""

_SEEN = "SELECT count(*), coalesce(sum(ending <> 'judged'), 0) FROM dumps WHERE seen_run >= ?"


def _machines(connection: sqlite3.Connection) -> list[MachineCount]:
    sizes = [row[0] for row in connection.execute(_DEVICE_BYTES)]
    bounds = [(-1, 0), *zip(_SIZES, (*_SIZES[1:], None))]
    counts = [
        MachineCount(least, most, sum(least < n and (most is None or n <= most) for n in sizes))
        for least, most in bounds
    ]
    return [count for count in counts if count.dumps]


def kinds_found(connection: sqlite3.Connection, since: int) -> list[Finding]:
    """
    Get one finding of each kind, severity and case, at no particular PFN.

    :param since: Of the dumps that this run, or a later one, has seen.
    """
    return [
        Finding(slug, Severity(severity), Case(case), 0, 0, 0, "")
        for slug, severity, case in connection.execute(_KINDS, (since,))
    ]


def dumps_seen(connection: sqlite3.Connection, since: int) -> tuple[int, int]:
    """Count the dumps that a run or a later one has seen, and those that were not judged."""
    seen, not_judged = connection.execute(_SEEN, (since,)).fetchone()
    return seen, not_judged
