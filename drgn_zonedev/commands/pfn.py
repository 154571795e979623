# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pfn``"""

from __future__ import annotations

import argparse
import sys

from drgn import Program

from drgn_zonedev.command import (
    Command,
    Outcome,
    UsageError,
    number,
    output_arguments,
    print_result,
)
from drgn_zonedev.render import as_json, as_text

__all__ = ("PFN",)


def _pfn_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    parser.add_argument(
        "pfn",
        metavar="PFN",
        type=number,
        help="a PFN, the address of a struct page, or a physical address where there is no "
        "memory at that PFN",
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="what the number is, instead of guessing",
    )


def _pfn(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explain import explain, resolve_pfn

    try:
        pfn, kind = resolve_pfn(prog, args.pfn, args.kind)
    except ValueError as e:
        raise UsageError(str(e)) from e
    if args.kind is None and kind != "PFN":
        print(f"zonedev: taking {args.pfn:#x} for a {kind}", file=sys.stderr)
    explanation = explain(prog, pfn)
    print_result(
        args,
        lambda: as_text.explanation_text(explanation),
        lambda: as_json.explanation_document(explanation),
    )
    return Outcome(explanation)


PFN = Command("pfn", "explain a PFN", _pfn_arguments, _pfn)
