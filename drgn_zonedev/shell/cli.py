# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``zonedev`` on the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import drgn

from drgn_zonedev.classification.missing_debuginfo import debug_info, what_is_missing
from drgn_zonedev.commands import COMMANDS, add_commands
from drgn_zonedev.commands.base import (
    STANDARD_OUTPUT,
    Command,
    Outcome,
    OutputError,
    Session,
    ShellCommand,
    Status,
    UsageError,
    discard_output,
    not_empty,
    print_text,
    standard_output,
)
from drgn_zonedev.commands.inputs import (
    OverwriteError,
    named_files,
    refuse_overwriting,
)
from drgn_zonedev.export.archive import ArchiveError
from drgn_zonedev.export.store import is_export, unpacked
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.opening.core import distrust_headers, open_core_unread, warn_if_damaged
from drgn_zonedev.opening.failures import INCOMPLETE, CannotJudgeError, CannotOpenError
from drgn_zonedev.opening.given_vmcoreinfo import read_vmcoreinfo
from drgn_zonedev.opening.live import open_live
from drgn_zonedev.opening.plugins import without_repl_plugins
from drgn_zonedev.opening.program_files import program_files
from drgn_zonedev.opening.symbol_search import BESIDE, Method, SymbolSearch, set_search
from drgn_zonedev.opening.symbols import index_symbols
from drgn_zonedev.opening.types import TypeChoice, load_types
from drgn_zonedev.shell.misplaced import (
    given_options,
    hint_of_rest,
    option_before_its_command,
)
from drgn_zonedev.util.output_files import output_file
from drgn_zonedev.util.parser import CommandParser
from drgn_zonedev.util.signals import ending_at_once
from drgn_zonedev.util.strings import printable

if TYPE_CHECKING:
    import socket


__all__ = ("main", "make_parser")

