# SPDX-License-Identifier: LGPL-2.1-or-later

"""What tables are made of. Nothing that came out of a dump reaches the terminal unescaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from drgn_zonedev.render.as_text import printable

__all__ = ("case_text", "span", "table")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Get a table without any lines."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    return tabulate(cells, headers=headers, tablefmt="plain", disable_numparse=True)


def span(start_pfn: int, end_pfn: int) -> str:
    """Get a half-open range of PFNs."""
    return f"[{start_pfn:#x}, {end_pfn:#x})"


def case_text(name: str, number: int | None) -> str:
    """Get a case with its number in the 2019 mail, if it has one."""
    return name if number is None else f"{name} ({number})"
