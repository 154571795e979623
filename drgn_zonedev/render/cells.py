# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What texts are made of: the words that every view uses for the same things, and tables
of them. Nothing that came out of a dump reaches the terminal unescaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Case, Finding, Pgmap
from drgn_zonedev.render.screen import Screen, cut
from drgn_zonedev.util.strings import printable

__all__ = (
    "advice_lines",
    "case_text",
    "device_text",
    "finding_line",
    "fitted_table",
    "span",
    "state_text",
    "table",
    "type_text",
)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Get a table without any lines."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="plain", disable_numparse=True)


# The last column is what can be said at any length: so much of it has to fit.
_LAST_COLUMN = 24


def fitted_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    screen: Screen | None,
    least: Sequence[str] = (),
) -> str:
    """
    Get a table whose lines do not wrap on a screen.

    :param least: the columns that go first where there is no room for all, the least first
    """
    if screen is None or screen.columns is None:
        return table(headers, rows)
    # A header has two blanks behind it.
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
    return cut(table(kept, ([row[i] for i in columns] for row in rows)), screen)


def span(start_pfn: int, end_pfn: int) -> str:
    """Get a half-open range of PFNs."""
    return f"[{start_pfn:#x}, {end_pfn:#x})"


def case_text(case: Case) -> str:
    """Get a case with its number in the 2019 mail, if it has one."""
    return case.value if case.number is None else f"{case.value} ({case.number})"


def type_text(pgmap: Pgmap) -> str:
    """Get the type of a pgmap's memory without its common prefix."""
    return pgmap.type.replace("MEMORY_DEVICE_", "")


def state_text(pgmap: Pgmap) -> str:
    """Get what becomes of a pgmap right now."""
    return "initializing" if pgmap.in_progress else pgmap.ref.state


def device_text(pgmap: Pgmap) -> str | None:
    """Get the name of a pgmap's device, not escaped, with its disk if it has one."""
    if pgmap.device is None:
        return None
    name, disk = pgmap.device.name, pgmap.device.disk
    return f"{name} ({disk})" if disk else name


def finding_line(finding: Finding) -> str:
    """Get a line about a finding."""
    where = span(finding.start_pfn, finding.end_pfn)
    return printable(f"{finding.severity.value}: {finding.slug} {where}: {finding.message}")


def advice_lines(finding: Finding) -> Iterator[str]:
    """Get what all findings of a kind have in common: how it comes about, and what to do."""
    kind = KINDS[finding.slug]
    yield f"    why: {kind.explanation}"
    yield f"    cure: {kind.cure}"
