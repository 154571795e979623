# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev survey``: many dumps, one answer."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
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
from drgn_zonedev.commands.check import FAIL_ON, fails
from drgn_zonedev.commands.inputs import refuse_overwriting
from drgn_zonedev.model import MemoryKind
from drgn_zonedev.util.output_files import output_file
from drgn_zonedev.util.parser import Argument, add_arguments
from drgn_zonedev.util.strings import printable

if TYPE_CHECKING:
    import sqlite3

    from drgn_zonedev.fleet.check_alone import Checked, Limits
    from drgn_zonedev.fleet.find import Found
    from drgn_zonedev.fleet.run import Engine, SurveyQuestion

__all__ = ("add_survey_command",)

_REPORT = "report"
_HOUR = 3600.0
_SIZE = re.compile(r"(\d+)([KMGT]?)", re.IGNORECASE)
_UNITS = "KMGT"


def add_survey_command(subparsers: Any) -> None:
    """Add ``survey`` to the result of ``ArgumentParser.add_subparsers()``."""
    parser = subparsers.add_parser(
        "survey",
        help="check many dumps, each in a process of its own, and report on all of them",
        description="Check every dump of a kernel in PATH, keep the results in a store, and "
        "report on all of them. `survey report` reports on what is in the store.",
        allow_abbrev=False,
    )
    add_arguments(parser, _ARGUMENTS)
    parser.set_defaults(command=ShellCommand(_survey, opens_dumps=True))


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = (
        int(match[1]) << 10 * (_UNITS.find(match[2].upper()) + 1 if match[2] else 0) if match else 0
    )
    if not 0 < size < 1 << 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 500M or 2G")
    return size


_ARGUMENTS = (
    Argument(
        "paths",
        metavar="PATH",
        type=not_empty,
        nargs="+",
        help="a dump, a directory, a pattern, or @FILE, which lists these one per line; or only "
        "the word report",
    ),
    Argument(
        "--store",
        metavar="FILE",
        type=not_empty_path,
        default=Path("survey.db"),
        help="SQLite database of the results (default: %(default)s)",
    ),
    Argument(
        "-j",
        "--jobs",
        metavar="N",
        type=_jobs,
        help="check N dumps at a time (default: processors)",
    ),
    Argument(
        "--dask",
        metavar="ADDRESS",
        type=not_empty,
        help="have the workers of a Dask cluster check the dumps, whose scheduler is at ADDRESS; "
        "local starts one here",
    ),
    Argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=_HOUR,
        help="stop the check of a dump after this time (default: an hour)",
    ),
    Argument(
        "--memory",
        metavar="SIZE",
        type=_size,
        help="limit the memory that the check of a dump takes, such as 2G (default: an equal "
        "share of what this machine has)",
    ),
    Argument(
        "--only",
        choices=[kind.value for kind in MemoryKind],
        help="verify only the memory of devices, or only RAM",
    ),
    FAIL_ON,
    Argument(
        "--html",
        metavar="FILE",
        type=not_empty,
        help="write the report there, too, as one file with a section for each dump",
    ),
    Argument(
        "--export",
        metavar="FORMAT",
        choices=("jsonl", "parquet"),
        help="write the tables of the store as files, too: jsonl, or parquet (needs pyarrow)",
    ),
    Argument(
        "--into",
        metavar="DIR",
        type=not_empty_path,
        help="the directory of --export (default: survey-FORMAT)",
    ),
)


