# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Demonstration
-------------

``zonedev demo`` shows each of the five cases of the 2019 mail in the stored dumps of real
kernels, and a page that some of them panic of. It does not need root, QEMU or a download.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from drgn_zonedev.commands.base import (
    Outcome,
    ShellCommand,
    Status,
    UsageError,
    not_empty,
    not_empty_path,
    print_text,
)
from drgn_zonedev.export.archive import ArchiveError
from drgn_zonedev.export.store import EXPECTED, StoredDump, default_directory, stored_dumps
from drgn_zonedev.model import Case, Report, Severity
from drgn_zonedev.util.strings import printable

if TYPE_CHECKING:
    from drgn_zonedev.lab.scenarios import Expected

__all__ = ("add_demo_command",)

# The scenario that shows each case best.
_SHOWN = (
    (Case.OFFLINE, "hotplug-offline"),
    (Case.DEVICE, "fsdax-collision"),
    (Case.PARTIAL, "nvdimm-partial"),
    (Case.INITIALIZING, "init-in-flight"),
    (Case.RESERVED, "dirty-media"),
)

# Whose struct page says that it is in a zone that does not exist.
_NO_ZONE = "acpi-hole"

# Draw one picture only: more would scroll off the screen.
_DRAWN = Case.INITIALIZING


def add_demo_command(subparsers: Any) -> None:
    """Add ``demo`` to the result of ``ArgumentParser.add_subparsers()``."""
    parser = subparsers.add_parser(
        "demo",
        help="show the five cases in stored dumps of real kernels",
        description="Show the five cases of the 2019 mail in stored dumps of real kernels.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "kernel",
        metavar="KERNEL",
        type=not_empty,
        nargs="?",
        default="7.3",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--vmcores", metavar="DIR", type=not_empty_path, help="read the dumps from DIR"
    )
    parser.set_defaults(command=ShellCommand(_demo))


def _demo(args: argparse.Namespace) -> Outcome:
    dumps = _dumps(args)
    failed = 0
    for case, scenario in _SHOWN:
        dump = dumps.get(f"{args.kernel}-{scenario}")
        if dump is None:
            raise UsageError(f"there is no dump of {args.kernel}: {_kernels(dumps)}")
        failed += not _show(case, dump)
    last = dumps.get(f"{args.kernel}-{_NO_ZONE}")
    failed += last is not None and not _show_page(args.kernel, last)
    return Outcome(None, Status.FINDINGS if failed else Status.OK)


def _dumps(args: argparse.Namespace) -> dict[str, StoredDump]:
    directory = args.vmcores or default_directory()
    try:
        found = {dump.name: dump for dump in stored_dumps(directory)} if directory else {}
    except OSError as e:
        why = e.strerror or e
        raise UsageError(f"cannot look into {directory}: {why}: check --vmcores") from e
    if not found:
        raise UsageError("there are no dumps: give their directory with --vmcores")
    return found


def _kernels(names: Iterable[str]) -> str:
    suffix = f"-{_SHOWN[0][1]}"
    kernels = sorted(name[: -len(suffix)] for name in names if name.endswith(suffix))
    return f"choose one of {', '.join(kernels)}" if kernels else "give others with --vmcores"


def _show(case: Case, dump: StoredDump) -> bool:
    from drgn_zonedev.lab.verdict.compare import compare_ranges
    from drgn_zonedev.render.as_text import ranges_text
    from drgn_zonedev.report import check

    try:
        document = dump.expected()
        with dump.program() as prog:
            report = check(prog)
        summary, expected = _summary(document), _expected_ranges(document)
    except (ArchiveError, OSError, ValueError) as e:
        raise UsageError(f"{dump.path}: {e}: give other dumps with --vmcores") from e
    ranges = [r for r in report.ranges if r.case is case]
    print_text(f"\n===== case {case.number}, {case.value}: {printable(summary)} =====\n")
    if case is _DRAWN:
        print_text(f"{_map(report)}\n")
    print_text(ranges_text(report.kernel, ranges))
    for line in _findings(report, case):
        print_text(line)
    wrong = compare_ranges(report.ranges, expected)
    for line in wrong:
        print_text(f"NOT AS EXPECTED: {printable(line)}")
    return bool(ranges) and not wrong


def _show_page(kernel: str, dump: StoredDump) -> bool:
    from drgn_zonedev.explanation.explain import explain
    from drgn_zonedev.lab.scenarios import SCENARIOS
    from drgn_zonedev.render.cells import finding_line

    (pfn,) = SCENARIOS[_NO_ZONE].victims
    try:
        summary = _summary(dump.expected())
        with dump.program() as prog:
            explained = explain(prog, pfn)
    except (ArchiveError, LookupError, OSError, ValueError) as e:
        raise UsageError(f"{dump.path}: {e}: give other dumps with --vmcores") from e
    panics = any(walker.dies for walker in explained.walkers)
    what = f"this page panics {kernel}" if panics else "this page is in no zone"
    print_text(f"\n===== and {what}: {printable(summary)} =====\n")
    for finding in explained.findings:
        print_text(finding_line(finding))
    print_text(f"PFN {pfn:#x}: {explained.verdict}")
    found = any(finding.severity is Severity.ERROR for finding in explained.findings)
    if not found:
        print_text(f"NOT AS EXPECTED: the kernel is wrong at PFN {pfn:#x}, and no error says so")
    return found


def _summary(document: dict[str, Any]) -> str:
    summary = document.get("summary")
    if not isinstance(summary, str):
        raise ValueError(f"{EXPECTED} has no summary")
    return summary


def _expected_ranges(document: dict[str, Any]) -> list[Expected]:
    from drgn_zonedev.lab.scenarios import Expected

    rows = document.get("ranges")
    if not isinstance(rows, list) or not all(map(_is_range, rows)):
        raise ValueError(f"expected a start PFN, an end PFN and a case in each range of {EXPECTED}")
    return [Expected(*row) for row in rows]


def _is_range(row: object) -> bool:
    # isinstance() would accept a bool as an int.
    return isinstance(row, list) and [type(field) for field in row] == [int, int, str]


def _map(report: Report) -> str:
    from drgn_zonedev.render.picture.scene import make_scene
    from drgn_zonedev.render.picture.terminal import current_terminal, terminal_text
    from drgn_zonedev.render.screen import current_screen

    scene = make_scene(report.kernel, report.ranges, report.pgmaps, report.findings)
    return terminal_text(scene, current_terminal(), current_screen())


def _findings(report: Report, case: Case) -> Iterator[str]:
    from drgn_zonedev.render.cells import finding_line

    for finding in report.findings:
        if finding.case is case:
            yield finding_line(finding)
