# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pages
-----

What ``zonedev pages`` prints of all pages: text with bars, JSON, lines of JSON, and CSV.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace

from drgn_zonedev.census.grouping import PgmapLabel
from drgn_zonedev.census.total import Census, DeviceUse, PageGroup
from drgn_zonedev.render.as_json import Document
from drgn_zonedev.render.as_text import kernel_line, kernel_text, size_text
from drgn_zonedev.render.cells import fitted_table, table
from drgn_zonedev.render.screen import Screen, more
from drgn_zonedev.util.strings import printable

__all__ = ("census_csv", "census_document", "census_lines", "census_text", "csv_lines")

_BAR = 24
# Eighths of a column.
_BLOCKS = " ▏▎▍▌▋▊▉█"
# Lines of a title, the blank line above it, and the headers.
_TITLE_LINES = 3


def census_text(census: Census, *, screen: Screen | None = None) -> str:
    """Render how many pages are of which kind, then by node and zone, or by what was asked for."""
    head = [kernel_line(census.kernel, screen) if screen else kernel_text(census.kernel), ""]
    head += _kinds(census, screen).split("\n")
    head += map(_device_line, census.devices)
    tail = ["", *census.unknown] if census.unknown else []
    room = None if screen is None else screen.lines - len(head) - len(tail) - _TITLE_LINES - 1
    groups = _groups(census, census.groups, screen).split("\n")
    if room is not None and len(groups) - 1 > room:
        shown = max(room - 1, 0)
        largest = sorted(census.groups, key=lambda group: -group.pages)[:shown]
        kept = [group for group in census.groups if group in largest][:shown]
        rest = [group for group in census.groups if group not in kept]
        assert screen is not None
        groups = _groups(census, kept, screen).split("\n")
        groups.append(more("groups", rest, lambda group: group.kind.value, screen))
    title = f"BY {census.by.value.upper()}" if census.by else "BY NODE AND ZONE"
    return "\n".join([*head, "", title, *groups, *tail])


def _kinds(census: Census, screen: Screen | None) -> str:
    total = census.total_pages
    # Only on a terminal: it is a picture, and files are for other programs.
    draws = screen is not None and screen.columns is not None
    rows = []
    for kind, pages in census.pages_by_kind.items():
        share = pages / total if total else 0
        cells = [kind.value, f"{pages:,}", _size(census, pages), f"{100 * share:.1f}%"]
        rows.append([*cells, *([_bar(share)] if draws else [])])
    rows.append(["total", f"{total:,}", _size(census, total)])
    headers = ("KIND", "PAGES", "SIZE", "SHARE", "")
    filled = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
    return fitted_table(headers, filled, screen, least=("",))


def _device_line(use: DeviceUse) -> str:
    return f"device memory of type {_short(use.type)}: {use.idle:,} idle, {use.in_use:,} in use"


def _bar(share: float) -> str:
    full, rest = divmod(round(share * _BAR * 8), 8)
    return _BLOCKS[8] * full + (_BLOCKS[rest] if rest else "")


def _size(census: Census, pages: int) -> str:
    return size_text(pages * census.kernel.page_size)


def _short(type_: str) -> str:
    return type_.replace("MEMORY_DEVICE_", "")


def _groups(census: Census, groups: Sequence[PageGroup], screen: Screen | None) -> str:
    headers = ["KIND", "NODE", "ZONE", "PAGES", "SIZE"]
    if census.by:
        headers.append(census.by.value.upper())
    rows = [
        [
            group.kind.value,
            _dash(group.node),
            _dash(group.zone and group.zone.replace("ZONE_", "")),
            f"{group.pages:,}",
            _size(census, group.pages),
            *([_label_text(group)] if census.by else []),
        ]
        for group in groups
    ]
    return fitted_table(headers, rows, screen, least=("SIZE",)) if rows else table(headers, rows)


def _dash(value: object) -> str:
    return "-" if value is None else str(value)


def _label_text(group: PageGroup) -> str:
    label = group.order if group.label is None else group.label
    if isinstance(label, PgmapLabel):
        use = "in use" if label.in_use else "idle"
        return f"{label.address:#x} {_short(label.type)} {label.device or '?'} {use}"
    if isinstance(label, tuple):
        return "|".join(name.replace("PG_", "") for name in label) or "none"
    return _dash(label)


def census_document(census: Census) -> Document:
    """The document of ``pages``."""
    return {
        "schema": "drgn-zonedev/pages/1",
        "total_pages": census.total_pages,
        "groups": [_group(census, group) for group in census.groups],
    }


def _group(census: Census, group: PageGroup) -> Document:
    return {
        "kind": group.kind.value,
        "node": group.node,
        "zone": group.zone,
        "order": group.order,
        "pages": group.pages,
        **({census.by.key: _label(group.label)} if census.by and census.by.key != "order" else {}),
    }


def _label(label: object) -> object:
    if isinstance(label, PgmapLabel):
        return {
            "address": hex(label.address),
            "type": label.type,
            "device": label.device,
            "in_use": label.in_use,
        }
    return list(label) if isinstance(label, tuple) else label


def census_lines(census: Census) -> str:
    """What ``pages --format jsonl`` prints: how many pages there are, then each group."""
    header = {
        "record": "header",
        "schema": "drgn-zonedev/pages-lines/1",
        "total_pages": census.total_pages,
    }
    groups = ({"record": "group", **_group(census, group)} for group in census.groups)
    return "\n".join(json.dumps(record) for record in (header, *groups))


def census_csv(census: Census) -> str:
    """What ``pages --format csv`` prints: a line for each group, and names of columns above."""
    names = ["kind", "node", "zone", "order", "pages"]
    if census.by and census.by.key != "order":
        names.append(census.by.key)
    return "".join(csv_lines(names, (_group(census, group) for group in census.groups)))


def csv_lines(names: Sequence[str], rows: Iterable[Document]) -> Iterator[str]:
    """Render rows as CSV, line by line; nothing is an empty cell."""
    # Returns what it is to write.
    writer = csv.writer(SimpleNamespace(write=str), lineterminator="")
    yield writer.writerow(names)
    for row in rows:
        yield f"\n{writer.writerow([_cell(row[name]) for name in names])}"


def _cell(value: object) -> object:
    if isinstance(value, list):
        return "|".join(value)
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values())
    return printable(value) if isinstance(value, str) else value
