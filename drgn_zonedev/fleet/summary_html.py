# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The summary of a store as one HTML file, with a section and a small picture of memory for each
dump. It needs no network and runs no script; all text is escaped, since dumps are of strangers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TextIO

from drgn_zonedev.fleet.summarise import Summary, summarise
from drgn_zonedev.fleet.summary_text import bytes_text, last_line, machine_text
from drgn_zonedev.model import CASES, Case
from drgn_zonedev.render.cells import case_text
from drgn_zonedev.render.picture.glyphs import MARKS, mark_of

__all__ = ("write_html",)

# 1000 dumps in 5 MB.
_MOST_RANGES, _MOST_FINDINGS, _MOST_TEXT = 16, 5, 160
_WIDTH, _LEAST_WIDTH = 640, 4

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:1.5rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.7rem 0}td,th{text-align:left;padding:.15rem .8rem .15rem 0;
vertical-align:top;border-bottom:1px solid #ddd;overflow-wrap:break-word}
details{border-bottom:1px solid #ddd;padding:.25rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
svg{display:block;width:100%;height:1.2rem;margin:.3rem 0}.error,.bad{color:#a33b00;font-weight:600}
.key{display:inline-block;width:1em;height:1em;border:1px solid #555;vertical-align:-.15em}
"""
_HEAD = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width"><title>zonedev survey</title>'
)

_DUMPS = """
SELECT d.id, d.path, coalesce(k.release, 'unknown'), k.build_id,
    coalesce(datetime(d.crash_time, 'unixepoch'), ''), d.ending, d.reason, d.page_size,
    (SELECT count(*) FROM findings WHERE dump = d.id),
    (SELECT count(*) FROM findings WHERE dump = d.id AND severity = 'error')
FROM dumps d LEFT JOIN kernels k ON k.id = d.kernel ORDER BY d.path
"""
_RANGES = "SELECT page_case, start_pfn, end_pfn FROM ranges WHERE dump = ? ORDER BY start_pfn"
_FINDINGS = """
SELECT severity, slug, start_pfn, end_pfn, pages, message FROM findings WHERE dump = ?
ORDER BY number LIMIT ?
"""


def write_html(connection: sqlite3.Connection, file: TextIO) -> None:
    """Write the report on an open store, a dump at a time."""
    file.write(
        f"{_HEAD}<style>{_STYLE}{_colours()}</style></head><body>\n<h1>zonedev survey</h1>\n"
    )
    file.writelines(_summary(summarise(connection)))
    file.write(f"<h2>Dumps</h2>\n{_legend()}\n")
    for row in connection.execute(_DUMPS).fetchall():
        file.writelines(_section(connection, row))
    file.write("</body></html>\n")


def _colours() -> str:
    return "".join(f".{c.value}{{fill:{_colour(c)};background:{_colour(c)}}}" for c in CASES)


def _colour(case: Case) -> str:
    return MARKS[mark_of(case)].fill


def _legend() -> str:
    keys = (f'<span class="key {c.value}"></span> {escape(case_text(c))}' for c in CASES)
    return f"<p>{' &ensp; '.join(keys)}</p><p>Pictures show ranges in order, not to scale.</p>"


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…")


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{_text(header)}</th>" for header in headers)
    body = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f"<table><tr>{head}</tr>\n{body}</table>\n" if body else "<p>none</p>\n"


def _summary(summary: Summary) -> list[str]:
    return [
        f"<p>{_text(last_line(summary))}</p>\n<h2>Kernels</h2>\n",
        _table(
            ("kernel", "builds", "dumps", "with errors", "not judged"),
            ((k.release, k.builds, k.dumps, k.with_errors, k.not_judged) for k in summary.kernels),
        ),
        "<h2>Findings</h2>\n",
        _table(
            ("severity", "finding", "kernel", "dumps", "pages", "new"),
            ((f.severity, f.slug, f.release, f.dumps, f.pages,
              "" if summary.is_first_run else f.new) for f in summary.findings),
        ),
        "<h2>Known bugs</h2>\n",
        _table(("bug", "kernel", "dumps"), ((b.bug, b.release, b.dumps) for b in summary.bugs)),
        "<h2>Device memory</h2>\n",
        _table(("of a machine", "dumps"), ((machine_text(m), m.dumps) for m in summary.machines)),
        "<h2>Not judged</h2>\n",
        _table(("ending", "dump", "why"), ((f.ending, f.path, f.reason) for f in summary.failures)),
    ]  # fmt: skip


def _section(connection: sqlite3.Connection, row: Sequence[object]) -> Iterator[str]:
    number, path, release, build_id, crashed, ending, reason, page_size, findings, errors = row
    found = (
        f"{findings} finding{'' if findings == 1 else 's'}"
        if ending == "judged"
        else f'<span class="bad">{ending}</span>'
    )
    mark = f', <span class="error">{errors} errors</span>' if errors else ""
    yield f"<details id=d{number}><summary>{_text(path)}: {found}{mark}</summary>\n"
    facts = (("kernel", release), ("build", build_id), ("crashed", crashed), ("note", reason))
    yield f"<p>{'<br>'.join(f'{name} {_text(value)}' for name, value in facts if value)}</p>\n"
    ranges = connection.execute(_RANGES, (number,)).fetchall()
    if isinstance(page_size, int) and ranges:
        yield _strip(ranges, page_size)
    rows = connection.execute(_FINDINGS, (number, _MOST_FINDINGS)).fetchall()
    if rows:
        yield _table(
            ("severity", "finding", "PFNs", "pages", "message"),
            ((r[0], r[1], f"[{r[2]:#x}, {r[3]:#x})", r[4], r[5]) for r in rows),
        )
    if isinstance(findings, int) and findings > len(rows):
        yield f"<p>and {findings - len(rows)} more, in the store</p>\n"
    yield "</details>\n"


_Range = tuple[str, int, int]


def _joined(ranges: Iterable[_Range]) -> list[_Range]:
    joined: list[_Range] = []
    for case, start, end in ranges:
        if joined and joined[-1][0] == case and joined[-1][2] == start:
            start = joined.pop()[1]
        joined.append((case, start, end))
    return joined


def _strip(ranges: Sequence[_Range], page_size: int) -> str:
    """Draw ranges side by side, each as wide as its size has digits."""
    ranges = _joined(ranges)
    shown = ranges[:_MOST_RANGES]
    weights = [max(end - start, 1).bit_length() for _, start, end in shown]
    room, x, boxes = _WIDTH - _LEAST_WIDTH * len(shown), 0, []
    for (case, start, end), weight in zip(shown, weights):
        width = _LEAST_WIDTH + room * weight // sum(weights)
        title = f"[{start:#x}, {end:#x}) {case} {bytes_text((end - start) * page_size)}"
        boxes.append(
            f'<rect x={x} width={width} height=20 class="{escape(case)}">'
            f"<title>{escape(title)}</title></rect>"
        )
        x += width
    more = f"<p>and {len(ranges) - len(shown)} more ranges</p>" if len(ranges) > len(shown) else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} 20" preserveAspectRatio="none" role="img" '
        f'stroke="#555" stroke-width=".5">{"".join(boxes)}</svg>{more}\n'
    )
