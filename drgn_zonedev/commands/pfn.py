# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pfn``"""

from __future__ import annotations

import argparse
import ast
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    UsageError,
    not_empty,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_value_code
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.classification.snapshot import Snapshot
    from drgn_zonedev.explanation.resolve import Subject

__all__ = ("PFN",)


_ARGUMENTS = (
    *output_arguments(),
    Argument(
        "pfns",
        metavar="PFN",
        nargs="+",
        type=not_empty,
        help="a PFN; the address of a struct page or folio; a physical address, if no memory has "
        "that PFN; the name of a resource in /proc/iomem, for its first page; or START..END, for "
        "the first page of each range there; in drgn's REPL, also a variable or an expression",
    ),
    Argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="take numbers as PFNs, physical addresses or addresses of struct pages, instead of "
        "guessing",
    ),
)


def _pfn(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classification.reading import take_snapshot
    from drgn_zonedev.explanation.explain import explain_subject
    from drgn_zonedev.render.explanation_json import explanation_document, explanations_document
    from drgn_zonedev.render.explanation_text import explanation_text

    snapshot = take_snapshot(session.prog)
    try:
        subjects = [s for word in args.pfns for s in _subjects(session, snapshot, word, args.kind)]
        found = [explain_subject(session.prog, snapshot, subject) for subject in subjects]
    except ValueError as e:
        raise UsageError(str(e)) from e
    is_one = len(args.pfns) == 1 and len(found) == 1
    print_result(
        args,
        lambda screen: "\n\n".join(explanation_text(e, screen=screen) for e in found),
        lambda: explanation_document(found[0]) if is_one else explanations_document(found),
    )
    return Outcome(found[0] if is_one else tuple(found))


def _subjects(
    session: Session, snapshot: Snapshot, word: str, kind: str | None
) -> Iterator[Subject]:
    from drgn_zonedev.classification.classify import classify_snapshot
    from drgn_zonedev.explanation.resolve import Subject, resolve

    prog, (start_word, dots, end_word) = session.prog, word.partition("..")
    if not dots:
        yield resolve(prog, _evaluated(session, word), kind, snapshot.resources)
        return
    start, end = (resolve(prog, w, kind or "pfn").pfn for w in (start_word, end_word))
    if end <= start:
        raise UsageError(f"no PFN is in {word}: END, which is not included, must be above START")
    ranges = classify_snapshot(prog, snapshot)
    runs = [r for r in ranges if r.start_pfn < end and start < r.end_pfn]
    if not runs:
        raise UsageError(f"there is no memory at PFNs {start:#x} to {end - 1:#x}")
    for r in runs:
        first, last = max(r.start_pfn, start), min(r.end_pfn, end)
        yield Subject(first, "PFN", f"the first of {last - first} PFNs of its case in {word}")


def _evaluated(session: Session, word: str) -> Any:
    """Get the value of an expression of drgn's REPL, or the word itself if it is not one."""
    if not session.variables or _is_number(word):
        return word
    try:
        names = {n.id for n in ast.walk(ast.parse(word, mode="eval")) if isinstance(n, ast.Name)}
    except (SyntaxError, ValueError):
        return word
    # The name of a resource may look like an expression.
    if not names or not any(name in session.variables for name in names):
        return word
    try:
        return eval(word, dict(session.variables))
    except Exception as e:
        raise UsageError(f"{word}: {type(e).__name__}: {e}") from e


def _is_number(word: str) -> bool:
    try:
        int(word, 0)
    except ValueError:
        return False
    return True


def _pfn_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "explain")
    kind = f", {args.kind!r}" if args.kind else ""
    calls = [f"explain({_literal(word, args.kind)}{kind})" for word in args.pfns]
    if len(calls) == 1:
        builder.append(f"explanation = {calls[0]}\n")
        print_value_code(builder, args, "explanation", "drgn_zonedev.render.explanation_json")
        return
    builder.append(f"for explanation in ({', '.join(calls)}):\n")
    builder.append('    print(f"{explanation}\\n")\n')


def _literal(word: str, kind: str | None) -> str:
    if not _is_number(word):
        return repr(word)
    if kind is not None or _is_pfn_or_pointer(word):
        return f"{int(word, 0):#x}"
    # explain() takes text for a physical address, too.
    return repr(word)


def _is_pfn_or_pointer(word: str) -> bool:
    from drgn import FaultError, NoDefaultProgramError

    from drgn_zonedev.explanation.resolve import resolve

    # The code is for drgn's default program, which may not exist yet.
    with contextlib.suppress(ValueError, LookupError, FaultError, NoDefaultProgramError):
        return resolve(word).kind != "physical address"
    return False


PFN = Command(
    "pfn", "explain a PFN", _ARGUMENTS, _pfn, DrgnCode(_pfn_code, frozenset({"pfns", "kind"}))
)
