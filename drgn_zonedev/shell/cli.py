# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``zonedev`` on the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import drgn

from drgn_zonedev.classification.missing_debuginfo import debug_info, what_lacks
from drgn_zonedev.commands import add_commands
from drgn_zonedev.commands.base import (
    Outcome,
    OutputError,
    Status,
    UsageError,
    discard_output,
    print_text,
)
from drgn_zonedev.export.archive import ArchiveError
from drgn_zonedev.export.store import is_export, unpacked
from drgn_zonedev.lab.cli import add_lab_command
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.shell.completion import add_completion_command
from drgn_zonedev.shell.demo import add_demo_command
from drgn_zonedev.util.signals import held_back
from drgn_zonedev.util.strings import c_string, printable
from drgn_zonedev.vmcore.kdump import lacks_its_bitmaps

if TYPE_CHECKING:
    from drgn_zonedev.verification.scan import ScanAll

__all__ = ("main", "make_parser")


class _CannotOpen(Exception):
    """The program that was asked for cannot be debugged; says what to do about it."""


class _CannotJudge(Exception):
    """The program can be opened, but what is known of it is not enough."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``zonedev``; returns the exit status."""
    _have_output()
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_misplaced(parser, rest)}")
    if not hasattr(args, "run") and not hasattr(args, "run_alone"):
        parser.error("give a COMMAND, such as check: zonedev --help lists them")
    if args.pause and not args.qemu:
        parser.error("--pause is for a guest: it needs --qemu")
    try:
        status = _run(args).status
    except OutputError as e:
        # Python would complain once more when it flushes at exit.
        discard_output()
        return _complain(args, e, Status.USAGE)
    except (_CannotOpen, UsageError) as e:
        return _complain(args, e, Status.USAGE)
    except (_CannotJudge, LabError) as e:
        return _complain(args, e, Status.NOT_JUDGED)
    except LookupError as e:
        return _complain(args, f"{what_lacks(e)}: {_WHOLE}", Status.NOT_JUDGED)
    except drgn.BadDataError as e:
        return _complain(args, e, Status.NOT_JUDGED)
    except drgn.FaultError as e:
        message = f"what everything else depends on is not readable: {e}: {_INCOMPLETE}"
        return _complain(args, message, Status.NOT_JUDGED)
    except OSError as e:
        return _complain(args, f"reading memory fails: {e.strerror or e}", Status.NOT_JUDGED)
    except KeyboardInterrupt:
        return 130
    except Exception:
        # Python's own status for it means that something was found.
        traceback.print_exc()
        message = "this is a bug of zonedev: report it with the lines above"
        return _complain(args, message, Status.NOT_JUDGED)
    return int(status)


def _have_output() -> None:
    # Whoever closed one of them wants to see nothing.
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _misplaced(parser: argparse.ArgumentParser, rest: Sequence[str]) -> str:
    if "--drgn" in rest:
        return ": it is for %zonedev, in drgn's REPL"
    # Much used with a dump: `zonedev check -c vmcore`.
    if any(word.partition("=")[0] in parser._option_string_actions for word in rest):
        return ": what says which program is meant comes before the command"
    return ""


def _run(args: argparse.Namespace) -> Outcome:
    # Commands that debug nothing set run_alone, all others run.
    if hasattr(args, "run_alone"):
        outcome: Outcome = args.run_alone(args)
    else:
        with contextlib.ExitStack() as stack:
            _unpack(args, stack)
            args.monitor = stack.enter_context(_connect(args.qemu)) if args.qemu else None
            prog = _open(args)
            if hasattr(args, "jobs"):
                args.scan_all = stack.enter_context(_scanner(prog, args.jobs))
            _load_symbols(prog, args.symbols)
            with debug_info():
                outcome = _run_paused(prog, args) if args.pause else args.run(prog, args)
            _tell_if_cut_off(prog)
    return outcome


def _connect(address: str) -> socket.socket:
    from drgn_zonedev.opening.guest import connect

    try:
        return connect(address)
    except OSError as e:
        hint = ""
        if isinstance(e, (ConnectionError, FileNotFoundError)):
            # As drgn tells them apart.
            kind = "tcp" if ":" in address and "/" not in address else "unix"
            hint = f": is QEMU running with -qmp {kind}:{address},server=on,wait=off?"
        elif isinstance(e, PermissionError):
            hint = ": try as root"
        raise _CannotOpen(f"cannot open {address}: {e.strerror or e}{hint or _CHECK}") from e


