# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation as Text
-------------------

What ``pfn`` prints: what the page is, where that begins and ends, what the kernel
would say, and its ``struct page`` next to what is promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.decode import PageWords
from drgn_zonedev.explain import Explanation
from drgn_zonedev.kernel.strings import printable
from drgn_zonedev.model import Evidence, Finding, Range
from drgn_zonedev.render.as_text import evidence_lines, size_text
from drgn_zonedev.render.cells import advice_lines, case_text, finding_line, span, table
from drgn_zonedev.render.screen import Screen, chosen, cut, height, left_out, more, share

__all__ = ("explanation_text",)


@dataclass(frozen=True)
class _Line:
    """``rank`` 0 is what is shown first where there is no room for all; ``kind`` is in plural."""

    text: str
    rank: int = 0
    kind: str = "lines"


@dataclass(frozen=True)
class _View:
    """Of the room that there is, a view gets a share by its ``weight``."""

    title: str
    lines: Sequence[_Line]
    weight: int = 1


def explanation_text(explanation: Explanation, *, screen: Screen | None = None) -> str:
    """
    What ``pfn`` prints.

    :param screen: leave out, and count, what does not fit on it
    """
    e = explanation
    head = [
        f"PFN {e.pfn:#x}: physical address {e.physical_address:#x}, section {e.section_nr}, "
        f"subsection {e.subsection}, struct page at {e.page_address:#x}"
    ]
    if e.subject.note:
        head.append(printable(e.subject.note))
    views, verdict = list(_views(e)), ["VERDICT", "", e.verdict]
    parts = [*head, *(line for view in views for line in _whole(view)), "", *verdict]
    text = "\n".join(parts)
    if screen is None or height(text, screen) <= screen.lines:
        return text
    # Besides the views' lines: their titles, and that of the verdict.
    fixed = len(views) + 1 + sum(height(part, screen) for part in (*head, verdict[-1]))
    room = max(screen.lines - fixed, 0)
    # A heading, what matters most, and how much more there is.
    least = min(3, room // len(views))
    wanted, weights = zip(*((len(view.lines), view.weight) for view in views))
    shares = share(room, wanted, weights, least)
    for view, lines in zip(views, shares):
        head += [view.title, *_folded(view.lines, lines, screen)]
    return "\n".join([*head, verdict[0], verdict[-1]])


def _views(e: Explanation) -> Iterator[_View]:
    yield _View("RANGE", list(_range(e)))
    yield _View("WHAT THE KERNEL WOULD SAY", list(_predicates(e)), weight=3)
    if e.page:
        yield _View("STRUCT PAGE", list(_page(e.page)), weight=2)
    else:
        yield _View("STRUCT PAGE", [_Line(f"not readable: {printable(e.page_error or '')}")])
    if e.findings:
        yield _View("FINDINGS", list(_findings(e.findings)))
    if e.walkers or e.walkers_error:
        yield _View("WALKERS THAT WOULD TOUCH IT", list(_walkers(e)))


def _whole(view: _View) -> list[str]:
    return ["", view.title, "", *(line.text for line in view.lines)]


def _folded(lines: Sequence[_Line], room: int, screen: Screen) -> Iterator[str]:
    if len(lines) <= room:
        yield from (cut(line.text, screen) for line in lines)
        return
    ranks = [line.rank for line in lines]
    shown = chosen([""] * len(lines), ranks, max(room - 1, 1))
    yield from (cut(lines[i].text, screen) for i in shown)
    yield more("lines", left_out(lines, shown), lambda line: line.kind, screen)


def _range(e: Explanation) -> Iterator[_Line]:
    below, above, here = e.neighbours.below, e.neighbours.above, e.range
    start, end = below.pfn if below else 0, above.pfn if above else None
    rows = [("this", f"[{start:#x}, {'...' if end is None else hex(end)})", *_what(e, here))]
    if below:
        rows.insert(0, ("below", _span(below.beyond), *_what(e, below.beyond)))
    if above:
        rows.append(("above", _span(above.beyond), *_what(e, above.beyond)))
    yield from map(_Line, table(("", "PFNS", "SIZE", "CASE", "WHY"), rows).splitlines())
    for border in (below, above):
        if border:
            why = "; ".join(border.why) or "what decides it changes in itself"
            yield _Line(printable(f"  at {border.pfn:#x}: {why}"), 1, "borders")
    if here:
        # What has an address is below, with the predicate that reads it.
        shown = {fact.address for p in e.predicates for fact in p.evidence}
        for text in evidence_lines(f for f in here.evidence if f.address not in shown):
            yield _Line(text, 2, "facts")


def _span(range_: Range | None) -> str:
    return span(range_.start_pfn, range_.end_pfn) if range_ else "..."


def _what(e: Explanation, range_: Range | None) -> tuple[str, str, str]:
    if range_ is None:
        return "", "no memory", ""
    return size_text(range_.pages * e.page_size), case_text(range_.case), range_.reason


def _predicates(e: Explanation) -> Iterator[_Line]:
    # Each word is shown once, with the first answer that was read from it.
    seen: set[int | None] = set()
    rows: list[tuple[str, ...]] = []
    for p in e.predicates:
        answer = p.answer if isinstance(p.answer, str) else ("true" if p.answer else "false")
        because = p.because
        if " " in answer:
            # It could not be read, and says why.
            answer, because = "?", answer
        facts = [fact for fact in p.evidence if fact.address not in seen]
        seen.update(fact.address for fact in facts)
        first, *others = [_word(fact) for fact in facts] or [""]
        rows.append((f"{p.name}()", answer, because, first))
        rows += [("", "", "", other) for other in others]
    header, *lines = table(("PREDICATE", "ANSWER", "WHY", "READ FROM"), rows).splitlines()
    yield _Line(header)
    for line, row in zip(lines, rows):
        if not row[0]:
            yield _Line(line, 2, "words")
        else:
            # Those that look at one flag of the section are asked by the others.
            yield _Line(line, int("_section()" in row[0]), "predicates")


def _word(fact: Evidence) -> str:
    assert fact.address is not None
    return f"{fact.what} @ {fact.address:#x} = {fact.value or 0:#x}"


def _page(page: PageWords) -> Iterator[_Line]:
    rows, ranks = [], []
    for f in page.fields:
        expected = "" if f.expected is None else f.expected
        mark = "DIFFERS" if f.differs else ("ok" if expected else "")
        rows.append((f"+{f.offset:02x}", f.name, f"{f.value:#x}", f.meaning, expected, mark))
        ranks.append(("DIFFERS", "ok", "").index(mark))
    headers = ("AT", "FIELD", "VALUE", "MEANING", "PROMISED", "")
    header, *lines = table(headers, rows).splitlines()
    yield _Line(header)
    for line, rank in zip(lines, ranks):
        yield _Line(line, rank, "fields")
    yield _Line(f"it holds: {page.contents}")


def _findings(findings: Iterable[Finding]) -> Iterator[_Line]:
    for finding in findings:
        yield _Line(finding_line(finding), 0, "findings")
        for text in evidence_lines(f for f in finding.evidence if f.expected is not None):
            yield _Line(text, 1, "facts")
        for text in advice_lines(finding):
            yield _Line(text, 2, "words of advice")


def _walkers(e: Explanation) -> Iterator[_Line]:
    if e.walkers_error:
        yield _Line(f"cannot be told: {printable(e.walkers_error)}")
        return
    rows = [
        (w.name, f"{w.function}()", "uses it" if w.uses else "reads its flags", w.outcome)
        for w in e.walkers
    ]
    header, *lines = table(("WALKER", "IN", "", "AND"), rows).splitlines()
    yield _Line(header)
    for line, walker in zip(lines, e.walkers):
        yield _Line(line, 0 if walker.uses else 1, "walkers")
