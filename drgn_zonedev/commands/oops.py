# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev oops``"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Opener,
    Outcome,
    Session,
    UsageError,
    not_empty,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code
from drgn_zonedev.commands.inputs import input_data
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.explanation.explain import Explanation
    from drgn_zonedev.oops_log.answer import OopsLog
    from drgn_zonedev.oops_log.regions import Data

__all__ = ("OOPS", "log_data")

_ANOTHER = "give another log"


_ARGUMENTS = (
    *output_arguments(),
    Argument(
        "log",
        metavar="FILE",
        type=not_empty,
        nargs="?",
        help="a console log, the output of dmesg, or a mail that quotes it; - is standard input "
        "(default: the log in the program's memory)",
    ),
)


def log_data(path: str) -> Data:
    """
    Get the bytes of a log.

    :raises UsageError: if it cannot be read, or is empty
    """
    data = _mapped(path) or input_data(path, _ANOTHER)
    if not data:
        raise UsageError(f"{'standard input' if path == '-' else path} is empty: {_ANOTHER}")
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        # PowerShell's > writes UTF-16.
        return data[:].decode("utf-16", "replace").encode()
    return data


def _mapped(path: str) -> Data | None:
    # A pipe cannot be mapped, and opening it twice would lose what was read.
    if not os.path.isfile(path) or path == "-":
        return None
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return None


def _oops(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explanation.logged import (
        OtherKernelError,
        explain_logged_pages,
        read_log_of,
    )

    data = None if args.log is None else log_data(args.log)
    try:
        log = read_log_of(session.prog, data)
    except OtherKernelError as e:
        raise UsageError(str(e)) from e
    return _print(args, log, explain_logged_pages(session.prog, log))


def _oops_alone(args: argparse.Namespace, opener: Opener) -> Outcome:
    from drgn_zonedev.oops_log.answer import read_log

    if args.log is None:
        raise UsageError("give a FILE, - for standard input, or a dump with its own log by -c")
    known = None
    if args.symbols:
        from drgn_zonedev.explanation.types_of_log import known_types

        known = known_types(args.symbols)
    return _print(args, read_log(log_data(args.log), known), None)


def _print(
    args: argparse.Namespace, log: OopsLog, explanations: Sequence[Explanation] | None
) -> Outcome:
    from drgn_zonedev.render.oops import oops_document, oops_text

    print_result(
        args,
        lambda screen: oops_text(log, explanations, screen=screen),
        lambda: oops_document(log, explanations),
    )
    return Outcome(log)


def _oops_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    if args.log is not None:
        builder.add_from_import("drgn_zonedev.commands.oops", "log_data")
    data = "" if args.log is None else f"log_data({args.log!r})"
    write_code(
        builder,
        f"log = read_log_of({data})\nexplanations = explain_logged_pages(log)\n",
        "drgn_zonedev.explanation.logged:explain_logged_pages",
        "drgn_zonedev.explanation.logged:read_log_of",
    )
    print_rendered_code(builder, args, "oops", "log, explanations")


OOPS = Command(
    "oops",
    "explain the addresses and struct pages of an oops in a log, with a dump or without",
    _ARGUMENTS,
    _oops,
    DrgnCode(_oops_code, frozenset({"log"})),
    _oops_alone,
)
