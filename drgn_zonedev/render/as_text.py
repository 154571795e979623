# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Text
----

Reports as text. Text from a dump is always escaped before it reaches the terminal.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from drgn_zonedev.model import (
    Case,
    Evidence,
    EvidenceKind,
    Finding,
    KernelFacts,
    Missing,
    Pgmap,
    PgmapRange,
    Provenance,
    Range,
    Report,
    Severity,
    Unjudged,
)
from drgn_zonedev.render.bugs import bug_lines
from drgn_zonedev.render.cases import TELLING, unusual_access
from drgn_zonedev.render.cells import (
    advice_lines,
    case_text,
    device_text,
    fitted_table,
    span,
    state_text,
    type_text,
)
from drgn_zonedev.render.finding_groups import (
    FindingGroup,
    group_findings,
    group_line,
)
from drgn_zonedev.render.looked_at import kinds_text, not_looked_at_text, scope_text
from drgn_zonedev.render.pgmap_devices import (
    device_line,
    devices_table,
    is_known,
    one_per_device,
)
from drgn_zonedev.render.screen import (
    NARROWED,
    SHOW_ALL,
    Screen,
    cut,
    height,
    is_folded,
    placed,
    placed_firsts,
    share,
    with_gaps,
    wrapped,
)
from drgn_zonedev.util.strings import printable

if TYPE_CHECKING:
    from drgn_zonedev.classification.section_rows import SectionRow

__all__ = (
    "evidence_lines",
    "pgmaps_text",
    "provenance_text",
    "ranges_text",
    "report_text",
    "sections_text",
    "severities_text",
    "size_text",
    "time_text",
)

_T = TypeVar("_T")


