# SPDX-License-Identifier: LGPL-2.1-or-later
"""``scripts/bench``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.host.tools import find_tool

from .census import measure_census
from .claims import claims
from .devices import measure_devices
from .errors import BenchError
from .guest import Dumps, Image, affordable_gib, dumps_in
from .measure import Measurement, as_document, judge
from .metadata import measure_metadata
from .pages import measure_pages
from .processes import (
    measure_crash,
    measure_jobs,
    measure_memory,
    measure_start,
    measure_survey,
    measure_types,
)
from .ram import measure_large_ram, measure_ram
from .report import as_markdown, as_text, machine_facts

_ROOT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- begin of what scripts/bench wrote -->\n", "<!-- end -->\n"

PARTS = (
    *("pages", "ram", "census", "crash", "jobs", "start", "memory", "types"),
    *("metadata", "devices", "large-ram", "survey"),
)
# They are about the size of a dump, or the kernel's image in it, and --quick has exports.
_NOT_QUICK = ("ram", "census", "crash", "jobs", "types")
_PROGRAM_OF = {"crash": "crash", "jobs": "makedumpfile"}


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    rounds: int
    base_gib: int
    kdump_gib: int
    sizes: tuple[int, ...]
    pages: int
    sections: int
    device_gib: int
    ram_gib: int
    exports: int


_FULL = Options(
    rounds=7,
    base_gib=64,
    kdump_gib=256,
    sizes=(4, 16, 64),
    pages=20000,
    sections=1024,
    device_gib=1024,
    ram_gib=1024,
    exports=12,
)
_QUICK = Options(
    rounds=1,
    base_gib=0,
    kdump_gib=0,
    sizes=(1, 2),
    pages=500,
    sections=128,
    device_gib=16,
    ram_gib=16,
    exports=1,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a claim does not hold, 2 if a part cannot run."""
    args = _arguments(argv)
    try:
        _require_programs(args.parts)
        return _measure(args)
    except (BenchError, LabError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _require_programs(parts: Sequence[str]) -> None:
    missing = [
        f"{_PROGRAM_OF[part]} (for the part {part!r})"
        for part in parts
        if part in _PROGRAM_OF and not _is_installed(_PROGRAM_OF[part])
    ]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}: run ./scripts/setup bench")


def _is_installed(program: str) -> bool:
    try:
        find_tool(program)
    except LabError:
        return False
    return True


def _measure(args: argparse.Namespace) -> int:
    wanted = _options(args)
    measurements: list[Measurement] = []
    with _directory(args) as directory:
        options = wanted if args.kdump_gib else _affordable(wanted, directory)
        facts = {
            **machine_facts(),
            **dataclasses.asdict(options),
            "quick": args.quick,
            "notes": _notes(wanted, options),
        }
        with _dumps(args, options, directory) as dumps:
            for part, measure in _parts(dumps, options).items():
                if part in args.parts:
                    print(f"bench: {part}", file=sys.stderr, flush=True)
                    measurements += measure()
    judgements = judge(claims(options.sizes), measurements)
    print(as_text(facts, measurements, judgements))
    if args.json:
        document = as_document(facts, measurements, judgements)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.markdown:
        _update(args.markdown, as_markdown(facts, measurements, judgements))
    # Of all parts, nothing may be left open.
    failed = (False, None) if set(args.parts) == set(PARTS) else (False,)
    return int(any(j.holds in failed for j in judgements))


def _options(args: argparse.Namespace) -> Options:
    options = _QUICK if args.quick else _FULL
    return dataclasses.replace(
        options,
        rounds=args.rounds or options.rounds,
        base_gib=args.base_gib or options.base_gib,
        kdump_gib=args.kdump_gib or options.kdump_gib,
    )


def _affordable(options: Options, directory: Path) -> Options:
    gib = affordable_gib(directory, options.kdump_gib, options.base_gib)
    return dataclasses.replace(options, kdump_gib=gib)