def _survey(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.fleet.cluster import ClusterError
    from drgn_zonedev.fleet.store import StoreError

    if args.core or args.live or args.qemu:
        raise UsageError("survey takes its dumps as arguments: remove -c, -k or --qemu")
    try:
        if args.paths == [_REPORT]:
            return _report(args)
        return _check_all(args)
    except (ClusterError, StoreError) as e:
        raise UsageError(str(e)) from e


def _report(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.fleet.store import opened_store

    with opened_store(args.store, create=False) as store:
        return _answer(store.connection, args, since=0)


def _check_all(args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.fleet.find import find_dumps
    from drgn_zonedev.fleet.run import run
    from drgn_zonedev.fleet.store import opened_store

    dumps = _some(find_dumps(args.paths, _complain))
    jobs = args.jobs or len(os.sched_getaffinity(0))
    question = _question(args, jobs)
    with contextlib.ExitStack() as stack:
        engine, ahead = stack.enter_context(_engine(args, jobs, question.limits))
        store = stack.enter_context(opened_store(args.store, create=True))
        progress = stack.enter_context(_progress())
        number = run(dumps, store, question, engine, ahead, progress)
        return _answer(store.connection, args, since=number)


@contextlib.contextmanager
def _engine(args: argparse.Namespace, jobs: int, limits: Limits) -> Iterator[tuple[Engine, int]]:
    if not args.dask:
        from drgn_zonedev.fleet.check_alone import check_alone

        yield check_alone, jobs
        return
    from drgn_zonedev.fleet.cluster import connected_cluster

    with connected_cluster(args.dask, jobs, limits) as cluster:
        _complain(f"the cluster's dashboard is at {cluster.dashboard}")
        yield cluster.engine, cluster.ahead


def _some(dumps: Iterator[Found]) -> Iterable[Found]:
    # Before a store is made.
    first = next(dumps, None)
    if first is None:
        raise UsageError("no dump of a kernel was found: give other paths")
    return itertools.chain((first,), dumps)


def _complain(message: str) -> None:
    print(f"zonedev: {printable(message)}", file=sys.stderr)


def _question(args: argparse.Namespace, jobs: int) -> SurveyQuestion:
    from drgn_zonedev.fleet.check_alone import Limits
    from drgn_zonedev.fleet.cluster import versions_here
    from drgn_zonedev.fleet.run import SurveyQuestion

    memory = args.memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jobs
    return SurveyQuestion(
        arguments=tuple(_program_arguments(args)),
        options=("--only", args.only) if args.only else (),
        versions=versions_here(),
        limits=Limits(args.timeout, memory),
    )


def _program_arguments(args: argparse.Namespace) -> Iterator[str]:
    for option, paths in (
        ("-s", args.symbols),
        ("--debug-directory", args.debug_directories),
        ("--kernel-directory", args.kernel_directories),
        ("--vmcoreinfo", (args.vmcoreinfo,) if args.vmcoreinfo else ()),
    ):
        for path in paths:
            yield from (option, os.path.abspath(path))
    for methods in args.symbol_methods:
        for method in methods:
            yield from method.option.split(" ", 1)
    yield from ("--types", args.types)
    if args.architecture:
        yield from ("--architecture", args.architecture)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield lambda found, checked: None
        return
    from tqdm import tqdm

    with tqdm(unit=" dumps", leave=False, file=sys.stderr, desc="survey") as bar:

        def show(found: Found, checked: Checked | None) -> None:
            bar.update()

        yield show


def _answer(connection: sqlite3.Connection, args: argparse.Namespace, since: int) -> Outcome:
    from drgn_zonedev.fleet.summarise import dumps_seen, kinds_found, summarise
    from drgn_zonedev.fleet.summary_text import summary_text

    summary = summarise(connection)
    print_text(summary_text(summary))
    if args.html:
        _write_html(connection, args)
    if args.export:
        _export(connection, args.export, args.into or Path(f"survey-{args.export}"))
    seen, not_judged = dumps_seen(connection, since)
    if any(fails(finding, args.fail_on) for finding in kinds_found(connection, since)):
        return Outcome(summary, Status.FINDINGS)
    if not seen:
        raise UsageError(f"there is no dump in {args.store}: zonedev survey PATH checks some")
    return Outcome(summary, Status.NOT_JUDGED if not_judged else Status.OK)


def _write_html(connection: sqlite3.Connection, args: argparse.Namespace) -> None:
    from drgn_zonedev.fleet.summary_html import write_html

    dumps = (os.fsdecode(row[0]) for row in connection.execute("SELECT location FROM dumps"))
    refuse_overwriting(args, [args.store, *map(Path, dumps)])
    try:
        with output_file(args.html) as f:
            write_html(connection, f)
    except OSError as e:
        raise UsageError(f"cannot write {args.html}: {e.strerror}: choose another place") from e


def _export(connection: sqlite3.Connection, form: str, target: Path) -> None:
    from drgn_zonedev.fleet.exported_tables import MissingPyarrowError, export_tables

    try:
        export_tables(connection, form, target)
    except MissingPyarrowError as e:
        raise UsageError(str(e)) from e
    except OSError as e:
        raise UsageError(f"cannot write {target}: {e.strerror or e}: give another --into") from e