def size_text(size: int) -> str:
    """Format a number of bytes in a suitable binary unit."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def _fold(
    items: Sequence[_T],
    screen: Screen | None,
    things: str,
    *,
    as_table: Callable[[Sequence[_T], Screen | None], str],
    kind: Callable[[_T], str],
    rank: Callable[[_T], int],
) -> str:
    """
    Render a table, or as much of it as fits on a screen.

    :param things: noun for the items, in plural
    :param as_table: renders a line of headers and a line per item, not wider than a screen
    :param kind: kind of an item; items that are left out are counted by kind
    :param rank: rank of an item, 0 being the most important
    """
    if screen is None:
        return as_table(items, None)
    if len(items) < screen.lines:
        text, narrow = as_table(items, None), as_table(items, screen)
        if narrow == text or (screen.is_endless and _header(narrow) == _header(text)):
            return narrow
        if len(items) + 2 <= screen.lines:
            return f"{narrow}\n{NARROWED}"
    kinds, ranks = [kind(i) for i in items], [rank(i) for i in items]
    shown = placed(kinds, ranks, screen.lines - 1)
    header, *lines = as_table([items[i] for i in shown], screen).split("\n")
    if not shown:
        # There is not enough room for the headers.
        shown = placed(kinds, ranks, screen.lines)
        header, *lines = as_table([items[i] for i in shown], screen).split("\n")
        header = ""
    folded = with_gaps(lines, shown, items, things, kind, screen)
    return "\n".join([*([header] if header else []), *map(printable, folded)])


def _header(text: str) -> str:
    return text.split("\n", 1)[0]


def report_text(
    report: Report, *, verbose: bool = False, each: bool = False, screen: Screen | None = None
) -> str:
    """
    What ``check`` prints: pgmaps, ranges, findings, and how much was verified.

    :param verbose: show all evidence, and each finding by itself
    :param each: show each finding by itself, instead of equal ones together
    :param screen: show only what fits on this screen, and count the rest
    """
    views = _views(report, verbose, each or verbose)
    kernel, coverage, reservations = report.kernel, _coverage(report), list(_reservations(report))
    texts = [view(screen) for _, view in views]
    if screen and screen.is_endless:
        coverage, *reservations = (wrapped(line, screen) for line in (coverage, *reservations))
    parts = [kernel_text(kernel) if screen is None else kernel_line(kernel, screen)]
    if report.provenance:
        origin = provenance_text(report.provenance)
        parts.append(origin if screen is None else wrapped(origin, screen))
    for (title, _), text in zip(views, texts):
        parts += [f"\n{title}\n", text]
    parts += ["", coverage, *_kinds(report), *reservations, severities_text(report)]
    whole = "\n".join(parts)
    if screen is None or height(whole, screen) <= screen.lines:
        return whole
    head = kernel_line(kernel, screen)
    tail = [wrapped(line, screen) for line in (coverage, *reservations, severities_text(report))]
    lines = screen.lines - height(head, screen) - sum(height(text, screen) for text in tail)
    # Separate by blank lines only if there is room for them.
    blank = "\n" if lines >= (3 + _FAIR_LINES) * len(views) + 1 else ""
    headings = [f"{blank}{title}{blank}" for title, _ in views]
    lines -= sum(height(text, screen) for text in headings) + len(blank)
    heights = [height(text, screen) for text in texts]
    weights = [_WEIGHTS.get(title, 1) for title, _ in views]
    parts = [head]
    for i, share_ in enumerate(share(lines, heights, weights, _LEAST_LINES)):
        parts.append(headings[i])
        if share_ < heights[i]:
            texts[i] = views[i][1](Screen(max(share_, 1), screen.columns))
        parts.append(texts[i])
    return "\n".join([*parts, *([""] if blank else []), *tail])


# A heading, the most important item, and the count of the rest.
_LEAST_LINES = 3
# Lines for each view that wants them.
_FAIR_LINES = 6
# Weights for dividing the remaining lines.
_WEIGHTS = {"FINDINGS": 3, "RANGES": 2}


def _views(
    report: Report, verbose: bool, each: bool
) -> list[tuple[str, Callable[[Screen | None], str]]]:
    kernel = report.kernel
    alone = [FindingGroup((finding,)) for finding in report.findings]
    groups = alone if each else group_findings(report.findings)
    views: list[tuple[str, object, Callable[[Screen | None], str]]] = [
        ("PGMAPS", report.pgmaps, lambda screen: _pgmaps_alone(kernel, report.pgmaps, screen)),
        (
            "RANGES",
            True,
            lambda screen: ranges_text(
                kernel, report.ranges, verbose=verbose, screen=screen, pgmaps=report.pgmaps
            ),
        ),
        ("FINDINGS", report.findings, lambda screen: _findings_text(groups, verbose, screen)),
        ("NOT JUDGED", report.unjudged, lambda screen: _unjudged(report.unjudged, screen)),
        ("MISSING MEMORY", report.missing, lambda screen: _missing(report.missing, screen)),
    ]
    return [(title, view) for title, has_any, view in views if has_any]


def kernel_name(kernel: KernelFacts) -> str:
    """The release and architecture, whether it is running, and BTF if types are from there."""
    live = ", live" if kernel.live else ""
    types = ", types from BTF" if kernel.types_from_btf else ""
    return f"Linux {printable(kernel.release)} {kernel.architecture}{live}{types}"


def kernel_text(kernel: KernelFacts) -> str:
    """One line about the kernel."""
    return (
        f"{kernel_name(kernel)}: sections of {size_text(kernel.section_size)}, "
        f"subsections of {size_text(kernel.subsection_size)}, "
        f"pages of {size_text(kernel.page_size)}, struct page of {kernel.sizeof_page} bytes"
    )


def provenance_text(origin: Provenance) -> str:
    """One line about where a report comes from."""
    parts = [origin.source]
    if origin.build_id is not None:
        parts.append(f"build ID {origin.build_id}")
    if origin.crash_time is not None:
        parts.append(f"crashed {time_text(origin.crash_time)}")
    return printable(", ".join([*parts, f"types from {origin.types}", f"zonedev {origin.tool}"]))


def time_text(seconds: int) -> str:
    """Format seconds since 1970."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def kernel_line(kernel: KernelFacts, screen: Screen) -> str:
    """As much about the kernel as fits on a line, but at least its release."""
    text = kernel_text(kernel)
    return text if height(text, screen) == 1 else kernel_name(kernel)


def _state(pgmap: Pgmap) -> str:
    state, count = state_text(pgmap), pgmap.ref.count
    return state if count is None else f"{state}, {count} {'ref' if count == 1 else 'refs'}"


