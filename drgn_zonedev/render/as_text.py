# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Text
----

The human's view. Nothing that came out of a dump reaches the terminal
unescaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from drgn_zonedev.kernel.strings import printable
from drgn_zonedev.model import (
    Case,
    Coverage,
    Evidence,
    Finding,
    KernelFacts,
    Missing,
    Pgmap,
    PgmapRange,
    Range,
    Report,
    Severity,
    Unjudged,
)
from drgn_zonedev.render.cases import TELLING
from drgn_zonedev.render.cells import (
    advice_lines,
    case_text,
    device_text,
    span,
    state_text,
    table,
    type_text,
)
from drgn_zonedev.render.screen import Screen, chosen, cut, height, left_out, more, share

if TYPE_CHECKING:
    from drgn_zonedev.sections import SectionRow

__all__ = (
    "evidence_lines",
    "pgmaps_text",
    "ranges_text",
    "report_text",
    "sections_text",
    "size_text",
)

T = TypeVar("T")


def size_text(size: int) -> str:
    """Get a number of bytes in the largest binary unit that divides it reasonably."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def _fold(
    items: Sequence[T],
    screen: Screen | None,
    things: str,
    *,
    as_table: Callable[[Sequence[T]], str],
    kind: Callable[[T], str],
    rank: Callable[[T], int],
) -> str:
    """
    Get a table, or as much of it as fits on a screen.

    :param things: what the items are, in plural
    :param kind: what an item is; what is left out is counted by it
    :param rank: how important an item is, 0 being the most
    """
    if screen is None:
        return as_table(items)
    if len(items) < screen.lines:
        text = as_table(items)
        if height(text, screen) <= screen.lines:
            return text
    # Lines of headings, and the one that counts.
    room = max(screen.lines - 2, 1)
    shown = chosen([kind(i) for i in items], [rank(i) for i in items], room)
    rest = left_out(items, shown)
    text = cut(as_table([items[i] for i in shown]), screen)
    return f"{text}\n{printable(more(things, rest, kind, screen))}" if rest else text


def _heading(title: str) -> str:
    return f"\n{title}\n"


def report_text(report: Report, *, verbose: bool = False, screen: Screen | None = None) -> str:
    """
    What ``check`` prints: pgmaps, ranges, findings, and how sure it is.

    :param verbose: show all evidence
    :param screen: leave out, and count, what does not fit on it
    """
    views = _views(report, verbose)
    head = [kernel_text(report.kernel)]
    tail = ["", _coverage(report.coverage, report.kernel), _summary(report)]
    headings = [_heading(title) for title, _ in views]
    texts = [view(screen) for _, view in views]
    if screen is not None:
        lines = screen.lines - sum(height(text, screen) for text in head + tail)
        if lines < (3 + _LEAST_LINES) * len(views):
            headings = [title for title, _ in views]
        lines -= sum(height(text, screen) for text in headings)
        heights = [height(text, screen) for text in texts]
        weights = [3 if title == "FINDINGS" else 1 for title, _ in views]
        for i, share_ in enumerate(share(lines, heights, weights, _LEAST_LINES)):
            if share_ < heights[i]:
                texts[i] = views[i][1](Screen(share_, screen.columns))
    for heading, text in zip(headings, texts):
        head += [heading, text]
    return "\n".join(head + tail)


# A heading, what matters most, and how much more there is.
_LEAST_LINES = 3


def _views(report: Report, verbose: bool) -> list[tuple[str, Callable[[Screen | None], str]]]:
    kernel = report.kernel
    views: list[tuple[str, Callable[[Screen | None], str]]] = []
    if report.pgmaps:
        views.append(("PGMAPS", lambda screen: pgmaps_text(kernel, report.pgmaps, screen=screen)))
    views.append(
        (
            "RANGES",
            lambda screen: ranges_text(kernel, report.ranges, verbose=verbose, screen=screen),
        )
    )
    if report.findings:
        views.append(("FINDINGS", lambda screen: _findings_text(report.findings, verbose, screen)))
    if report.unjudged:
        views.append(("NOT JUDGED", lambda screen: _unjudged(report.unjudged, screen)))
    if report.missing:
        views.append(("MISSING MEMORY", lambda screen: _missing(report.missing, screen)))
    return views


def kernel_name(kernel: KernelFacts) -> str:
    """Which kernel it is, and whether it runs."""
    live = ", live" if kernel.live else ""
    return f"Linux {printable(kernel.release)} {kernel.architecture}{live}"


def kernel_text(kernel: KernelFacts) -> str:
    """One line about the kernel."""
    return (
        f"{kernel_name(kernel)}: sections of {size_text(kernel.section_size)}, "
        f"subsections of {size_text(kernel.subsection_size)}, "
        f"pages of {size_text(kernel.page_size)}, struct page of {kernel.sizeof_page} bytes"
    )


def _state(pgmap: Pgmap) -> str:
    state, count = state_text(pgmap), pgmap.ref.count
    return state if count is None else f"{state}, {count} {'ref' if count == 1 else 'refs'}"


def _altmap(pgmap: Pgmap) -> str:
    altmap = pgmap.altmap
    if altmap is None:
        return "in RAM"
    return f"on device: reserve {altmap.reserve}, free {altmap.free}, alloc {altmap.alloc}"


def pgmaps_text(
    kernel: KernelFacts, pgmaps: Iterable[Pgmap], *, screen: Screen | None = None
) -> str:
    """A row per range of each pgmap, or as many as fit on a screen."""
    ranges = [(pgmap, range_) for pgmap in pgmaps for range_ in pgmap.ranges]
    if not ranges:
        return "no pgmaps: this machine has no ZONE_DEVICE memory"
    return _fold(
        ranges,
        screen,
        "ranges of pgmaps",
        as_table=lambda shown: _pgmaps_table(kernel, shown),
        kind=lambda shown: type_text(shown[0]),
        rank=lambda shown: 0 if shown[0].in_progress else 1 + (shown[0].ref.state == "live"),
    )


def _pgmaps_table(kernel: KernelFacts, ranges: Sequence[tuple[Pgmap, PgmapRange]]) -> str:
    rows = []
    last = None
    for pgmap, range_ in ranges:
        first = pgmap is not last
        last = pgmap
        pages = range_.end_pfn - range_.start_pfn
        rows.append(
            (
                f"{pgmap.address:#x}" if first else "",
                type_text(pgmap) if first else "",
                span(range_.start_pfn, range_.end_pfn),
                size_text(pages * kernel.page_size),
                size_text(kernel.page_size << pgmap.vmemmap_shift) if first else "",
                _state(pgmap) if first else "",
                _altmap(pgmap) if first else "",
                (device_text(pgmap) or pgmap.ops or "?") if first else "",
            )
        )
    return table(("PGMAP", "TYPE", "PFNS", "SIZE", "PAGES OF", "STATE", "MEMMAP", "DEVICE"), rows)


def ranges_text(
    kernel: KernelFacts,
    ranges: Iterable[Range],
    *,
    verbose: bool = False,
    screen: Screen | None = None,
) -> str:
    """A row per range, with the evidence below it if *verbose*, or as many as fit on a screen."""
    return _fold(
        list(ranges),
        screen,
        "ranges",
        as_table=lambda shown: _ranges_table(kernel, shown, verbose),
        kind=lambda range_: range_.case.value,
        rank=lambda range_: _TELLING_RANKS[range_.case],
    )


_TELLING_RANKS: dict[Case, int] = {case: rank for rank, case in enumerate(TELLING)}


def _ranges_table(kernel: KernelFacts, ranges: Sequence[Range], verbose: bool) -> str:
    text = table(
        ("PFNS", "PAGES", "SIZE", "CASE", "MEMMAP", "PGMAP", "WHY"),
        [
            (
                span(r.start_pfn, r.end_pfn),
                r.pages,
                size_text(r.pages * kernel.page_size),
                case_text(r.case),
                r.memmap.value,
                "" if r.pgmap is None else f"{r.pgmap:#x}",
                r.reason,
            )
            for r in ranges
        ],
    )
    if not verbose:
        return text
    header, *lines = text.splitlines()
    parts = [header]
    for line, range_ in zip(lines, ranges):
        parts += [line, *evidence_lines(range_.evidence)]
    return "\n".join(parts)


def evidence_lines(evidence: Iterable[Evidence]) -> Iterator[str]:
    """A line per fact: what, where it was read, what was there."""
    for fact in evidence:
        text = f"    {fact.what}"
        if fact.address is not None:
            text += f" @ {fact.address:#x}"
        if fact.value is not None:
            # Everything else that has a value is a word or an address.
            count = fact.what.startswith("struct pages:")
            text += f" = {fact.value if count else hex(fact.value)}"
        if fact.expected is not None:
            text += f", expected {fact.expected:#x}"
        if fact.note:
            text += f": {fact.note}"
        yield printable(text)


def _findings_text(findings: Sequence[Finding], verbose: bool, screen: Screen | None) -> str:
    if screen is None or len(findings) <= screen.lines:
        text = "\n".join(line for finding in findings for line in _finding(finding, verbose))
        if screen is None or height(text, screen) <= screen.lines:
            return text
    # The first of each kind, their evidence while there is room for it, and one line each for
    # some others.
    room = max(screen.lines - 1, 1)
    slugs = [finding.slug for finding in findings]
    ranks = [finding.severity.rank for finding in findings]
    with_evidence = {}
    used = min(room, len(set(slugs)))
    for i in sorted(chosen(slugs, ranks, used), key=ranks.__getitem__):
        block = "\n".join(_finding(findings[i], verbose))
        evidence = height(block, screen) - 1
        if used + evidence <= room:
            with_evidence[i] = block
            used += evidence
    extra = sum(height(block, screen) - 1 for block in with_evidence.values())
    shown = chosen(slugs, ranks, room - extra)
    rest = left_out(findings, shown)
    parts = [
        with_evidence.get(i) or cut(next(_finding(findings[i], verbose)), screen) for i in shown
    ]
    if rest:
        parts.append(printable(more("findings", rest, lambda f: f.slug, screen)))
    return "\n".join(parts)


def _finding(finding: Finding, verbose: bool) -> Iterator[str]:
    count = "" if finding.count == finding.end_pfn - finding.start_pfn else " of them"
    yield printable(
        f"{finding.severity.value}: {finding.slug} {span(finding.start_pfn, finding.end_pfn)} "
        f"{finding.count} {'page' if finding.count == 1 else 'pages'}{count}: {finding.message}"
    )
    # What decided the range is with the range; here, what was found in it.
    shown = finding.evidence if verbose else _telling(finding)
    yield from evidence_lines(shown)
    if verbose:
        yield from advice_lines(finding)


def _telling(finding: Finding) -> list[Evidence]:
    return [
        e
        for e in finding.evidence
        if finding.severity is Severity.ERROR or e.what.startswith(("struct page", "pgmap->nr_"))
    ]


def _unjudged(unjudged: Sequence[Unjudged], screen: Screen | None) -> str:
    return _fold(
        unjudged,
        screen,
        "not judged",
        as_table=lambda shown: table(
            ("PFNS", "WHY"), [(span(u.start_pfn, u.end_pfn), u.reason) for u in shown]
        ),
        kind=lambda u: u.reason,
        rank=lambda u: 0,
    )


def _missing(missing: Sequence[Missing], screen: Screen | None) -> str:
    return _fold(
        missing,
        screen,
        "missing",
        as_table=lambda shown: table(
            ("PHYSICAL ADDRESSES", "SIZE", "WHAT IT HOLDS", "WHY"),
            [(_bytes(m), size_text(m.end - m.start), m.holds, m.hint) for m in shown],
        ),
        kind=lambda m: m.hint,
        rank=lambda m: 0,
    )


def _bytes(missing: Missing) -> str:
    known = missing.start < missing.end
    return f"[{missing.start:#x}, {missing.end:#x})" if known else "not known"


def _coverage(coverage: Coverage, kernel: KernelFacts) -> str:
    text = (
        f"{coverage.pages_verified} struct pages looked at "
        f"({size_text(coverage.bytes_read)} of memmap)"
    )
    if coverage.aliases_skipped:
        text += f", {coverage.aliases_skipped} of them aliases of shared vmemmap"
    if coverage.pages_unreadable:
        text += f", {coverage.pages_unreadable} not readable"
    if coverage.retries:
        text += f"\nthe kernel moved: {coverage.retries} readings were torn and taken again"
        text += f", {coverage.torn} answers remained torn" if coverage.torn else ""
    return text


def _summary(report: Report) -> str:
    counts = Counter(f.severity for f in report.findings)
    return ", ".join(
        f"{counts[s]} {s.value}{'' if counts[s] == 1 or s is Severity.INFO else 's'}"
        for s in Severity
    )


def sections_text(
    kernel: KernelFacts, rows: Sequence[SectionRow], *, screen: Screen | None = None
) -> str:
    """A row per section with its flags and its subsections as a bar, or as many as fit."""
    if not rows:
        return "no present sections"
    return _fold(
        rows,
        screen,
        "sections",
        as_table=_sections_table,
        kind=_section_kind,
        rank=_section_rank,
    )


def _section_kind(row: SectionRow) -> str:
    block = row.memory_block or "without memory block"
    if row.subsections is None:
        return f"{block} not readable"
    tainted = any("TAINT" in flag for flag in row.flags)
    return f"{block}{' tainted' if tainted else ''}{'' if _is_full(row) else ' partial'}"


def _section_rank(row: SectionRow) -> int:
    # What is not known, what is shared, what is no RAM in use, and the rest.
    if row.subsections is None:
        return 0
    if not _is_full(row) or any("TAINT" in flag for flag in row.flags):
        return 1
    return 2 if row.memory_block != "MEM_ONLINE" else 3


def _is_full(row: SectionRow) -> bool:
    present = sum(bin(word).count("1") for word in row.subsections or ())
    return present == row.subsections_per_section


def _sections_table(rows: Sequence[SectionRow]) -> str:
    return table(
        ("NR", "PFNS", "SECTION", "FLAGS", "BLOCK", "SUBSECTIONS"),
        [
            (
                row.nr,
                span(row.start_pfn, row.end_pfn),
                f"{row.address:#x}",
                "|".join(row.flags),
                row.memory_block or "-",
                _bar(row),
            )
            for row in rows
        ],
    )


def _bar(row: SectionRow) -> str:
    if row.subsections is None:
        return "not readable"
    bits = [row.subsections[i // 64] >> i % 64 & 1 for i in range(row.subsections_per_section)]
    if all(bits):
        return f"all {len(bits)}"
    if not any(bits):
        return f"none of {len(bits)}"
    # A character for four subsections: as a hexadecimal digit, lowest PFN
    # first, it would have to be read backwards. This reads left to right.
    cells = [bits[i : i + 4] for i in range(0, len(bits), 4)]
    return "".join("#" if all(c) else "+" if any(c) else "." for c in cells)
