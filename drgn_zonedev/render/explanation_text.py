# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation as Text
-------------------

What ``pfn`` prints: what the page is, where that begins and ends, what the kernel
would say, and its ``struct page`` next to what is promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drgn_zonedev.decode import PageWords
from drgn_zonedev.explain import Explanation
from drgn_zonedev.kernel.strings import printable
from drgn_zonedev.model import Evidence, Finding, Range
from drgn_zonedev.render.as_text import evidence_lines, size_text
from drgn_zonedev.render.cells import advice_lines, case_text, finding_line, span, table

__all__ = ("explanation_text",)


def explanation_text(explanation: Explanation) -> str:
    """What ``pfn`` prints."""
    e = explanation
    lines = [
        f"PFN {e.pfn:#x}: physical address {e.physical_address:#x}, section {e.section_nr}, "
        f"subsection {e.subsection}, struct page at {e.page_address:#x}"
    ]
    if e.subject.note:
        lines.append(printable(e.subject.note))
    lines += _section("RANGE", _range(e))
    lines += _section("WHAT THE KERNEL WOULD SAY", _predicates(e))
    if e.page:
        lines += _section("STRUCT PAGE", _page(e.page))
    else:
        lines += _section("STRUCT PAGE", [f"not readable: {printable(e.page_error or '')}"])
    if e.findings:
        lines += _section("FINDINGS", _findings(e.findings))
    if e.walkers or e.walkers_error:
        lines += _section("WALKERS THAT WOULD TOUCH IT", _walkers(e))
    lines += _section("VERDICT", [e.verdict])
    return "\n".join(lines)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", title, "", *lines]


def _range(e: Explanation) -> Iterator[str]:
    below, above, here = e.neighbours.below, e.neighbours.above, e.range
    start, end = below.pfn if below else 0, above.pfn if above else None
    rows = [("this", f"[{start:#x}, {'...' if end is None else hex(end)})", *_what(e, here))]
    if below:
        rows.insert(0, ("below", _span(below.beyond), *_what(e, below.beyond)))
    if above:
        rows.append(("above", _span(above.beyond), *_what(e, above.beyond)))
    yield from table(("", "PFNS", "SIZE", "CASE", "WHY"), rows).splitlines()
    for border in (below, above):
        if border:
            why = "; ".join(border.why) or "what decides it changes in itself"
            yield printable(f"  at {border.pfn:#x}: {why}")
    if here:
        # What has an address is below, with the predicate that reads it.
        shown = {fact.address for p in e.predicates for fact in p.evidence}
        yield from evidence_lines(f for f in here.evidence if f.address not in shown)


def _span(range_: Range | None) -> str:
    return span(range_.start_pfn, range_.end_pfn) if range_ else "..."


def _what(e: Explanation, range_: Range | None) -> tuple[str, str, str]:
    if range_ is None:
        return "", "no memory", ""
    return size_text(range_.pages * e.page_size), case_text(range_.case), range_.reason


def _predicates(e: Explanation) -> list[str]:
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
    return table(("PREDICATE", "ANSWER", "WHY", "READ FROM"), rows).splitlines()


def _word(fact: Evidence) -> str:
    assert fact.address is not None
    return f"{fact.what} @ {fact.address:#x} = {fact.value or 0:#x}"


def _page(page: PageWords) -> Iterator[str]:
    rows = []
    for f in page.fields:
        expected = "" if f.expected is None else f.expected
        mark = "DIFFERS" if f.differs else ("ok" if expected else "")
        rows.append((f"+{f.offset:02x}", f.name, f"{f.value:#x}", f.meaning, expected, mark))
    yield from table(("AT", "FIELD", "VALUE", "MEANING", "PROMISED", ""), rows).splitlines()
    yield f"it holds: {page.contents}"


def _findings(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        yield finding_line(finding)
        yield from evidence_lines(f for f in finding.evidence if f.expected is not None)
        yield from advice_lines(finding)


def _walkers(e: Explanation) -> list[str]:
    if e.walkers_error:
        return [f"cannot be told: {printable(e.walkers_error)}"]
    rows = [
        (w.name, f"{w.function}()", "uses it" if w.uses else "reads its flags", w.outcome)
        for w in e.walkers
    ]
    return table(("WALKER", "IN", "", "AND"), rows).splitlines()