def _memmap(kernel: KernelFacts, pgmap: Pgmap) -> str:
    altmap = pgmap.altmap
    if altmap is None:
        return "in RAM"
    pages = sum(r.end_pfn - r.start_pfn for r in pgmap.ranges)
    needed = -(-pages * kernel.sizeof_page // kernel.page_size)
    # Memory that shares an early section with RAM has its struct pages there.
    where = (
        "in RAM (altmap unused)"
        if altmap.alloc == 0
        else "partly on device"
        if altmap.alloc < needed
        else "on device"
    )
    return f"{where}: reserve {altmap.reserve}, free {altmap.free}, alloc {altmap.alloc}"


def pgmaps_text(
    kernel: KernelFacts, pgmaps: Iterable[Pgmap], *, screen: Screen | None = None
) -> str:
    """
    Render a row per range of each pgmap, and one per device of which more is known than its
    name, or as many as fit on a screen.
    """
    found = tuple(pgmaps)
    texts = [_pgmaps_alone(kernel, found, screen), _devices_text(found, screen)]
    whole = "\n\n".join(filter(None, texts))
    if screen is None or not texts[1] or height(whole, screen) <= screen.lines:
        return whole
    # On a screen of a few lines, the pgmaps are alone.
    room = screen.lines - 1
    shares = share(room, [height(text, screen) for text in texts], (2, 1), _LEAST_LINES)
    if sum(shares) > room:
        return texts[0]
    screens = [Screen(lines, screen.columns) for lines in shares]
    return f"{_pgmaps_alone(kernel, found, screens[0])}\n\n{_devices_text(found, screens[1])}"


def _devices_text(pgmaps: Sequence[Pgmap], screen: Screen | None) -> str:
    known = [pgmap for pgmap in one_per_device(pgmaps) if is_known(pgmap)]
    if not known:
        return ""
    return _fold(
        known,
        screen,
        "devices",
        as_table=lambda shown, screen: devices_table(shown, screen=screen),
        kind=lambda pgmap: pgmap.device.kind if pgmap.device else "",
        rank=lambda pgmap: 0,
    )


def _pgmaps_alone(kernel: KernelFacts, pgmaps: Iterable[Pgmap], screen: Screen | None) -> str:
    ranges = [(pgmap, range_) for pgmap in pgmaps for range_ in pgmap.ranges]
    if not ranges:
        return "no pgmaps: this machine has no ZONE_DEVICE memory"
    return _fold(
        ranges,
        screen,
        "ranges of pgmaps",
        as_table=lambda shown, screen: _pgmaps_table(kernel, shown, screen),
        kind=lambda shown: type_text(shown[0]),
        rank=lambda shown: 0 if shown[0].in_progress else 1 + (shown[0].ref.state == "live"),
    )


def _pgmaps_table(
    kernel: KernelFacts, ranges: Sequence[tuple[Pgmap, PgmapRange]], screen: Screen | None
) -> str:
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
                _memmap(kernel, pgmap) if first else "",
                (device_text(pgmap) or pgmap.ops or "?") if first else "",
            )
        )
    headers = ("PGMAP", "TYPE", "PFNS", "SIZE", "PAGES OF", "STATE", "MEMMAP", "DEVICE")
    return fitted_table(headers, rows, screen, ("PAGES OF", "MEMMAP", "PGMAP", "SIZE", "TYPE"))


def ranges_text(
    kernel: KernelFacts,
    ranges: Iterable[Range],
    *,
    verbose: bool = False,
    screen: Screen | None = None,
    pgmaps: Iterable[Pgmap] = (),
) -> str:
    """
    Render a row per range, with evidence if *verbose*, or as many as fit on a screen.

    :param pgmaps: with their devices, which are part of the evidence
    """
    if verbose:
        screen = None
    lines = {pgmap.address: device_line(pgmap) for pgmap in pgmaps}
    return _fold(
        list(ranges),
        screen,
        "ranges",
        as_table=lambda shown, screen: (
            _with_evidence(shown, _ranges_table(kernel, shown, screen), lines)
            if verbose
            else _ranges_table(kernel, shown, screen)
        ),
        kind=lambda range_: range_.case.value,
        rank=lambda range_: _TELLING_RANKS[range_.case],
    )


_TELLING_RANKS: dict[Case, int] = {case: rank for rank, case in enumerate(TELLING)}


def _ranges_table(kernel: KernelFacts, ranges: Sequence[Range], screen: Screen | None) -> str:
    return fitted_table(
        ("PFNS", "PAGES", "SIZE", "CASE", "MEMMAP", "PGMAP", "WHY"),
        [
            (
                span(r.start_pfn, r.end_pfn),
                r.pages,
                size_text(r.pages * kernel.page_size),
                case_text(r.case),
                r.memmap.value,
                "" if r.pgmap is None else f"{r.pgmap:#x}",
                _why(r),
            )
            for r in ranges
        ],
        screen,
        ("PAGES", "PGMAP", "SIZE", "MEMMAP", "WHY"),
    )


def _with_evidence(ranges: Sequence[Range], table: str, devices: dict[int, str]) -> str:
    header, *lines = table.splitlines()
    parts = [header]
    for line, range_ in zip(lines, ranges):
        device = devices.get(range_.pgmap or 0, "")
        parts += [line, *evidence_lines(range_.evidence), *([device] if device else [])]
    return "\n".join(parts)