def _notes(wanted: Options, options: Options) -> list[str]:
    if options.kdump_gib == wanted.kdump_gib:
        return []
    return [
        f"The large kdump has {options.kdump_gib} GiB of device memory instead of "
        f"{wanted.kdump_gib}, for which there is not enough RAM or room on the disk. The start, "
        "which two processes do not share, weighs more in it."
    ]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    possible = [part for part in PARTS if not (args.quick and part in _NOT_QUICK)]
    impossible = [part for part in args.parts if part not in possible]
    if impossible:
        parser.error(f"not a part here: {', '.join(impossible)}; there are {', '.join(possible)}")
    args.parts = args.parts or possible
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measure the plugin against its contenders, and hold the claims of "
        "docs/performance.md against that. Exit status 1 if one does not hold, 2 if a part "
        "cannot run.",
        allow_abbrev=False,
    )
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"tiny inputs, for a test of the bench itself; without {', '.join(_NOT_QUICK)}",
    )
    parser.add_argument("--rounds", metavar="N", type=_odd, help="an odd number")
    parser.add_argument(
        "--base-gib", metavar="N", type=int, help="device memory of the large guest (64)"
    )
    parser.add_argument(
        "--kdump-gib",
        metavar="N",
        type=int,
        help="device memory of the guest whose dump is compressed (256, or what there is room for)",
    )
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the dumps there")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all values there")
    parser.add_argument(
        "--markdown", metavar="FILE", type=_with_tables, help="update the tables in there"
    )
    return parser


def _with_tables(value: str) -> Path:
    # Found out before minutes of work are lost.
    try:
        text = Path(value).read_text(encoding="utf-8")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{value}: {error.strerror}") from error
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise argparse.ArgumentTypeError(f"{value} has no place for the tables: see {_BEGIN!r}")
    return Path(value)


def _odd(value: str) -> int:
    if not value.isdecimal() or not int(value) % 2:
        raise argparse.ArgumentTypeError(f"{value!r} is not an odd number")
    return int(value)


@contextmanager
def _directory(args: argparse.Namespace) -> Iterator[Path]:
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        yield args.keep
    else:
        with tempfile.TemporaryDirectory(prefix="zonedev-bench-") as directory:
            yield Path(directory)


@contextmanager
def _dumps(args: argparse.Namespace, options: Options, directory: Path) -> Iterator[Dumps]:
    if args.quick:
        with StoredDump(_ROOT / "vmcores" / "6.1-fsdax-collision").files() as files:
            image = Image(files / "vmcore", files / "vmlinux")
            yield Dumps(*(lambda: image,) * 5)
    else:
        yield dumps_in(directory, options.base_gib, options.kdump_gib)


def _parts(dumps: Dumps, options: Options) -> dict[str, Callable[[], list[Measurement]]]:
    rounds = options.rounds
    return {
        "pages": lambda: measure_pages(dumps.large(), rounds, options.pages),
        "ram": lambda: measure_ram(dumps.ram(), rounds),
        "census": lambda: measure_census(dumps.ram(), rounds),
        "crash": lambda: measure_crash(dumps.large(), 1),
        "jobs": lambda: measure_jobs(dumps, min(rounds, 5)),
        "start": lambda: measure_start(dumps.small(), rounds),
        "memory": lambda: measure_memory(
            {"large": dumps.large(), "small": dumps.small()}, min(rounds, 3)
        ),
        "types": lambda: measure_types(dumps.small(), rounds),
        "metadata": lambda: measure_metadata(options.sizes, rounds, options.sections),
        "devices": lambda: measure_devices(options.device_gib, rounds),
        "large-ram": lambda: measure_large_ram(options.ram_gib, min(rounds, 3)),
        "survey": lambda: measure_survey(_exports(options.exports), min(rounds, 3)),
    }


def _exports(number: int) -> list[Path]:
    return sorted((_ROOT / "vmcores").glob("*/"))[:number]


def _update(path: Path, tables: str) -> None:
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    path.write_text(f"{before}{_BEGIN}\n{tables}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
