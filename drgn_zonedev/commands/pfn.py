# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pfn``"""

from __future__ import annotations

import argparse

from drgn import Program

from drgn_zonedev.commands.base import Command, Outcome, UsageError, output_arguments, print_result

__all__ = ("PFN",)


def _pfn_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    parser.add_argument(
        "pfn",
        metavar="PFN",
        help="a PFN; the address of a struct page or folio; a physical address, where there is "
        "no memory at that PFN; or the name of a resource in /proc/iomem, of which the first "
        "page is explained",
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="what the number is, instead of guessing",
    )


def _pfn(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explanation.explain import explain
    from drgn_zonedev.render.explanation_json import explanation_document
    from drgn_zonedev.render.explanation_text import explanation_text

    try:
        explanation = explain(prog, args.pfn, args.kind)
    except ValueError as e:
        raise UsageError(str(e)) from e
    print_result(
        args,
        lambda screen: explanation_text(explanation, screen=screen),
        lambda: explanation_document(explanation),
    )
    return Outcome(explanation)


PFN = Command("pfn", "explain a PFN", _pfn_arguments, _pfn)