# What commands import when they run, most of which is numpy.
_READS = ("drgn_zonedev.classification.reading", "drgn_zonedev.render.as_text")
_CHECKS = (*_READS, "drgn_zonedev.report", "drgn_zonedev.verification.pool.scheduler")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``zonedev``; returns the exit status."""
    _have_output()
    args = _arguments(sys.argv[1:] if argv is None else argv)
    try:
        refuse_overwriting(args, named_files(args))
        status = _run(args).status
    except OverwriteError as e:
        _say_error(e)
        return int(Status.USAGE)
    except OutputError as e:
        # Python would complain once more when it flushes at exit.
        discard_output()
        return _complain(args, e, Status.USAGE)
    except (CannotOpenError, UsageError) as e:
        return _complain(args, e, Status.USAGE)
    except (CannotJudgeError, LabError) as e:
        return _complain(args, e, Status.NOT_JUDGED)
    except MemoryError:
        return _complain(args, _NO_MEMORY, Status.NOT_JUDGED)
    except LookupError as e:
        return _complain(args, f"{what_is_missing(e)}: {_WHOLE}", Status.NOT_JUDGED)
    except drgn.BadDataError as e:
        return _complain(args, e, Status.NOT_JUDGED)
    except drgn.ObjectAbsentError as e:
        return _complain(
            args, f"the debugging information is incomplete: {e}: {_WHOLE}", Status.NOT_JUDGED
        )
    except drgn.FaultError as e:
        message = f"a structure that everything depends on cannot be read: {e}: {INCOMPLETE}"
        return _complain(args, message, Status.NOT_JUDGED)
    except OSError as e:
        return _complain(args, f"reading memory fails: {e.strerror or e}", Status.NOT_JUDGED)
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        # drgn raises errors of libdw and libelf as plain Exception, and decodes each name.
        if type(e) in (Exception, UnicodeDecodeError):
            message = f"the debugging information is damaged: {e}: {_WHOLE}"
            return _complain(args, message, Status.NOT_JUDGED)
        import traceback

        # Python would exit with 1, which means findings here.
        traceback.print_exc()
        message = "this is a bug of zonedev: report it with the lines above"
        return _complain(args, message, Status.NOT_JUDGED)
    return int(status)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    if command := _only_command(words):
        # Making the parsers of all commands takes longer than most commands do.
        with contextlib.suppress(_NotParsedError):
            return _parse(_parser_of(command), words)
    return _parse(make_parser(), words)


def _only_command(words: Sequence[str]) -> str | None:
    """Find the command, unless more than one word may be it, or help is asked for."""
    commands = [word for word in words if word in COMMANDS]
    help_wanted = any(word == "--help" or _HAS_H.match(word) for word in words)
    return commands[0] if len(commands) == 1 and not help_wanted else None


_HAS_H = re.compile(r"-[^-]*h")


class _NotParsedError(Exception):
    """The parser of all commands knows what to say."""


class _OneCommandParser(CommandParser):
    def error(self, message: str) -> NoReturn:
        raise _NotParsedError


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    if misplaced := option_before_its_command(parser, words):
        parser.error(misplaced)
    args, rest = _parse_known(parser, words)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint_of_rest(parser, rest)}")
    if not hasattr(args, "command"):
        parser.error("give a COMMAND, such as check: zonedev --help lists them")
    if args.pause and not args.qemu:
        parser.error("--pause is for a guest: it needs --qemu")
    reads_none = isinstance(args.command, ShellCommand) and not args.command.opens_dumps
    if reads_none and (given := given_options(parser, args)):
        parser.error(f"this command does not read a program: remove {', '.join(given)}")
    return args


def _parse_known(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    try:
        return parser.parse_known_args(words)
    except SystemExit as e:
        # The output of --help and --version may still be in the buffer.
        if not e.code and not _is_flushed():
            raise SystemExit(int(Status.USAGE)) from None
        raise


def _is_flushed() -> bool:
    try:
        with standard_output() as f:
            f.flush()
    except OutputError as e:
        discard_output()
        _say_error(e)
        return False
    return True


def _have_output() -> None:
    # If a standard descriptor is closed, a file opened later would get its number.
    for descriptor in range(3):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDONLY if descriptor < 2 else os.O_WRONLY)
    # Opened for reading: writing the answer fails, unless -o names a file.
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _run(args: argparse.Namespace) -> Outcome:
    command: Command | ShellCommand = args.command
    if isinstance(command, ShellCommand):
        return command.run(args)
    if command.run_alone is not None and not (args.live or args.core or args.qemu):
        return command.run_alone(args, functools.partial(_opened_dump, args))
    with contextlib.ExitStack() as stack:
        monitor = stack.enter_context(_connect(args.qemu)) if args.qemu else None
        session = stack.enter_context(_opened(args, monitor))
        run = functools.partial(command.run, session, args)
        return _run_paused(run, args.qemu, monitor) if args.pause and monitor else run()


def _opened_dump(args: argparse.Namespace, path: str) -> contextlib.AbstractContextManager[Session]:
    selection = {**vars(args), "core": path, "live": False, "qemu": None}
    return _opened(argparse.Namespace(**selection), None)


@contextlib.contextmanager
def _opened(args: argparse.Namespace, monitor: socket.socket | None) -> Iterator[Session]:
    """Open what the options select, with its types, and say what is wrong with it."""
    with contextlib.ExitStack() as stack:
        choice = TypeChoice(args.types)
        files = stack.enter_context(_unpacked(args.core, args.symbols, choice))
        # A signal handler in Python does not interrupt drgn's C code.
        opening = ending_at_once if files.core == args.core else contextlib.nullcontext
        with opening(), without_repl_plugins():
            prog = _open(args, files, monitor)
        scan_all = None
        if hasattr(args, "jobs"):
            from drgn_zonedev.verification.pool.scanner import scanner

            scan_all = stack.enter_context(scanner(prog, args.jobs))
        if monitor:
            from drgn_zonedev.opening.guest import interruptible

            stack.enter_context(interruptible(monitor))
        with opening():
            set_search(prog, _symbol_search(args))
            load_types(prog, files.symbols, choice, files.names)
        refuse_overwriting(args, program_files(prog))
        index_symbols(prog, _READS if scan_all is None else _CHECKS)
        # Nothing has read memory yet, except to get types from it.
        distrust_headers(prog)
        with debug_info(), _odd_layouts_reported(prog):
            opener = functools.partial(_opened_dump, args)
            yield Session(prog, scan_all, opener, args.core or args.qemu)
        warn_if_damaged(prog, files.names.get(files.core or ""))


@contextlib.contextmanager
def _odd_layouts_reported(prog: drgn.Program) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise
    except _OF_ODD_LAYOUTS as e:
        from drgn_zonedev.classification.odd_layout import odd_member, odd_variable

        odd = odd_member(prog) or odd_variable(prog)
        if odd is None:
            raise
        message = f"no kernel has {odd} as the debugging information describes it: {_WHOLE}"
        raise CannotJudgeError(message) from e


def _connect(address: str) -> socket.socket:
    from drgn_zonedev.opening.guest import connect_guest

    return connect_guest(address)


def _run_paused(run: Callable[[], Outcome], address: str, monitor: socket.socket) -> Outcome:
    from drgn_zonedev.opening.guest import QmpError, paused

    # A slow reader of the output must not keep the guest stopped.
    printed = io.StringIO()
    is_paused = False
    try:
        with paused(monitor), contextlib.redirect_stdout(printed):
            is_paused = True
            outcome = run()
    except QmpError as e:
        if is_paused:
            raise CannotJudgeError(f"{address} is lost: {e}: see what QEMU says") from e
        raise CannotOpenError(f"cannot pause {address}: {e}: try without --pause") from e
    finally:
        print_text(printed.getvalue(), end="")
    return outcome


@dataclass(frozen=True)
class _Files:
    """The files to open; ``names`` are what messages call unpacked ones."""

    core: str | None
    symbols: list[str]
    names: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def _unpacked(core: str | None, symbols: list[str], choice: TypeChoice) -> Iterator[_Files]:
    # An export brings its own vmlinux.
    if core is None or not is_export(Path(core)):
        yield _Files(core, symbols)
        return
    if choice is TypeChoice.BTF and not symbols:
        raise CannotOpenError(
            f"{core} is an export, which has a vmlinux but no BTF: remove --types btf"
        )
    with contextlib.ExitStack() as stack:
        try:
            files = stack.enter_context(unpacked(Path(core)))
        except (ArchiveError, OSError) as e:
            raise CannotOpenError(_why_not_unpacked(core, e)) from e
        vmcore, vmlinux = files / "vmcore", files / "vmlinux"
        names = {str(file): f"{file.name} of {core}" for file in (vmcore, vmlinux)}
        yield _Files(
            str(vmcore),
            symbols or ([str(vmlinux)] if vmlinux.exists() else []),
            {} if files == Path(core) else names,
        )


def _why_not_unpacked(path: str, e: ArchiveError | OSError) -> str:
    if isinstance(e, ArchiveError):
        return f"cannot open {path}: {e}: copy it again, or export it once more"
    import tempfile

    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"there is no room for it in {tempfile.gettempdir()}"
        return f"cannot unpack {path}: {where}: make room, or set TMPDIR to another directory"
    return f"cannot unpack {path}: {e.strerror or e}: check its permissions and those of TMPDIR"


def _complain(args: argparse.Namespace, message: object, status: Status) -> int:
    _say_error(message)
    _replace_junit(args, printable(str(message)))
    return int(status)


def _say_error(message: object) -> None:
    print(f"zonedev: error: {printable(str(message))}", file=sys.stderr)


def _replace_junit(args: argparse.Namespace, message: str) -> None:
    # Otherwise a CI server would read the result of the last run.
    path = args.output if getattr(args, "format", None) == "junit" else getattr(args, "junit", None)
    if path in STANDARD_OUTPUT:
        return
    from drgn_zonedev.render.as_junit import error_junit

    with contextlib.suppress(OSError), output_file(path) as f:
        print(error_junit(message), file=f)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of ``zonedev``; completion and the manual page are made from it, too."""
    from drgn_zonedev.fleet.cli import add_survey_command
    from drgn_zonedev.lab.cli import add_lab_command
    from drgn_zonedev.shell.completion import add_completion_command
    from drgn_zonedev.shell.demo import add_demo_command
    from drgn_zonedev.shell.help import add_help_command
    from drgn_zonedev.util.tool_version import tool_version

    parser = _without_commands(CommandParser)
    versions = f"zonedev {tool_version()} (drgn {drgn.__version__})"
    parser.add_argument("--version", action="version", version=versions)
    subparsers = parser.add_subparsers(metavar="COMMAND")
    add_commands(subparsers)
    add_demo_command(subparsers)
    add_lab_command(subparsers)
    add_survey_command(subparsers)
    add_completion_command(subparsers, parser)
    add_help_command(subparsers, parser)
    return parser


