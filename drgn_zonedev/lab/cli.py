# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``zonedev lab``: boot, arrange, check.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drgn_zonedev.commands.base import (
    Outcome,
    ShellCommand,
    Status,
    UsageError,
    not_empty_path,
    print_text,
)
from drgn_zonedev.commands.inputs import OverwriteError, refuse_overwriting
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.util.output_files import identities, is_one_of, output_file
from drgn_zonedev.util.parser import Argument, add_arguments

if TYPE_CHECKING:
    from drgn_zonedev.lab.kernels.known import Kernel
    from drgn_zonedev.lab.scenarios import Scenario
    from drgn_zonedev.lab.verdict.matrix import Cell

__all__ = ("add_lab_command",)

# The most reports that are printed without being asked for.
_FEW = 4


def add_lab_command(subparsers: Any) -> None:
    """Add ``lab`` to the result of ``ArgumentParser.add_subparsers()``."""
    parser = subparsers.add_parser(
        "lab",
        help="boot a real kernel in QEMU, set up a case, and check it",
        description="Boot Debian kernels with ZONE_DEVICE memory in QEMU, and check them.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, run, what, arguments in _VERBS:
        verb = verbs.add_parser(name, help=what)
        add_arguments(verb, arguments)
        verb.set_defaults(command=ShellCommand(run))
    for name in ("run", "walk", "shell"):
        group = verbs.choices[name].add_argument_group("a kernel of your own, instead of KERNEL")
        add_arguments(group, _OWN_KERNEL)


def _kernel_names() -> list[str]:
    from drgn_zonedev.lab.kernels.known import ALL_KERNELS, BUILT_KERNELS

    return [*ALL_KERNELS, *BUILT_KERNELS]


def _built_names() -> list[str]:
    from drgn_zonedev.lab.kernels.known import BUILT_KERNELS

    return list(BUILT_KERNELS)


def _kernel_and_scenario_names() -> list[str]:
    from drgn_zonedev.lab.scenarios import SCENARIOS

    return [*_kernel_names(), *SCENARIOS]


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive number")
    return int(value)


def _say(message: str) -> None:
    print(f"lab: {message}", file=sys.stderr, flush=True)


def _list(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.kernels.known import (
        ARM64_KERNELS,
        BUILT_KERNELS,
        KERNELS,
        PLAIN_KERNELS,
        PPC64EL_KERNELS,
        UNFIXED_KERNELS,
    )
    from drgn_zonedev.lab.verdict.matrix import scenarios_of

    print_text("kernels:")
    for kernels, what in (
        (KERNELS, ""),
        (PLAIN_KERNELS, ", configured for any machine"),
        (UNFIXED_KERNELS, " without security updates: has a bug to find"),
    ):
        for name, suite in kernels.items():
            print_text(f"  {name:16} Debian {suite.codename}{what}")
    for name, recipe in BUILT_KERNELS.items():
        made = f"{recipe.summary}: lab build-kernel"
        print_text(f"  {name:16} Debian {recipe.suite.codename} {made}")
    for name, suite in {**ARM64_KERNELS, **PPC64EL_KERNELS}.items():
        made = f"for {suite.architecture}, flavour {suite.flavour}"
        print_text(f"  {name:16} Debian {suite.codename} {made}")
    print_text("scenarios:")
    _list_scenarios(scenarios_of("amd64").values())
    for architecture in ("arm64", "ppc64el"):
        print_text(f"scenarios of {architecture}:")
        _list_scenarios(scenarios_of(architecture).values())
    return Outcome(None)


def _list_scenarios(scenarios: Iterable[Scenario]) -> None:
    for scenario in scenarios:
        print_text(f"  {scenario.name:16} {scenario.summary}")
        for why in dict.fromkeys(scenario.impossible.values()):
            kernels = [name for name, reason in scenario.impossible.items() if reason == why]
            print_text(f"  {'':16} not {', '.join(kernels)}: {why}")


def _fetch(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.kernels.fetch import fetch_kernel

    known = _kernel_names()
    if unknown := [name for name in args.names if name not in known]:
        raise UsageError(f"no kernel is called {unknown[0]!r}: choose among {', '.join(known)}")
    for name in args.names:
        kernel = fetch_kernel(name, refresh=args.refresh, progress=_say)
        print_text(f"{name}: {kernel.release}, symbols in {kernel.vmlinux}")
    return Outcome(None)


def _build_kernel(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.kernels.build import build_kernels

    known = _built_names()
    if unknown := [name for name in args.names if name not in known]:
        raise UsageError(
            f"no kernel that is built here is called {unknown[0]!r}: "
            f"choose among {', '.join(known)}"
        )
    names = args.names or known
    for kernel in build_kernels(names, jobs=args.jobs, refresh=args.refresh, progress=_say):
        print_text(f"{kernel.name}: {kernel.release}, symbols in {kernel.vmlinux}")
    return Outcome(None)


def _run(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.machine.boot import check_host
    from drgn_zonedev.lab.verdict import matrix_results as results

    refuse_overwriting(args, _cached_directories(args.names))
    # Do this first: it must not fail after a long run, nor leave old results in place.
    for path in filter(None, (args.junit, args.json)):
        _write(path, "")
    for directory in filter(None, (args.dump, args.export)):
        _make_directory(directory)
    check_host(_architecture(args))
    kernels, scenarios = _chosen(args)
    _refuse_dumps_over(kernels, scenarios, args.dump)
    cells = _run_all(kernels, scenarios, args)
    if len(cells) > 1:
        print_text(f"\n{results.matrix_text(cells)}")
    if args.junit:
        _write(args.junit, results.junit_xml(cells))
    if args.json:
        _write(args.json, results.results_json(cells))
    return Outcome(cells, _status(cells))


def _cached_directories(names: Sequence[str]) -> Iterator[Path]:
    # Their files are known by them: modules are ten thousands.
    from drgn_zonedev.lab.kernels.known import ALL_KERNELS, kernel_dir

    for name in [name for name in names if name in ALL_KERNELS] or ALL_KERNELS:
        for directory, below, _ in os.walk(kernel_dir(name)):
            yield Path(directory)
            links = (os.path.join(directory, each) for each in below)
            yield from (Path(link) for link in links if os.path.islink(link))


def _refuse_dumps_over(
    kernels: Sequence[Kernel], scenarios: Sequence[Scenario], directory: Path | None
) -> None:
    from drgn_zonedev.lab.verdict.matrix import dump_name

    read = [path for k in kernels for path in (k.vmlinuz, k.vmlinux, k.system_map) if path]
    known = identities(read)
    for kernel in kernels if directory else ():
        for scenario in scenarios:
            path = (directory or Path()) / dump_name(kernel, scenario)
            if is_one_of(path, known):
                raise OverwriteError(
                    f"{path} is an input, which --dump would overwrite: choose another place"
                )


def _run_all(
    kernels: Sequence[Kernel], scenarios: Sequence[Scenario], args: argparse.Namespace
) -> list[Cell]:
    from drgn_zonedev.lab.verdict import matrix_results as results
    from drgn_zonedev.lab.verdict.matrix import MatrixOptions, default_jobs, run_matrix

    count = len(kernels) * len(scenarios)
    options = MatrixOptions(args.accel, args.dump, args.export, truth=args.truth, progress=_say)
    jobs = min(args.jobs or default_jobs(), count)
    cells = []
    with closing(run_matrix(kernels, scenarios, options=options, jobs=jobs)) as done:
        for cell in done:
            cells.append(cell)
            _say(f"[{len(cells)}/{count}] {results.line_text(cell)}")
            _show(cell, args, few=count <= _FEW)
    if any(_is_without_modules(cell) for cell in cells):
        _say("without --modules, the kernel must have every driver built in: see docs/lab.md")
    return cells


def _is_without_modules(cell: Cell) -> bool:
    from drgn_zonedev.lab.verdict.matrix import CellVerdict

    return cell.verdict is CellVerdict.NOT_POSSIBLE and cell.kernel.modules is None


def _show(cell: Cell, args: argparse.Namespace, few: bool) -> None:
    from drgn_zonedev.lab.verdict import matrix_results as results
    from drgn_zonedev.lab.verdict.matrix import CellVerdict
    from drgn_zonedev.render.as_text import report_text

    if cell.report and (few or args.verbose):
        print_text(f"\n===== {cell.scenario.name}: {cell.scenario.summary} =====\n")
        print_text(report_text(cell.report, verbose=args.verbose))
    if cell.verdict in (CellVerdict.DIFFERS, CellVerdict.FAILED):
        for detail in cell.details:
            _say(results.ascii_only(f"  {detail}"))


def _write(path: Path, text: str) -> None:
    try:
        with output_file(path) as f:
            f.write(text)
    except OSError as e:
        raise UsageError(f"cannot write {path}: {e.strerror}: choose another place") from e


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Only writing a file shows whether the directory is writable.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise UsageError(f"cannot write {path}: {e.strerror}: choose another place") from e


def _status(cells: Sequence[Cell]) -> Status:
    from drgn_zonedev.lab.verdict.matrix import CellVerdict

    verdicts = {cell.verdict for cell in cells}
    if CellVerdict.DIFFERS in verdicts:
        return Status.FINDINGS
    if CellVerdict.FAILED in verdicts or CellVerdict.AGREES not in verdicts:
        return Status.NOT_JUDGED
    return Status.OK


def _chosen(args: argparse.Namespace) -> tuple[list[Kernel], list[Scenario]]:
    from drgn_zonedev.lab.kernels.fetch import fetch_kernel
    from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, KERNELS, PPC64EL_KERNELS
    from drgn_zonedev.lab.verdict.matrix import scenarios_of

    architecture = _architecture(args)
    catalogue = scenarios_of(architecture)
    names, scenarios = _split(args.names, catalogue)
    if args.kernel or args.vmlinux or args.modules or args.system_map:
        if architecture != "amd64":
            raise UsageError("your own kernel must be for amd64: remove --arch")
        kernels = [_own(args, names)]
    else:
        usual = {"amd64": KERNELS, "arm64": ARM64_KERNELS, "ppc64el": PPC64EL_KERNELS}
        names = names or list(usual[architecture])
        kernels = [fetch_kernel(name, progress=_say) for name in names]
    return kernels, scenarios or list(catalogue.values())


def _architecture(args: argparse.Namespace) -> str:
    from drgn_zonedev.lab.kernels.known import suite_of

    named = {suite_of(word).architecture for word in args.names if word in _kernel_names()}
    if args.arch:
        named.add(args.arch)
    if len(named) > 1:
        raise UsageError(f"kernels of {' and '.join(sorted(named))}: run them one after the other")
    return str(named.pop()) if named else "amd64"


def _own(args: argparse.Namespace, names: Sequence[str]) -> Kernel:
    from drgn_zonedev.lab.kernels.custom_kernel import custom_kernel

    if names:
        raise UsageError(f"both {names[0]} and a kernel of your own are given: choose one of them")
    if not (args.kernel and args.vmlinux):
        raise UsageError("a kernel of your own needs both --kernel BZIMAGE and --vmlinux FILE")
    try:
        return custom_kernel(args.kernel, args.vmlinux, args.modules, args.system_map)
    except LabError as e:
        raise UsageError(str(e)) from e


def _split(
    words: Sequence[str], catalogue: Mapping[str, Scenario]
) -> tuple[list[str], list[Scenario]]:
    from drgn_zonedev.lab.kernels.known import ALL_KERNELS, BUILT_KERNELS

    known = (*ALL_KERNELS, *BUILT_KERNELS)
    if unknown := [w for w in words if w not in known and w not in catalogue]:
        raise UsageError(f"no kernel or scenario is called {unknown[0]!r}: see zonedev lab list")
    words = list(dict.fromkeys(words))
    return [w for w in words if w in known], [catalogue[w] for w in words if w in catalogue]


def _walk(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.machine.boot import check_host
    from drgn_zonedev.lab.verdict.trials import TRIALS, run_trial, trial_text

    check_host(_architecture(args))
    kernels, scenarios = _chosen(args)
    names = [s.name for s in scenarios if s.name in TRIALS or len(scenarios) < _FEW]
    status = Status.OK
    for kernel in kernels:
        for name in names:
            trial = run_trial(kernel, name, accel=args.accel, progress=_say)
            print_text(trial_text(trial, verbose=args.verbose))
            if trial.disagreements:
                status = Status.FINDINGS
    return Outcome(None, status)


def _shell(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.lab.machine.boot import boot
    from drgn_zonedev.lab.shell import run_shell
    from drgn_zonedev.lab.verdict.matrix import scenarios_on

    kernels, scenarios = _chosen(args)
    if len(kernels) != 1 or len(scenarios) != 1:
        raise UsageError(
            f"shell takes one kernel and one scenario, not {' '.join(args.names)}: "
            "see zonedev lab list"
        )
    scenario = scenarios[0]
    if kernels[0].architecture != "amd64":
        scenario = scenarios_on(kernels[0])[scenario.name]
    with boot(kernels[0], scenario, accel=args.accel, progress=_say) as guest:
        run_shell(guest)
    return Outcome(None)


_KERNEL = (
    Argument(
        "--arch",
        choices=("amd64", "arm64", "ppc64el"),
        help="default: that of the given kernels, otherwise amd64",
    ),
    Argument("--accel", choices=("tcg", "kvm", "auto"), default="tcg", help="default: %(default)s"),
)
_OWN_KERNEL = (
    Argument("--kernel", metavar="BZIMAGE", type=not_empty_path),
    Argument("--vmlinux", metavar="FILE", type=not_empty_path, help="with debugging symbols"),
    Argument(
        "--modules",
        metavar="DIR",
        type=not_empty_path,
        help="lib/modules/RELEASE, or INSTALL_MOD_PATH of make modules_install "
        "(default: everything is built in)",
    ),
    Argument(
        "--system-map", metavar="FILE", type=not_empty_path, help="default: the symbols in vmlinux"
    ),
)
_VERBS: tuple[
    tuple[str, Callable[[argparse.Namespace], Outcome], str, tuple[Argument, ...]], ...
] = (
    ("list", _list, "show the kernels and scenarios", ()),
    (
        "fetch",
        _fetch,
        "download kernels and their symbols into the cache",
        (
            Argument("names", metavar="KERNEL", nargs="+", candidates=_kernel_names),
            Argument("--refresh", action="store_true", help="look for newer versions"),
        ),
    ),
    (
        "build-kernel",
        _build_kernel,
        "build kernels with changes of ours (a quarter of an hour for each source)",
        (
            Argument(
                "names",
                metavar="KERNEL",
                nargs="*",
                help="default: all of them",
                candidates=_built_names,
            ),
            Argument("-j", "--jobs", metavar="N", type=_positive, help="default: processors"),
            Argument("--refresh", action="store_true", help="look for newer source"),
        ),
    ),
    (
        "run",
        _run,
        "boot every KERNEL into every SCENARIO, and check it",
        (
            Argument(
                "names",
                metavar="KERNEL|SCENARIO",
                nargs="*",
                help="default: all kernels, all scenarios",
                candidates=_kernel_and_scenario_names,
            ),
            Argument(
                "-j",
                "--jobs",
                metavar="N",
                type=_positive,
                help="guests at a time (default: what fits)",
            ),
            Argument("--junit", metavar="FILE", type=not_empty_path, help="write JUnit XML there"),
            Argument("--json", metavar="FILE", type=not_empty_path, help="write all reports there"),
            Argument(
                "--dump",
                metavar="DIR",
                type=not_empty_path,
                help="keep an ELF dump of every guest there",
            ),
            Argument(
                "--export",
                metavar="DIR",
                type=not_empty_path,
                help="keep a small export of every guest there, some ten kilobytes each, which "
                "needs no vmlinux",
            ),
            Argument(
                "--truth",
                action="store_true",
                help="ask each kernel itself about every PFN, with a module that is built for it",
            ),
            Argument("-v", "--verbose", action="store_true", help="show all reports and evidence"),
            *_KERNEL,
        ),
    ),
    (
        "walk",
        _walk,
        "run PFN walkers of real kernels on bad pages, and compare with the prediction",
        (
            Argument(
                "names",
                metavar="KERNEL|SCENARIO",
                nargs="*",
                help="default: all kernels, all trials",
                candidates=_kernel_and_scenario_names,
            ),
            Argument("-v", "--verbose", action="store_true", help="show what the kernel printed"),
            *_KERNEL,
        ),
    ),
    (
        "shell",
        _shell,
        "boot one kernel into one scenario, and start drgn on it",
        (
            Argument(
                "names",
                metavar="KERNEL SCENARIO",
                nargs="+",
                candidates=_kernel_and_scenario_names,
            ),
            *_KERNEL,
        ),
    ),
)
