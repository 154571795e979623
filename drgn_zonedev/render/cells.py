# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The words that every view uses for the same things, and tables of them. Text from a dump is
always escaped before it reaches the terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Case, Finding, Pgmap
from drgn_zonedev.render.bugs import bug_lines
from drgn_zonedev.render.screen import Screen, cut
from drgn_zonedev.util.strings import printable

__all__ = (
    "advice_lines",
    "case_text",
    "device_text",
    "finding_line",
    "fitted_rows",
    "fitted_table",
    "kind_lines",
    "span",
    "state_text",
    "table",
    "type_text",
)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a table without rules."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="plain", disable_numparse=True)


# The last column can be cut anywhere; this much of it must fit.
_LAST_COLUMN = 24


def fitted_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    screen: Screen | None,
    least: Sequence[str] = (),
) -> str:
    """
    Render a table whose lines do not wrap on a screen.

    :param least: columns to drop if there is not enough room, the least important first
    """
    return "\n".join(fitted_rows(headers, rows, screen, least))


def fitted_rows(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    screen: Screen | None,
    least: Sequence[str] = (),
) -> list[str]:
    """
    Like :func:`fitted_table()`, but get the header and each row by itself. A row has several
    lines if the last column is too long for a screen that has room for them.
    """
    if screen is None or screen.columns is None:
        return table(headers, rows).split("\n")
    # Two spaces follow a header.
    widths = {
        header: max([len(header) + 2, *(len(printable(str(row[i]))) for row in rows)])
        for i, header in enumerate(headers)
    }
    kept = list(headers)
    for header in least:
        *others, last = kept
        width = sum(widths[h] + 2 for h in others) + min(widths[last], _LAST_COLUMN)
        if width <= screen.columns:
            break
        kept.remove(header)
    columns = [headers.index(header) for header in kept]
    lines = table(kept, ([row[i] for i in columns] for row in rows)).split("\n")
    if screen.is_endless:
        indent = lines[0].rindex(kept[-1]) if kept[-1] else 0
        return [_hanging(line, indent, screen.columns) for line in lines]
    return [cut(line, screen) for line in lines]


def _hanging(line: str, indent: int, columns: int) -> str:
    if len(line) <= columns or columns - indent < _LAST_COLUMN:
        return line
    words = textwrap.wrap(line[indent:], columns - indent, break_on_hyphens=False)
    return f"\n{' ' * indent}".join([line[:indent] + words[0], *words[1:]])


def span(start_pfn: int, end_pfn: int) -> str:
    """Format a half-open range of PFNs."""
    return f"[{start_pfn:#x}, {end_pfn:#x})"


def case_text(case: Case) -> str:
    """Format a case with its number in the 2019 mail, if it has one."""
    return case.value if case.number is None else f"{case.value} ({case.number})"


def type_text(pgmap: Pgmap) -> str:
    """Get the type of a pgmap's memory without its common prefix."""
    return pgmap.type.replace("MEMORY_DEVICE_", "")


def state_text(pgmap: Pgmap) -> str:
    """Get the state of a pgmap: ``initializing``, or that of its reference."""
    return "initializing" if pgmap.in_progress else pgmap.ref.state


def device_text(pgmap: Pgmap) -> str | None:
    """
    Get the name of a pgmap's device, not escaped, with its disk if it has one; that of its
    memory if the device is not known.
    """
    if pgmap.device is None:
        return pgmap.resource
    name, disk = pgmap.device.name, pgmap.device.disk
    return f"{name} ({disk})" if disk else name


def finding_line(finding: Finding) -> str:
    """Format a finding as a line."""
    where = span(finding.start_pfn, finding.end_pfn)
    return printable(f"{finding.severity.value}: {finding.slug} {where}: {finding.message}")


def advice_lines(finding: Finding) -> Iterator[str]:
    """Get the explanation and the cure of a kind of findings, and the known bugs of this one."""
    yield from kind_lines(finding.slug)
    yield from bug_lines(finding.known_bugs)


def kind_lines(slug: str) -> Iterator[str]:
    """Get the explanation and the cure of a kind of findings."""
    yield from (f"    why: {KINDS[slug].explanation}", f"    cure: {KINDS[slug].cure}")