def _parser_of(command: str) -> argparse.ArgumentParser:
    parser = _without_commands(_OneCommandParser)
    add_commands(parser.add_subparsers(metavar="COMMAND"), (command,))
    return parser


def _without_commands(make: type[CommandParser]) -> argparse.ArgumentParser:
    parser = make(
        prog="zonedev",
        description="Show what every page frame belongs to, and whether its struct page is "
        "initialised.",
        epilog="Exit status: 0 no findings, 1 findings (see check --fail-on), 2 wrong usage, or "
        "the program cannot be opened, 3 the program cannot be judged.",
        allow_abbrev=False,
    )
    group = parser.add_argument_group("program selection").add_mutually_exclusive_group()
    group.add_argument(
        "-k",
        "--kernel",
        # lab has a --kernel that takes a file.
        dest="live",
        action="store_true",
        help="debug the running kernel (default)",
    )
    group.add_argument(
        "-c",
        "--core",
        metavar="PATH",
        type=not_empty,
        help="debug the given core dump, or the given export",
    )
    group.add_argument(
        "--qemu",
        metavar="ADDRESS",
        type=not_empty,
        help="debug a QEMU guest over QMP: a Unix domain socket path or host:port",
    )
    parser.add_argument(
        "--pause",
        action="store_true",
        help="with --qemu: stop the guest while it is read; it resumes even if zonedev is killed",
    )
    parser.add_argument(
        "-s",
        "--symbols",
        metavar="PATH",
        action="append",
        type=not_empty,
        default=[],
        help="load debugging symbols from the given file (may be given more than once)",
    )
    _add_symbol_search(parser)
    parser.add_argument(
        "--types",
        choices=[choice.value for choice in TypeChoice],
        default=TypeChoice.AUTO.value,
        help="take types and symbols from vmlinux (dwarf), or from the kernel's own BTF and "
        "kallsyms (btf); default: vmlinux if there is one, otherwise BTF",
    )
    parser.add_argument(
        "--architecture",
        choices=[a.name.lower() for a in drgn.Architecture],
        metavar="ARCH",
        help="set the architecture, for a dump that does not record it",
    )
    parser.add_argument(
        "--vmcoreinfo",
        metavar="PATH",
        type=not_empty,
        help="read VMCOREINFO from the given file, instead of the program's own",
    )
    return parser


