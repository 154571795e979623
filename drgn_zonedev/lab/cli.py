# SPDX-License-Identifier: LGPL-2.1-or-later
"""``zonedev lab``: boot, arrange, check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drgn_zonedev.command import Outcome, Status, UsageError

if TYPE_CHECKING:
    from drgn import Program

    from . import Guest, Kernel, Scenario

__all__ = ("add_lab_command",)


def add_lab_command(subparsers: Any) -> None:
    """Add ``lab`` to the result of ``ArgumentParser.add_subparsers()``."""
    parser = subparsers.add_parser(
        "lab",
        help="boot a real kernel in QEMU, arrange a case, check it",
        description="Boot Debian kernels with ZONE_DEVICE memory in QEMU, and check them.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("list", help="show the kernels and scenarios")
    verb.set_defaults(run_lab=_list)
    verb = verbs.add_parser("fetch", help="download kernels and their symbols into the cache")
    verb.add_argument("names", metavar="KERNEL", nargs="+")
    verb.add_argument("--refresh", action="store_true", help="look for newer versions")
    verb.set_defaults(run_lab=_fetch)
    verb = verbs.add_parser("run", help="boot every KERNEL into every SCENARIO, and check it")
    verb.add_argument(
        "names", metavar="KERNEL|SCENARIO", nargs="*", help="default: 6.1, all scenarios"
    )
    verb.add_argument("--dump", metavar="DIR", help="keep an ELF dump of every guest there")
    verb.add_argument("-v", "--verbose", action="store_true", help="show all evidence")
    verb.set_defaults(run_lab=_run)


def _say(message: str) -> None:
    print(f"lab: {message}", file=sys.stderr, flush=True)


def _list(args: argparse.Namespace) -> Outcome:
    from . import KERNELS, SCENARIOS

    print("kernels:")
    for name, suite in KERNELS.items():
        print(f"  {name:6} Debian {suite.codename}")
    print("scenarios:")
    for scenario in SCENARIOS.values():
        print(f"  {scenario.name:16} {scenario.summary}")
    return Outcome(None)


def _fetch(args: argparse.Namespace) -> Outcome:
    from . import fetch_kernel

    for name in args.names:
        kernel = fetch_kernel(name, refresh=args.refresh, progress=_say)
        print(f"{name}: {kernel.release}, symbols in {kernel.vmlinux}")
    return Outcome(None)


def _run(args: argparse.Namespace) -> Outcome:
    from . import SCENARIOS, fetch_kernel

    names, scenarios = _split(args.names)
    statuses = []
    for name in names or ["6.1"]:
        kernel = fetch_kernel(name, progress=_say)
        for scenario in scenarios or SCENARIOS.values():
            statuses.append(_run_one(kernel, scenario, args))
    return Outcome(None, max(statuses))


def _split(words: Sequence[str]) -> tuple[list[str], list[Scenario]]:
    from . import KERNELS, SCENARIOS

    unknown = [w for w in words if w not in KERNELS and w not in SCENARIOS]
    if unknown:
        raise UsageError(f"no kernel or scenario is called {unknown[0]!r}: see zonedev lab list")
    return [w for w in words if w in KERNELS], [SCENARIOS[w] for w in words if w in SCENARIOS]


def _run_one(kernel: Kernel, scenario: Scenario, args: argparse.Namespace) -> Status:
    from drgn_zonedev.model import Severity
    from drgn_zonedev.render.as_text import report_text
    from drgn_zonedev.report import check

    from . import boot

    with boot(kernel, scenario, progress=_say) as guest:
        if args.dump:
            _dump(guest, args.dump)
        report = check(open_guest(guest))
    print(f"\n===== {scenario.name}: {scenario.summary} =====\n")
    print(report_text(report, verbose=args.verbose), flush=True)
    wrong = any(f.severity is Severity.ERROR for f in report.findings)
    return Status.FINDINGS if wrong else Status.OK


def _dump(guest: Guest, directory: str) -> None:
    from pathlib import Path

    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    dump = guest.dump(path / f"{guest.kernel.name}-{guest.scenario.name}.elf")
    _say(f"{dump}: open it with zonedev -c {dump} -s {guest.kernel.vmlinux} check")


def open_guest(guest: Guest) -> Program:
    """Debug a guest over QMP with its kernel's symbols."""
    import drgn

    prog = drgn.Program()
    prog.set_qemu_qmp(guest.qmp_socket)
    prog.load_debug_info([guest.kernel.vmlinux])
    return prog
