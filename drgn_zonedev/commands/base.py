# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Commands
--------

What ``zonedev COMMAND`` and ``%zonedev COMMAND`` have in common: the arguments,
the work, the output, and the exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from drgn import Program

from drgn_zonedev.render.screen import Screen, current_screen, is_folded
from drgn_zonedev.util.output_files import output_file

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.verification.scan import ScanAll

__all__ = (
    "STANDARD_OUTPUT",
    "Command",
    "DrgnCode",
    "Outcome",
    "OutputError",
    "Session",
    "ShellCommand",
    "Status",
    "UsageError",
    "discard_output",
    "number",
    "offer",
    "offered",
    "output_arguments",
    "print_result",
    "print_text",
    "standard_output",
)


class Status(enum.IntEnum):
    """Exit statuses."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    NOT_JUDGED = 3


class UsageError(Exception):
    """The arguments do not make sense for this program."""


class OutputError(UsageError):
    """Standard output cannot be written."""


@dataclass(frozen=True)
class Outcome:
    """What a command returns: a value for whoever called it from Python, and a status."""

    value: Any
    status: Status = Status.OK


@dataclass(frozen=True)
class Session:
    """
    What a command looks at.

    ``scan_all`` goes through struct pages in the processes that the command line has
    started; ``None`` leaves that to the command.
    """

    prog: Program
    scan_all: ScanAll | None = None


@dataclass(frozen=True)
class DrgnCode:
    """
    The Python that yields the answer of a command. ``write`` writes it for arguments
    of which none but those named in ``expresses`` is given.
    """

    write: Callable[[DrgnCodeBuilder, argparse.Namespace], None]
    expresses: frozenset[str]


@dataclass(frozen=True)
class Command:
    """
    A subcommand that looks at a program. ``run_alone`` does without, if none is selected.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Session, argparse.Namespace], Outcome]
    drgn_code: DrgnCode
    run_alone: Callable[[argparse.Namespace], Outcome] | None = None


@dataclass(frozen=True)
class ShellCommand:
    """A subcommand of the shell alone: it looks at no program, or opens its own."""

    run: Callable[[argparse.Namespace], Outcome]


def output_arguments(parser: argparse.ArgumentParser, *formats: str) -> None:
    """
    Add ``--format``, ``--output`` and ``--all``.

    :param formats: Besides text and JSON.
    """
    parser.add_argument(
        "--format",
        choices=("text", "json", *formats),
        default="text",
        help="default: %(default)s",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write there instead of standard output"
    )
    parser.add_argument(
        "--all", action="store_true", help="show everything, even if it is more than a screen"
    )


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """
    Write to standard output, whose failures are not those of reading memory. If nobody
    reads it any more, work goes on without it: the exit status may be what counts.

    :raises OutputError: if it cannot be written for another reason
    """
    # Looked up now: drgn's pipes and redirections replace it.
    output = sys.stdout
    try:
        yield output
    except BrokenPipeError:
        if output is not sys.__stdout__:
            # drgn knows what to do about its own pipes.
            raise
        discard_output()
    except OSError as e:
        raise OutputError(
            f"cannot write standard output: {e.strerror}: choose another place for it"
        ) from e


def discard_output() -> None:
    """Have nothing more of standard output written, not even what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_text(text: str, *, end: str = "\n") -> None:
    """Print to standard output; see :func:`standard_output()`."""
    with standard_output() as f:
        print(text, end=end, file=f, flush=True)


STANDARD_OUTPUT = (None, "-")
"""What ``--output`` is if nothing goes to a file."""


def offer(action: argparse.Action, candidates: Callable[[], Iterable[str]]) -> None:
    """
    Tell completion what an argument can be. ``choices`` would do so, too, but errors list
    all of them, and they would have to be known whenever the parser is made.
    """
    action.candidates = candidates  # type: ignore[attr-defined]


def offered(action: argparse.Action) -> list[str]:
    """Return what an argument can be, as far as that is known."""
    candidates = getattr(action, "candidates", lambda: action.choices or ())
    return [str(candidate) for candidate in candidates()]


def _screen(args: argparse.Namespace) -> Screen | None:
    # A file is no screen, and who wants to see all evidence wants to see all.
    if args.all or args.output not in STANDARD_OUTPUT or getattr(args, "verbose", False):
        return None
    return current_screen()


@contextlib.contextmanager
def _output(args: argparse.Namespace) -> Iterator[TextIO]:
    if args.output in STANDARD_OUTPUT:
        with standard_output() as f:
            yield f
        return
    try:
        with output_file(args.output) as f:
            yield f
    except OSError as e:
        raise UsageError(
            f"cannot write {args.output}: {e.strerror}: choose another place for -o"
        ) from e


def print_result(
    args: argparse.Namespace,
    text: Callable[[Screen | None], str],
    document: Callable[[], Any],
    **others: Callable[[], str],
) -> None:
    """
    Print a result as ``--format`` asks for.

    :param text: Takes the room that there is, or ``None`` if everything was asked for.
    :param others: Renderings besides text and JSON, by the names of their formats.
    """
    renderings = {
        "text": lambda: text(_screen(args)),
        "json": lambda: _json(document()),
        **others,
    }
    rendered = renderings[args.format]()
    is_screen = False
    with _output(args) as f:
        print(rendered, file=f, flush=True)
        is_screen = f.isatty()
    if args.format == "text" and is_folded(rendered) and not is_screen:
        # grep must not make anyone believe that what it did not see is not there.
        print("zonedev: not everything was printed: --all does that", file=sys.stderr)


def _json(document: Any) -> str:
    from drgn_zonedev.render.as_json import render

    return render(document)


def number(text: str) -> int:
    """Parse an integer argument in any of Python's notations."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number (hexadecimal numbers start with 0x)"
        ) from None