def _add_symbol_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search for debugging symbols, as drgn does")
    for word, enabled, what in (("try", True, "also search"), ("no", False, "do not search")):
        group.add_argument(
            f"--{word}-symbols-by",
            dest="symbol_methods",
            metavar="METHOD[,METHOD...]",
            action="append",
            type=functools.partial(_methods, enabled=enabled),
            default=[],
            help=f"{what} by this finder (standard, debuginfod, or beside: vmlinux in the "
            "directory of the core dump) or option of drgn (may be given more than once)",
        )
    for kind, what in (("debug", "debugging symbols"), ("kernel", "vmlinux and modules")):
        group.add_argument(
            f"--{kind}-directory",
            dest=f"{kind}_directories",
            metavar="PATH",
            action="append",
            type=not_empty,
            default=[],
            help=f"search for {what} in the given directory first (may be given more than once)",
        )


def _methods(text: str, *, enabled: bool) -> list[Method]:
    return [Method(name, enabled) for name in text.split(",")]


def _symbol_search(args: argparse.Namespace) -> SymbolSearch:
    methods = tuple(method for methods in args.symbol_methods for method in methods)
    if args.symbols:
        # A wrong -s is an error; the vmlinux beside the dump must not hide it.
        methods = (Method(BESIDE, enabled=False), *methods)
    return SymbolSearch(
        methods,
        tuple(args.debug_directories),
        tuple(args.kernel_directories),
    )


def _open(args: argparse.Namespace, files: _Files, monitor: socket.socket | None) -> drgn.Program:
    vmcoreinfo = None if args.vmcoreinfo is None else read_vmcoreinfo(args.vmcoreinfo)
    if files.core:
        return open_core_unread(
            files.core, args.architecture, files.names.get(files.core), vmcoreinfo
        )
    if monitor:
        from drgn_zonedev.opening.guest import open_guest

        return open_guest(args.qemu, monitor, vmcoreinfo)
    return open_live(vmcoreinfo)


_OF_ODD_LAYOUTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    TypeError,
    ValueError,
    drgn.OutOfBoundsError,
)
_NO_MEMORY = "out of memory: see ulimit -v"
_WHOLE = "give its complete vmlinux, with DWARF, with -s"


if __name__ == "__main__":
    sys.exit(main())
