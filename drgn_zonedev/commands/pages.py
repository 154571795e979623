# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pages``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_code

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("PAGES",)

# By in census/labels.py, which takes a while to be imported.
_BY = ("order", "migratetype", "flags", "slab-cache", "pgmap", "memory-block")


def _pages_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser, "jsonl", "csv")
    parser.add_argument(
        "--by",
        choices=_BY,
        help="group pages by this, too",
    )


def _pages(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.census.grouping import By
    from drgn_zonedev.census.total import take_census
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.render import pages

    with progress_bar() as progress:
        census = take_census(session.prog, By(args.by) if args.by else None, progress)
    print_result(
        args,
        lambda screen: pages.census_text(census, screen=screen),
        lambda: pages.census_document(census),
        jsonl=lambda: pages.census_lines(census),
        csv=lambda: pages.census_csv(census),
    )
    return Outcome(census)


def _pages_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "page_census")
    builder.append(f"census = page_census({f'by={args.by!r}' if args.by else ''})\n")
    print_code(
        builder,
        args,
        ("", "", "census"),
        ("drgn_zonedev.render.pages", "census_document", "census"),
    )


PAGES = Command(
    "pages",
    "count all pages by what they are used for",
    _pages_arguments,
    _pages,
    DrgnCode(_pages_code, frozenset({"by"})),
)