def _why(range_: Range) -> str:
    access = unusual_access(range_)
    return f"{range_.reason}; {access}" if access else range_.reason


def evidence_lines(evidence: Iterable[Evidence]) -> Iterator[str]:
    """Render a line per fact: what it is, its address, and its value."""
    for fact in evidence:
        # All other values are words or addresses.
        form = "d" if fact.kind is EvidenceKind.PAGE_COUNT else "#x"
        parts = (
            f"    {fact.what}",
            "" if fact.address is None else f" @ {fact.address:#x}",
            "" if fact.value is None else f" = {fact.value:{form}}",
            "" if fact.expected is None else f", expected {fact.expected:#x}",
            f": {fact.note}" if fact.note else "",
        )
        yield printable("".join(parts))


def _findings_text(groups: Sequence[FindingGroup], verbose: bool, screen: Screen | None) -> str:
    if screen is None or len(groups) <= screen.lines:
        text = "\n".join(line for group in groups for line in _group(group, verbose))
        if screen and screen.is_endless:
            return wrapped(text, screen)
        if screen is None or height(text, screen) <= screen.lines:
            return text
    text = _folded_findings(groups, verbose, screen, screen.lines)
    if is_folded(text):
        return text
    return f"{_folded_findings(groups, verbose, screen, screen.lines - 1)}\n{_NO_EVIDENCE}"


_NO_EVIDENCE = f"... evidence left out {SHOW_ALL}"


def _folded_findings(
    groups: Sequence[FindingGroup], verbose: bool, screen: Screen, room: int
) -> str:
    # One line for each group or, if they do not fit, for the first of each kind. If there is
    # room, show these in full, then with evidence, and then one line for some of the others.
    slugs = [group.slug for group in groups]
    ranks = [group.severity.rank for group in groups]
    first = placed_firsts(slugs, ranks, room)
    begun = range(len(groups)) if len(groups) <= room else first
    left = room - _height_with_gaps(begun, len(groups))
    blocks = {i: _headline(groups[i], screen) for i in first}
    for lines in (1, None):
        for i in sorted(first, key=ranks.__getitem__):
            block = "\n".join(
                wrapped(line, screen) for line in list(_group(groups[i], verbose))[:lines]
            )
            extra = height(block, screen) - height(blocks[i], screen)
            if extra <= left:
                blocks[i] = block
                left -= extra
    extra = sum(height(block, screen) - 1 for block in blocks.values())
    shown = placed(slugs, ranks, room - extra)
    texts = [blocks[i] if i in blocks else _headline(groups[i], screen) for i in shown]
    things = "findings" if all(len(g.findings) == 1 for g in groups) else "groups of findings"
    return "\n".join(with_gaps(texts, shown, groups, things, lambda group: group.slug, screen))


def _height_with_gaps(shown: Sequence[int], count: int) -> int:
    ends = [-1, *shown, count]
    return len(shown) + sum(b - a > 1 for a, b in zip(ends, ends[1:]))


def _headline(group: FindingGroup, screen: Screen) -> str:
    """Get a line that contains at least the slug and the PFNs."""
    line = next(_group(group, False))
    where = f"{group.slug} {span(group.start_pfn, group.end_pfn)}"
    if height(line[: line.index(where) + len(where)], screen) > 1:
        line = line[line.index(where) :]
    return cut(line, screen)


def _group(group: FindingGroup, verbose: bool) -> Iterator[str]:
    finding = group.first
    yield _finding_line(finding) if len(group.findings) == 1 else group_line(group)
    # The evidence of the range is shown with the range: here, show that of the finding.
    yield from evidence_lines(finding.evidence if verbose else _own_evidence(finding))
    yield from advice_lines(finding) if verbose else bug_lines(finding.known_bugs)


def _finding_line(finding: Finding) -> str:
    count = "" if finding.count == finding.end_pfn - finding.start_pfn else " of them"
    return printable(
        f"{finding.severity.value}: {finding.slug} {span(finding.start_pfn, finding.end_pfn)} "
        f"{finding.count} {'page' if finding.count == 1 else 'pages'}{count}: {finding.message}"
    )


def _own_evidence(finding: Finding) -> list[Evidence]:
    return [
        e
        for e in finding.evidence
        if finding.severity is Severity.ERROR or e.kind is not EvidenceKind.METADATA
    ]


def _unjudged(unjudged: Sequence[Unjudged], screen: Screen | None) -> str:
    return _fold(
        unjudged,
        screen,
        "not judged",
        as_table=lambda shown, screen: fitted_table(
            ("PFNS", "WHY"), [(span(u.start_pfn, u.end_pfn), u.reason) for u in shown], screen
        ),
        kind=lambda u: u.reason,
        rank=lambda u: 0,
    )


