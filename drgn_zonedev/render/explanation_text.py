# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation as Text
-------------------

What ``pfn`` prints: the case of the page, the borders of its range, the answers of the
kernel's predicates, and its ``struct page`` next to what is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.explanation.explain import Explanation
from drgn_zonedev.explanation.kernel_answers import Predicate
from drgn_zonedev.model import Evidence, Finding, Range
from drgn_zonedev.render.as_text import evidence_lines, size_text
from drgn_zonedev.render.cells import advice_lines, case_text, finding_line, fitted_rows, span
from drgn_zonedev.render.pgmap_devices import device_line
from drgn_zonedev.render.screen import (
    SHOW_ALL,
    Screen,
    cut,
    height,
    placed,
    share,
    with_gaps,
    wrapped,
)
from drgn_zonedev.util.strings import printable

__all__ = ("explanation_text",)


# Noun for lines that are not in a table.
_PROSE = "lines"


@dataclass(frozen=True)
class _Line:
    """
    A line of a view. Lines of ``rank`` 0 are shown first if not all fit. ``kind`` is a noun in
    plural; it is empty for a line of headers.
    """

    text: str
    rank: int = 0
    kind: str = _PROSE


@dataclass(frozen=True)
class _View:
    """
    A part of the text. The lines of a screen are divided among views by ``weight``.

    ``lines`` renders the view, not wider than a screen, if one is given.
    """

    title: str
    lines: Callable[[Screen | None], Iterable[_Line]]
    weight: int = 1


