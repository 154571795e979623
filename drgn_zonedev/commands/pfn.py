# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pfn``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    UsageError,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_code

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("PFN",)


def _pfn_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    parser.add_argument(
        "pfn",
        metavar="PFN",
        help="a PFN; the address of a struct page or folio; a physical address, if no memory has "
        "that PFN; or the name of a resource in /proc/iomem, for its first page",
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="take the number as a PFN, a physical address or the address of a struct page, "
        "instead of guessing",
    )


def _pfn(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explanation.explain import explain
    from drgn_zonedev.render.explanation_json import explanation_document
    from drgn_zonedev.render.explanation_text import explanation_text

    try:
        explanation = explain(session.prog, args.pfn, args.kind)
    except ValueError as e:
        raise UsageError(str(e)) from e
    print_result(
        args,
        lambda screen: explanation_text(explanation, screen=screen),
        lambda: explanation_document(explanation),
    )
    return Outcome(explanation)


def _pfn_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "explain")
    kind = f", {args.kind!r}" if args.kind else ""
    builder.append(f"explanation = explain({args.pfn!r}{kind})\n")
    print_code(
        builder,
        args,
        ("", "", "explanation"),
        ("drgn_zonedev.render.explanation_json", "explanation_document", "explanation"),
    )


PFN = Command(
    "pfn", "explain a PFN", _pfn_arguments, _pfn, DrgnCode(_pfn_code, frozenset({"pfn", "kind"}))
)
