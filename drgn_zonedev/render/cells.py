# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The words that every view uses for the same things, and tables of them. Text from a dump is
always escaped before it reaches the terminal.
"""

from __future__ import annotations

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
    "fitted_table",
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
    if screen is None or screen.columns is None:
        return table(headers, rows)
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
    return cut(table(kept, ([row[i] for i in columns] for row in rows)), screen)


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
    """Get the name of a pgmap's device, not escaped, with its disk if it has one."""
    if pgmap.device is None:
        return None
    name, disk = pgmap.device.name, pgmap.device.disk
    return f"{name} ({disk})" if disk else name


def finding_line(finding: Finding) -> str:
    """Format a finding as a line."""
    where = span(finding.start_pfn, finding.end_pfn)
    return printable(f"{finding.severity.value}: {finding.slug} {where}: {finding.message}")


def advice_lines(finding: Finding) -> Iterator[str]:
    """Get the explanation and the cure of a kind of findings, and the known bugs of this one."""
    kind = KINDS[finding.slug]
    yield f"    why: {kind.explanation}"
    yield f"    cure: {kind.cure}"
    yield from bug_lines(finding.known_bugs)
