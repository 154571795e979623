# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Commands
--------

The common parts of ``zonedev COMMAND`` and ``%zonedev COMMAND``: arguments, session, output
and exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from drgn import Program

from drgn_zonedev.commands.pager import page_text, pager_command
from drgn_zonedev.render.screen import Screen, current_screen, has_colour
from drgn_zonedev.util.output_files import output_file
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.verification.task import ScanAll

__all__ = (
    "STANDARD_OUTPUT",
    "Command",
    "DrgnCode",
    "Opener",
    "Outcome",
    "OutputError",
    "Session",
    "ShellCommand",
    "Status",
    "UsageError",
    "discard_output",
    "not_empty",
    "not_empty_path",
    "number",
    "output_arguments",
    "pfns",
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
    """The result of a command: a value for callers in Python, and an exit status."""

    value: Any
    status: Status = Status.OK


@dataclass(frozen=True)
class Session:
    """
    The program that a command reads.

    ``scan_all`` scans struct pages in the processes that the command line has started; if
    it is ``None``, the command starts them itself. ``opener`` opens other dumps, if the
    command line can. ``source`` is what the command line calls the program, and ``variables``
    are those of drgn's REPL.
    """

    prog: Program
    scan_all: ScanAll | None = None
    opener: Opener | None = None
    source: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


Opener = Callable[[str], AbstractContextManager[Session]]
"""Opens a dump or an export by its path, with the options that opened the first one."""


@dataclass(frozen=True)
class DrgnCode:
    """
    The Python code that does the same as a command. ``write`` writes it; of the options,
    it knows only those named in ``expresses``, and of the formats only ``formats``.
    """

    write: Callable[[DrgnCodeBuilder, argparse.Namespace], None]
    expresses: frozenset[str]
    formats: tuple[str, ...] = ("text", "json")


@dataclass(frozen=True)
class Command:
    """
    A subcommand that reads a program. If none is selected, ``run_alone`` runs without one, and
    opens what it needs.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[Session, argparse.Namespace], Outcome]
    drgn_code: DrgnCode
    run_alone: Callable[[argparse.Namespace, Opener], Outcome] | None = None


@dataclass(frozen=True)
class ShellCommand:
    """
    A subcommand of the shell only. If it ``opens_dumps``, the options before it say how;
    otherwise there must be none.
    """

    run: Callable[[argparse.Namespace], Outcome]
    opens_dumps: bool = False


def output_arguments(*formats: str) -> tuple[Argument, ...]:
    """
    Get ``--format``, ``--output``, ``--all``, ``--color`` and ``--no-pager``.

    :param formats: Besides text and JSON.
    """
    return (
        Argument(
            "--format",
            choices=("text", "json", *formats),
            default="text",
            help="default: %(default)s",
        ),
        Argument(
            "-o",
            "--output",
            metavar="FILE",
            type=not_empty,
            help="write to FILE instead of standard output",
        ),
        Argument(
            "--all",
            action="store_true",
            help="show everything, even if it does not fit the terminal",
        ),
        Argument(
            "--color",
            choices=("auto", "always", "never"),
            default="auto",
            help="colour text; auto, the default: on a terminal, unless NO_COLOR is set",
        ),
        Argument(
            "--no-pager",
            action="store_true",
            help="on a terminal, fold text to the screen instead of showing it in $PAGER (default: "
            "less -FRX)",
        ),
    )


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """
    Write to standard output. If its reader is gone, discard the output and go on: the caller
    may only want the exit status. Other failures get a type of their own, because OSError
    means that memory cannot be read.

    :raises OutputError: if it cannot be written for another reason
    """
    # Looked up now: drgn's pipes and redirections replace it.
    output = sys.stdout
    try:
        yield output
    except BrokenPipeError:
        if output is not sys.__stdout__:
            # drgn handles broken pipes of its own.
            raise
        discard_output()
    except OSError as e:
        raise OutputError(
            f"cannot write standard output: {e.strerror}: choose another place for it"
        ) from e


def discard_output() -> None:
    """Discard all further standard output, and what is still buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_text(text: str, *, end: str = "\n") -> None:
    """Print to standard output; see :func:`standard_output()`."""
    with standard_output() as f:
        print(text, end=end, file=f, flush=True)


STANDARD_OUTPUT = (None, "-")
"""The values of ``--output`` that mean standard output."""


def _screen(args: argparse.Namespace, pager: str | None) -> Screen | None:
    # Only a terminal limits the output; --verbose includes --all.
    if args.all or args.output not in STANDARD_OUTPUT or getattr(args, "verbose", False):
        return None
    screen = current_screen()
    return screen.endless if screen and pager else screen


def _pager(args: argparse.Namespace) -> str | None:
    if args.no_pager or args.format != "text" or args.output not in STANDARD_OUTPUT:
        return None
    return pager_command()


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
    **others: Callable[[], str | Iterator[str]],
) -> None:
    """
    Print a result as ``--format`` asks for.

    :param text: Takes the size of the screen, or ``None`` to render everything.
    :param others: Renderings besides these, by the names of their formats, as a whole or piece by
        piece; one of JSON takes the place of the document.
    """
    pager = _pager(args)
    renderings: dict[str, Callable[[], str | Iterator[str]]] = {
        "text": lambda: _coloured(args, text(_screen(args, pager))),
        "json": lambda: _json(document()),
        **others,
    }
    rendered = renderings[args.format]()
    if pager and isinstance(rendered, str) and page_text(rendered, pager):
        return
    with _output(args) as f:
        f.writelines([rendered] if isinstance(rendered, str) else rendered)
        print(file=f, flush=True)


def _coloured(args: argparse.Namespace, text: str) -> str:
    is_wanted = has_colour(args.color) and (
        args.color == "always" or args.output in STANDARD_OUTPUT
    )
    # Pictures have colours of their own.
    if not is_wanted or "\x1b" in text:
        return text
    from drgn_zonedev.render.colour import coloured_text

    return coloured_text(text)


def _json(document: Any) -> str:
    from drgn_zonedev.render.as_json import render

    return render(document)


def not_empty(text: str) -> str:
    """Parse an argument that a script may have left empty, with a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give a path, an address or a name")
    return text


def not_empty_path(text: str) -> Path:
    """Parse a path, which must not be empty: ``Path("")`` is the current directory."""
    return Path(not_empty(text))


def number(text: str) -> int:
    """Parse an integer argument in any of Python's notations."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: give a number")
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number (hexadecimal numbers start with 0x)"
        ) from None


def pfns(text: str) -> tuple[int, int]:
    """Parse a half-open range of PFNs, ``START..END``."""
    start_text, _, end_text = text.partition("..")
    if not start_text or not end_text or "." in end_text:
        raise argparse.ArgumentTypeError(f"{text!r} is not START..END, such as 0x24000..0x30000")
    start, end = number(start_text), number(end_text)
    if start < 0 or end <= start:
        raise argparse.ArgumentTypeError(
            f"no PFN is in {text!r}: END, which is not included, must be above START"
        )
    return start, end
