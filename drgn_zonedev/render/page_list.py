# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Lists of Pages
--------------

What ``zonedev pages START..END`` prints. There can be millions of pages: what programs read is
rendered page by page.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator

from drgn_zonedev.census.listing import ListedPage, PageList
from drgn_zonedev.census.owners import Owner
from drgn_zonedev.render.as_json import Document, render
from drgn_zonedev.render.cells import case_text, fitted_table
from drgn_zonedev.render.pages import csv_lines
from drgn_zonedev.render.screen import Screen, more

__all__ = (
    "page_list_csv",
    "page_list_document",
    "page_list_json",
    "page_list_lines",
    "page_list_text",
)

_HEADERS = (
    *("PFN", "PHYSICAL", "KIND", "REFS", "MAPS", "ORDER", "CASE", "ACCESS", "FLAGS", "OWNER"),
)
_COLUMNS = (
    *("pfn", "physical_address", "kind", "flags", "refcount", "mapcount", "order", "owner"),
    *("case", "access"),
)


def page_list_text(listed: PageList, *, screen: Screen | None = None) -> str:
    """Render a line for each page, or for as many as fit."""
    tail = ["", *listed.unknown] if listed.unknown else []
    pages = listed.pages
    if screen is not None and len(pages) > screen.lines - len(tail) - 2:
        pages = pages[: max(screen.lines - len(tail) - 3, 0)]
    rows = [_row(listed, page) for page in pages]
    least = ("PHYSICAL", "ACCESS", "MAPS", "FLAGS", "ORDER", "CASE")
    lines = [fitted_table(_HEADERS, rows, screen, least=least)] if rows else []
    folded = listed.pages[len(pages) :]
    if folded and screen is not None:
        lines.append(more("pages", folded, lambda page: page.kind.value, screen))
    others = listed.matching - len(listed.pages)
    lines.append(
        f"{listed.matching:,} pages{f', {others:,} of them not listed: --limit' if others else ''}"
    )
    return "\n".join([*lines, *tail])


def _row(listed: PageList, page: ListedPage) -> list[str]:
    flags = None if page.flags is None else "|".join(name[3:] for name in page.flags)
    return [
        f"{page.pfn:#x}",
        f"{page.pfn * listed.page_size:#x}",
        page.kind.value,
        *("-" if n is None else str(n) for n in (page.refcount, page.mapcount, page.order)),
        case_text(page.range.case),
        page.range.access.value,
        flags or "-",
        _owner_text(page.owner),
    ]


def _owner_text(owner: Owner | None) -> str:
    if owner is None:
        return "-"
    if owner.inode is None or owner.name is not None:
        return owner.name or f"{owner.type} {owner.address:#x}"
    return f"inode {owner.inode} of {owner.file_system}"


def page_list_document(listed: PageList) -> Document:
    """The document of ``pages START..END``."""
    return {
        "schema": "drgn-zonedev/page-list/1",
        "start_pfn": listed.query.start_pfn,
        "end_pfn": listed.query.end_pfn,
        "matching": listed.matching,
        "pages": [_page(listed, page) for page in listed.pages],
    }


def page_list_json(listed: PageList) -> Iterator[str]:
    """The text of :func:`page_list_document()`, in pieces."""
    empty = render(page_list_document(dataclasses.replace(listed, pages=())))
    if not listed.pages:
        yield empty
        return
    before, _, behind = empty.rpartition("[]")
    separator = f"{before}["
    for page in listed.pages:
        yield f"{separator}\n{textwrap.indent(render(_page(listed, page)), '    ')}"
        separator = ","
    yield f"\n  ]{behind}"


def _page(listed: PageList, page: ListedPage) -> Document:
    return {
        "pfn": page.pfn,
        "physical_address": hex(page.pfn * listed.page_size),
        "page": hex(page.address),
        "kind": page.kind.value,
        "flags": None if page.flags is None else list(page.flags),
        "refcount": page.refcount,
        "mapcount": page.mapcount,
        "order": page.order,
        "owner": page.owner and _owner(page.owner),
        "case": page.range.case.value,
        "access": page.range.access.value,
    }


def _owner(owner: Owner) -> Document:
    return {
        "type": owner.type,
        "address": hex(owner.address),
        "name": owner.name,
        "inode": owner.inode,
        "file_system": owner.file_system,
    }


def page_list_lines(listed: PageList) -> Iterator[str]:
    """What ``pages START..END --format jsonl`` prints: a header, then each page."""
    header = {
        "record": "header",
        "schema": "drgn-zonedev/page-list-lines/1",
        "start_pfn": listed.query.start_pfn,
        "end_pfn": listed.query.end_pfn,
        "matching": listed.matching,
    }
    yield json.dumps(header)
    for page in listed.pages:
        yield "\n" + json.dumps({"record": "page", **_page(listed, page)})


def page_list_csv(listed: PageList) -> Iterator[str]:
    """What ``pages START..END --format csv`` prints: a line for each page."""
    rows = (
        {**_page(listed, page), "owner": None if page.owner is None else _owner_text(page.owner)}
        for page in listed.pages
    )
    return csv_lines(_COLUMNS, rows)