def explanation_text(explanation: Explanation, *, screen: Screen | None = None) -> str:
    """
    What ``pfn`` prints.

    :param screen: show only what fits on this screen, and count the rest
    """
    e = explanation
    line = (
        f"PFN {e.pfn:#x}: physical address {e.physical_address:#x}, section {e.section_nr}, "
        f"subsection {e.subsection}, struct page at {e.page_address:#x}"
    )
    head = [wrapped(line, screen) if screen else line]
    if e.subject.note:
        head.append(printable(e.subject.note))
    views, verdict = list(_views(e)), ["VERDICT", "", e.verdict]
    whole = screen if screen and screen.is_endless else None
    parts = [*head, *(line for view in views for line in _whole(view, whole)), "", *verdict]
    text = "\n".join(parts)
    if screen is None or height(text, screen) <= screen.lines:
        return text
    head = [wrapped(line, screen) for line in head]
    last = wrapped(f"VERDICT: {e.verdict}", screen)
    # Lines for the titles of the views.
    fixed = len(views) + sum(height(part, screen) for part in (*head, last))
    room = max(screen.lines - fixed, 0)
    # A heading, the most important line, and the count of the rest.
    least = min(3, room // len(views))
    wanted = [len(list(view.lines(screen))) for view in views]
    shares = share(room, wanted, [view.weight for view in views], least)
    brief = _brief_answers(e, screen)
    few = shares[_ANSWERS] < min(wanted[_ANSWERS], len(e.predicates))
    if screen.columns and few and height(brief, screen) <= room:
        # All answers without reasons are more useful than some answers with reasons.
        room -= height(brief, screen)
        weights = [view.weight for view in views]
        wanted[_ANSWERS] = 0
        shares = share(room, wanted, weights, min(3, room // (len(views) - 1)))
    for i, (view, lines) in enumerate(zip(views, shares)):
        head += _folded(view, lines, screen) if wanted[i] else [view.title, brief]
    return "\n".join([*head, last])


# Index of that view.
_ANSWERS = 1


def _brief_answers(e: Explanation, screen: Screen) -> str:
    asked = [p for p in e.predicates if not _is_asked_by_others(p)]
    words = ", ".join(f"{p.name}() {_answer(p)[0]}" for p in asked)
    hidden = len(e.predicates) - len(asked)
    count = f"{hidden} more predicates, and all reasons" if hidden else "all reasons"
    return f"{wrapped(words, screen)}\n... {count} {SHOW_ALL}"


def _views(e: Explanation) -> Iterator[_View]:
    yield from (
        _View("RANGE", lambda screen: _range(e, screen)),
        _View("WHAT THE KERNEL WOULD SAY", lambda screen: _predicates(e, screen), weight=3),
        _View("STRUCT PAGE", lambda screen: _page(e, screen), weight=2),
    )
    if e.findings:
        yield _View("FINDINGS", lambda screen: _findings(e.findings, screen), weight=2)
    if e.walkers or e.walkers_error:
        yield _View("WALKERS THAT WOULD TOUCH IT", lambda screen: _walkers(e, screen), weight=2)


def _whole(view: _View, screen: Screen | None) -> list[str]:
    return ["", view.title, "", *(line.text for line in view.lines(screen))]


def _folded(view: _View, room: int, screen: Screen) -> Iterator[str]:
    lines = list(view.lines(screen))
    if len(lines) <= room:
        yield view.title
        yield from (line.text for line in lines)
        return
    headers = [line for line in lines if not line.kind]
    rows = [line for line in lines if line.kind]
    shown = _placed(rows, room - len(headers))
    if all(rows[i].kind == _PROSE for i in shown):
        headers, shown = [], _placed(rows, room)
    if not shown:
        kinds = {row.kind for row in rows}
        yield f"{view.title}: {len(rows)} {kinds.pop() if len(kinds) == 1 else _PROSE} {SHOW_ALL}"
        return
    yield view.title
    yield from (line.text for line in headers)
    texts = [rows[i].text for i in shown]
    yield from with_gaps(texts, shown, rows, "lines", lambda line: line.kind, screen)


def _placed(rows: Sequence[_Line], room: int) -> list[int]:
    return placed([""] * len(rows), [row.rank for row in rows], room)


def _text(text: str, screen: Screen | None) -> str:
    if screen is None:
        return text
    return wrapped(text, screen) if screen.is_endless else cut(text, screen)


def _range(e: Explanation, screen: Screen | None) -> Iterator[_Line]:
    below, above, here = e.neighbours.below, e.neighbours.above, e.range
    start, end = below.pfn if below else 0, above.pfn if above else None
    rows = [("this", f"[{start:#x}, {'...' if end is None else hex(end)})", *_what(e, here))]
    if below:
        rows.insert(0, ("below", _span(below.beyond), *_what(e, below.beyond)))
    if above:
        rows.append(("above", _span(above.beyond), *_what(e, above.beyond)))
    header, *lines = fitted_rows(("", "PFNS", "SIZE", "CASE", "WHY"), rows, screen, ("SIZE",))
    yield _Line(header, kind="")
    for line, row in zip(lines, rows):
        yield _Line(line, 0 if row[0] == "this" else 1, "ranges")
    for border in (below, above):
        if border:
            why = "; ".join(border.why) or "the structure that decides it changes"
            line = printable(f"  at {border.pfn:#x}: {why}")
            yield _Line(_text(line, screen), 2, "borders")
    if here:
        # Evidence with an address is shown below, with the predicate that reads it.
        shown = {fact.address for p in e.predicates for fact in p.evidence}
        for text in evidence_lines(f for f in here.evidence if f.address not in shown):
            yield _Line(_text(text, screen), 3, "facts")
    device = device_line(e.pgmap) if e.pgmap else ""
    if device:
        yield _Line(_text(device, screen), 3, "facts")


def _span(range_: Range | None) -> str:
    return span(range_.start_pfn, range_.end_pfn) if range_ else "..."


def _what(e: Explanation, range_: Range | None) -> tuple[str, str, str]:
    if range_ is None:
        return "", "no memory", ""
    return size_text(range_.pages * e.page_size), case_text(range_.case), range_.reason


def _predicates(e: Explanation, screen: Screen | None) -> Iterator[_Line]:
    # Show each word once, with the first answer that was read from it.
    seen: set[int | None] = set()
    minor = {f"{p.name}()" for p in e.predicates if _is_asked_by_others(p)}
    rows: list[tuple[str, ...]] = []
    for p in e.predicates:
        answer, because = _answer(p)
        facts = [fact for fact in p.evidence if fact.address not in seen]
        seen.update(fact.address for fact in facts)
        first, *others = [_word(fact) for fact in facts] or [""]
        rows.append((f"{p.name}()", answer, because, first))
        rows += [("", "", "", other) for other in others]
    headers = ("PREDICATE", "ANSWER", "WHY", "READ FROM")
    header, *lines = fitted_rows(headers, rows, screen, ("READ FROM",))
    yield _Line(header, kind="")
    for line, row in zip(lines, rows):
        if not line:
            # There was no room for the word.
            continue
        if not row[0]:
            yield _Line(line, 2, "words")
        else:
            yield _Line(line, int(row[0] in minor), "predicates")


def _is_asked_by_others(predicate: Predicate) -> bool:
    """Return whether a predicate checks one flag of the section."""
    return predicate.name.endswith("_section")


def _answer(predicate: Predicate) -> tuple[str, str]:
    """Get the answer of a predicate, and the reason."""
    if not isinstance(predicate.answer, str):
        return "true" if predicate.answer else "false", predicate.because
    if " " in predicate.answer:
        # The answer says why it could not be read.
        return "?", predicate.answer
    return predicate.answer, predicate.because


def _word(fact: Evidence) -> str:
    assert fact.address is not None
    return f"{fact.what} @ {fact.address:#x} = {fact.value or 0:#x}"


def _page(e: Explanation, screen: Screen | None) -> Iterator[_Line]:
    page = e.page
    if page is None:
        yield _Line(_text(f"not readable: {printable(e.page_error or '')}", screen))
        return
    # Where lines wrap, the last column is the one that may be long.
    scrolls = screen is not None and screen.is_endless
    rows, ranks = [], []
    for f in page.fields:
        expected = "" if f.expected is None else f.expected
        mark = "DIFFERS" if f.differs else ("ok" if expected else "")
        found = (f"+{f.offset:02x}", f.name, f"{f.value:#x}", f.meaning)
        rows.append((*found, mark, expected) if scrolls else (*found, expected, mark))
        ranks.append(("DIFFERS", "ok", "").index(mark))
    headers = ["AT", "FIELD", "VALUE", "MEANING", "PROMISED"]
    headers.insert(4 if scrolls else 5, "")
    header, *lines = fitted_rows(headers, rows, screen, ("MEANING", "AT"))
    yield _Line(header, kind="")
    for line, rank in zip(lines, ranks):
        yield _Line(line, rank, "fields")
    yield _Line(_text(f"it holds: {page.contents}", screen))


def _findings(findings: Iterable[Finding], screen: Screen | None) -> Iterator[_Line]:
    for finding in findings:
        yield _Line(_text(finding_line(finding), screen), 0, "findings")
        for text in evidence_lines(f for f in finding.evidence if f.expected is not None):
            yield _Line(_text(text, screen), 1, "facts")
        for text in advice_lines(finding):
            yield _Line(_text(text, screen), 2, "words of advice")


def _walkers(e: Explanation, screen: Screen | None) -> Iterator[_Line]:
    if e.walkers_error:
        yield _Line(_text(f"not known: {printable(e.walkers_error)}", screen))
        return
    rows = [
        (w.name, f"{w.function}()", "uses it" if w.uses else "reads its flags", w.outcome)
        for w in e.walkers
    ]
    header, *lines = fitted_rows(("WALKER", "IN", "", "AND"), rows, screen, ("IN",))
    yield _Line(header, kind="")
    for line, walker in zip(lines, e.walkers):
        yield _Line(line, 0 if walker.uses else 1, "walkers")