def _run_paused(prog: drgn.Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.opening.guest import QmpError, paused

    # Who reads the output must not keep the guest waiting.
    printed = io.StringIO()
    is_paused = False
    try:
        with paused(args.monitor), contextlib.redirect_stdout(printed):
            is_paused = True
            outcome: Outcome = args.run(prog, args)
    except QmpError as e:
        if is_paused:
            raise _CannotJudge(f"{args.qemu} is lost: {e}: see what QEMU says") from e
        raise _CannotOpen(f"cannot pause {args.qemu}: {e}: try without --pause") from e
    finally:
        print_text(printed.getvalue(), end="")
    return outcome


def _unpack(args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    # An export brings its own vmlinux.
    export = Path(args.core) if args.core else None
    if export is None or not is_export(export):
        return
    try:
        files = stack.enter_context(unpacked(export))
    except (ArchiveError, OSError) as e:
        raise _CannotOpen(_why_not_unpacked(args.core, e)) from e
    args.core = str(files / "vmcore")
    if not args.symbols and (files / "vmlinux").exists():
        args.symbols = [str(files / "vmlinux")]


def _why_not_unpacked(path: str, e: ArchiveError | OSError) -> str:
    if isinstance(e, ArchiveError):
        return f"cannot open {path}: {e}: copy it again, or export it once more"
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"there is no room for it in {tempfile.gettempdir()}"
        return f"cannot unpack {path}: {where}: make room, or set TMPDIR to another directory"
    return f"cannot unpack {path}: {e.strerror or e}: check its permissions and those of TMPDIR"


def _tell_if_cut_off(prog: drgn.Program) -> None:
    if not prog.core_dump_path or prog.flags & drgn.ProgramFlags.IS_LIVE:
        return
    # It takes numpy, which there is by now.
    from drgn_zonedev.vmcore.elf import end_of_elf

    size, claimed = end_of_elf(Path(prog.core_dump_path)) or (0, 0)
    if size < claimed:
        message = (
            f"{prog.core_dump_path} is cut off: it ends at {size} of {claimed} bytes, and what is "
            "missing could not be looked at"
        )
        print(f"zonedev: {printable(message)}", file=sys.stderr)


def _complain(args: argparse.Namespace, message: object, status: Status) -> int:
    print(f"zonedev: error: {printable(str(message))}", file=sys.stderr)
    _replace_junit(args, str(message))
    return int(status)


def _replace_junit(args: argparse.Namespace, message: str) -> None:
    # A CI server would take the file of last time for today's.
    path = args.output if getattr(args, "format", None) == "junit" else getattr(args, "junit", None)
    if path is None:
        return
    from drgn_zonedev.render.as_junit import error_junit

    with contextlib.suppress(OSError):
        Path(path).write_text(error_junit(message) + "\n", encoding="utf-8")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of ``zonedev``, which completion and the manual page come from, too."""
    parser = argparse.ArgumentParser(
        prog="zonedev",
        description="Tell whose every page frame is, and whether its struct page is initialised.",
        epilog="Exit status: 0 nothing found, 1 findings (see check --fail-on), 2 usage or the "
        "program cannot be opened, 3 it cannot be judged.",
        allow_abbrev=False,
    )
    group = parser.add_argument_group("program selection").add_mutually_exclusive_group()
    group.add_argument(
        "-k", "--kernel", action="store_true", help="debug the running kernel (default)"
    )
    group.add_argument(
        "-c",
        "--core",
        metavar="PATH",
        type=_not_empty,
        help="debug the given core dump, or the given export",
    )
    group.add_argument(
        "--qemu",
        metavar="ADDRESS",
        type=_not_empty,
        help="debug a QEMU guest over QMP: a Unix domain socket path or host:port",
    )
    parser.add_argument(
        "--pause",
        action="store_true",
        help="with --qemu: stop the guest while it is read, and have it go on whatever happens",
    )
    parser.add_argument(
        "-s",
        "--symbols",
        metavar="PATH",
        action="append",
        default=[],
        help="load debugging symbols from the given file (may be given more than once)",
    )
    parser.add_argument(
        "--architecture",
        choices=[a.name.lower() for a in drgn.Architecture],
        metavar="ARCH",
        help="set the architecture of a dump that does not say",
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(metavar="COMMAND")
    add_commands(subparsers)
    add_demo_command(subparsers)
    add_lab_command(subparsers)
    add_completion_command(subparsers, parser)
    return parser


def _not_empty(text: str) -> str:
    # An unset variable of a script must not make it debug the running kernel.
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give a path or an address")
    return text


def _version() -> str:
    from importlib.metadata import version

    return f"zonedev {version('drgn-zonedev')} (drgn {drgn.__version__})"


def _open(args: argparse.Namespace) -> drgn.Program:
    platform = None
    if args.architecture:
        platform = drgn.Platform(drgn.Architecture[args.architecture.upper()])
    prog = drgn.Program(platform)
    target = args.core or args.qemu or _LIVE
    if args.core and platform:
        _refuse_another_architecture(args.core, platform)
    if args.core and lacks_its_bitmaps(Path(args.core)):
        raise _CannotJudge(f"{args.core} ends before its contents begin: {_INCOMPLETE}")
    try:
        # drgn loads its plugins here, and goes on whatever they raise.
        with held_back():
            _attach(prog, args)
    except Exception as e:
        # What libelf and libkdumpfile do not like about a file has no type of its own.
        raise _CannotOpen(_why_not_opened(target, e, args.core)) from e
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise _CannotOpen(f"{target} is not a Linux kernel: give a vmcore, not a process's core")
    return prog


def _attach(prog: drgn.Program, args: argparse.Namespace) -> None:
    if args.core:
        prog.set_core_dump(args.core)
    elif args.qemu:
        # drgn closes what it is given.
        prog.set_qemu_qmp(os.dup(args.monitor.fileno()))
    else:
        prog.set_kernel()


def _refuse_another_architecture(core: str, platform: drgn.Platform) -> None:
    prog = drgn.Program()
    # What is wrong with it is told by who opens it next.
    with contextlib.suppress(Exception), held_back():
        prog.set_core_dump(core)
    if prog.platform and prog.platform.arch not in (platform.arch, drgn.Architecture.UNKNOWN):
        architecture, other = prog.platform.arch.name.lower(), platform.arch.name.lower()
        raise _CannotOpen(
            f"{core} says that it is of {architecture}, not {other}: take --architecture away"
        )


def _scanner(prog: drgn.Program, jobs: int | None) -> contextlib.AbstractContextManager[ScanAll]:
    from drgn_zonedev.verification.pool.scanner import scanner

    return scanner(prog, jobs)


def _why_not_opened(target: str, e: Exception, core: str | None = None) -> str:
    from drgn_zonedev.vmcore.file_types import no_dump

    if isinstance(e, PermissionError):
        return f"cannot open {target}: {e.strerror}: try as root"
    if target == _LIVE:
        advice = "try as root, with /proc/kcore, or give a vmcore with -c"
    elif isinstance(e, FileNotFoundError):
        advice = "check the path"
    elif core and (why := no_dump(core)):
        return f"cannot open {target}: {why}"
    else:
        advice = "give an ELF or kdump vmcore, or an export"
    reason = e.strerror if isinstance(e, OSError) and e.strerror else e
    return f"cannot open {target}: {reason}: {advice}"


_LIVE = "the running kernel"
_CHECK = ": check the address"
_INCOMPLETE = (
    "take the dump whole and with less left out (parts of a split one: makedumpfile "
    "--reassemble), or look at the running kernel"
)


def _load_symbols(prog: drgn.Program, symbols: list[str]) -> None:
    for path in symbols:
        if not os.path.exists(path):
            raise _CannotOpen(f"there is no file {path}: check the path given to -s")
        if os.path.isdir(path):
            raise _CannotOpen(f"{path} is a directory: give the vmlinux in it to -s")
        if not os.access(path, os.R_OK):
            raise _CannotOpen(f"cannot read symbols from {path}: try as root")
    # What drgn warns about becomes one error below.
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    # Only vmlinux matters: modules can be named without their symbols. It comes
    # first, and drgn goes on to the kernel's list of modules only if asked to.
    main = next(prog.loaded_modules())[0]
    try:
        modules = [path for path in symbols if not _is_of(main, path)]
        if main.wants_debug_file():
            with contextlib.suppress(drgn.MissingDebugInfoError):
                prog.load_module_debug_info(main)
        if modules and not main.wants_debug_file():
            # That list may be damaged, and claim more memory than there is.
            with contextlib.suppress(drgn.MissingDebugInfoError, MemoryError, drgn.FaultError):
                prog.load_debug_info(modules)
    except (OSError, ValueError) as e:
        raise _CannotOpen(
            f"cannot load symbols from {', '.join(symbols)}: {e}: give the vmlinux of the kernel"
        ) from e
    if main.wants_debug_file():
        raise _CannotJudge(_missing_symbols(prog, symbols))


def _is_of(module: drgn.Module, path: str) -> bool:
    """Whether a file has a module's symbols; then they are loaded."""
    if not module.wants_debug_file():
        return False
    module.try_file(path)
    return not module.wants_debug_file()


def _missing_symbols(prog: drgn.Program, symbols: list[str]) -> str:
    release = c_string(prog["UTS_RELEASE"])
    build_id = prog.main_module().build_id
    which = f"Linux {release}" + (f" (build ID {build_id.hex()})" if build_id else "")
    if symbols:
        from drgn_zonedev.vmcore.file_types import no_symbols

        given = ", ".join(f"{path} ({no_symbols(path, build_id)})" for path in symbols)
        return (
            f"{given}: not the debugging symbols of {which}, which this is: "
            f"give the vmlinux of that very build, with DWARF{_package(release)}"
        )
    return (
        f"no debugging symbols for {which}: give its vmlinux with -s, or install the package "
        f"that has it{_package(release)}"
    )


def _package(release: str) -> str:
    return f" (Debian: linux-image-{release}-dbg, Fedora: kernel-debuginfo-{release})"


_WHOLE = "give its whole vmlinux, with DWARF, by -s"


if __name__ == "__main__":
    sys.exit(main())
