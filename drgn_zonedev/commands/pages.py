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
    UsageError,
    not_empty,
    number,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_value_code, write_code
from drgn_zonedev.commands.jobs import JOBS, scanner_of
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn import Program
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.census.query import CountTest, PageQuery

__all__ = ("PAGES",)

# By in census/grouping.py, which takes a while to be imported.
_BY = ("order", "migratetype", "flags", "slab-cache", "pgmap", "memory-block")
_MOST_AS_TEXT = 1000
# PageKind in census/kinds.py, likewise.
_KINDS = (
    *("not-in-dump", "unmapped", "uninitialised", "offline-section", "device", "metadata"),
    *("vmemmap", "self-hosted-vmemmap", "free", "pcp-free", "unaccepted", "offline"),
    *("hwpoison", "reserved", "slab", "page-table", "hugetlb", "thp", "anon", "file", "shmem"),
    *("ksm", "zero", "kernel"),
)


def _count_test(text: str) -> CountTest:
    from drgn_zonedev.census.query import parse_count_test

    try:
        return parse_count_test(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _limit(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected how many pages to list, got {text!r}")
    return int(text)


_ARGUMENTS = (
    *output_arguments("jsonl", "csv"),
    Argument(
        "pages",
        nargs="?",
        metavar="START..END",
        type=not_empty,
        help="list these pages instead; END is not included. Both are PFNs, physical addresses, "
        "addresses of struct pages, or resources in /proc/iomem, as 'pfn' takes them; a single one "
        "is that page, or all of that resource",
    ),
    Argument(
        "--as",
        dest="number_kind",
        choices=("pfn", "phys", "page"),
        help="take numbers as PFNs, physical addresses or addresses of struct pages, instead of "
        "guessing",
    ),
    Argument("--by", choices=_BY, help="count pages by this, too"),
    JOBS,
    Argument(
        "--kind",
        metavar="KIND",
        choices=_KINDS,
        help="list only pages of this kind, such as anon or free: docs/pages.md has all",
    ),
    Argument("--flag", metavar="F", type=not_empty, help="list only pages with this page flag"),
    Argument(
        "--refcount",
        metavar="N",
        type=_count_test,
        help="list only pages with N references, or with more or fewer, such as '>1'",
    ),
    Argument(
        "--pgmap", metavar="P", type=number, help="list only pages of the pgmap at this address"
    ),
    Argument(
        "--limit",
        metavar="N",
        type=_limit,
        help="list no more than N pages (default: all, but 1000 as text without --all)",
    ),
)


def _pages(session: Session, args: argparse.Namespace) -> Outcome:
    filters = (args.kind, args.flag, args.refcount, args.pgmap, args.limit, args.number_kind)
    if args.pages is not None:
        if args.by or args.jobs:
            option = "--by" if args.by else "--jobs"
            raise UsageError(f"{option} counts pages, and START..END lists them: give one of them")
        return _list(session, args)
    if any(value is not None for value in filters):
        raise UsageError("--kind, --flag, --refcount, --pgmap, --limit and --as need START..END")
    return _count(session, args)


def _count(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.census.grouping import By
    from drgn_zonedev.census.total import take_census
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.render import pages

    by = By(args.by) if args.by else None
    with progress_bar() as progress, scanner_of(session, args.jobs) as scan_all:
        census = take_census(session.prog, by, progress, scan_all)
    print_result(
        args,
        lambda screen: pages.census_text(census, screen=screen),
        lambda: pages.census_document(census),
        jsonl=lambda: pages.census_lines(census),
        csv=lambda: pages.census_csv(census),
    )
    return Outcome(census)


def _list(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.census.listing import list_pages
    from drgn_zonedev.render import page_list

    try:
        query = _query(session.prog, args)
        # People do not read more than that; programs do.
        most = _MOST_AS_TEXT if args.format == "text" and not args.all else None
        listed = list_pages(session.prog, query, args.limit or most)
    except ValueError as e:
        raise UsageError(str(e)) from e
    print_result(
        args,
        lambda screen: page_list.page_list_text(listed, screen=screen),
        lambda: page_list.page_list_document(listed),
        json=lambda: page_list.page_list_json(listed),
        jsonl=lambda: page_list.page_list_lines(listed),
        csv=lambda: page_list.page_list_csv(listed),
    )
    return Outcome(listed)


def _query(prog: Program, args: argparse.Namespace) -> PageQuery:
    from drgn_zonedev.census.kinds import PageKind
    from drgn_zonedev.census.query import PageQuery
    from drgn_zonedev.explanation.resolve import resolve_range
    from drgn_zonedev.kernel.page_kinds import flag_mask

    start, end = resolve_range(prog, args.pages, args.number_kind)
    flag = None
    if args.flag is not None:
        name = f"PG_{args.flag.lower().removeprefix('pg_')}"
        flag = flag_mask(prog, name)
        if not flag:
            raise UsageError(f"this kernel has no page flag {name}: give one of enum pageflags")
    kind = None if args.kind is None else PageKind(args.kind)
    return PageQuery(start, end, kind, flag, args.refcount, args.pgmap)


def _pages_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    code = f"census = page_census({f'by={args.by!r}' if args.by else ''})\n"
    write_code(builder, code, "drgn_zonedev:page_census")
    print_value_code(builder, args, "census", "drgn_zonedev.render.pages")


PAGES = Command(
    "pages",
    "count all pages by what they are used for, or list some of them",
    _ARGUMENTS,
    _pages,
    DrgnCode(_pages_code, frozenset({"by"})),
)