def _missing(missing: Sequence[Missing], screen: Screen | None) -> str:
    return _fold(
        missing,
        screen,
        "missing",
        as_table=lambda shown, screen: fitted_table(
            ("PHYSICAL ADDRESSES", "SIZE", "WHAT IT HOLDS", "WHY"),
            [(_bytes(m), size_text(m.end - m.start), m.holds, m.hint) for m in shown],
            screen,
            ("SIZE", "WHY"),
        ),
        kind=lambda m: m.hint,
        rank=lambda m: 0,
    )


def _bytes(missing: Missing) -> str:
    known = missing.start < missing.end
    return f"[{missing.start:#x}, {missing.end:#x})" if known else "not known"


def _coverage(report: Report) -> str:
    coverage, scope = report.coverage, scope_text(report.scope)
    text = (
        f"{coverage.pages_verified} struct pages looked at "
        f"({size_text(coverage.bytes_read)} of memmap)"
    )
    if coverage.aliases_skipped:
        text += f", {coverage.aliases_skipped} of them aliases of shared vmemmap"
    if coverage.pages_unreadable:
        text += f", {coverage.pages_unreadable} not readable"
    return f"{text}: {scope}" if scope else text


def _kinds(report: Report) -> list[str]:
    kinds = kinds_text(report.coverage)
    return [f"looked at: {kinds}"] if kinds else []


def _reservations(report: Report) -> Iterator[str]:
    coverage, left_out = report.coverage, not_looked_at_text(report)
    if left_out:
        yield f"not looked at: {left_out}"
    if report.kernel.never_booted:
        parts = ", ".join(report.kernel.never_booted)
        yield f"no kernel with this layout was ever booted ({parts}): see zonedev kernel"
    if coverage.retries:
        torn = f", {coverage.torn} answers remained torn" if coverage.torn else ""
        yield f"the kernel was changing: {coverage.retries} readings were torn and repeated{torn}"


def severities_text(report: Report) -> str:
    """How many findings there are of each severity."""
    counts = Counter(f.severity for f in report.findings)
    return ", ".join(
        f"{counts[s]} {s.value}{'' if counts[s] == 1 or s is Severity.INFO else 's'}"
        for s in Severity
    )


def sections_text(
    kernel: KernelFacts, rows: Sequence[SectionRow], *, screen: Screen | None = None
) -> str:
    """Render a row per section with its flags and a bar of subsections, or as many as fit."""
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
    # Unknown, then shared, then not online, then the rest.
    if row.subsections is None:
        return 0
    if not _is_full(row) or any("TAINT" in flag for flag in row.flags):
        return 1
    return 2 if row.memory_block != "MEM_ONLINE" else 3


def _is_full(row: SectionRow) -> bool:
    present = sum(bin(word).count("1") for word in row.subsections or ())
    return present == row.subsections_per_section


def _sections_table(rows: Sequence[SectionRow], screen: Screen | None) -> str:
    return fitted_table(
        ("NR", "PFNS", "SECTION", "FLAGS", "BLOCK", "SUBSECTIONS"),
        [
            (
                row.nr,
                span(row.start_pfn, row.end_pfn),
                f"{row.address:#x}",
                "|".join(_SHORT_FLAGS.get(f, f) if screen else f for f in row.flags),
                row.memory_block or "-",
                _bar(row),
            )
            for row in rows
        ],
        screen,
        ("SECTION", "BLOCK", "PFNS"),
    )


# Where the kernel's own names are too long.
_SHORT_FLAGS = {
    "MARKED_PRESENT": "PRESENT",
    "HAS_MEM_MAP": "MAP",
    "IS_ONLINE": "ONLINE",
    "IS_EARLY": "EARLY",
    "TAINT_ZONE_DEVICE": "TAINT",
    "IS_VMEMMAP_PREINIT": "PREINIT",
}


def _bar(row: SectionRow) -> str:
    if row.subsections is None:
        return "not readable"
    bits = [row.subsections[i // 64] >> i % 64 & 1 for i in range(row.subsections_per_section)]
    if all(bits):
        return f"all {len(bits)}"
    if not any(bits):
        return f"none of {len(bits)}"
    # One character for four subsections, lowest PFN on the left. As hexadecimal digits, the
    # bitmap would read from right to left.
    cells = [bits[i : i + 4] for i in range(0, len(bits), 4)]
    return "".join("#" if all(c) else "+" if any(c) else "." for c in cells)
