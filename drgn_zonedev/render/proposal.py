# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``proposal`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drgn_zonedev.model import Case
from drgn_zonedev.pfn_proposal import (
    Carried,
    Lookup,
    LookupWork,
    MemoryCost,
    ProposalReport,
    Verdict,
    Wrong,
)
from drgn_zonedev.render.as_json import Document, gap_document, kernel_document
from drgn_zonedev.render.as_text import kernel_line, kernel_text, size_text
from drgn_zonedev.render.cells import case_text, fitted_table, span, table
from drgn_zonedev.render.screen import NARROWED, SHOW_ALL, Screen, fitting, height, wrapped
from drgn_zonedev.util.strings import printable

__all__ = ("proposal_document", "proposal_text")

# The most mistakes per variant that the text shows; the document has all.
_EXAMPLES = 4
_MAX_REMARKS = 5
_OVERVIEW = ("VARIANT", "RIGHT", "FALSE YES", "FALSE NO", "WHAT IT IS")
_LOOKUP = ("LOADS", "LINES", "RCU", "REFERENCE", "NEXT PFN")


def proposal_text(report: ProposalReport, *, screen: Screen | None = None) -> str:
    """
    Render a row per variant, then its mistakes, then its costs.

    :param screen: Show only as much as fits, and count the rest.
    """
    judged = (
        f"{report.judged} PFNs judged; the struct pages of {report.valid} are ZONE_DEVICE and "
        "may be touched"
    )
    # Bitmaps that the kernel really has come first.
    blocks = ["\n".join(_carried(c)) for c in report.carried]
    blocks += ["\n".join(_ram(report))] if any(map(_mistakes_ram, report.verdicts)) else []
    blocks += ["\n".join(_mistakes(v)) for v in report.verdicts if v.wrong]
    remarks = list(_remarks(report))
    if screen is None:
        overview, costs = _tables(report, None)
        head = [kernel_text(report.kernel), "", judged, "", overview, "", costs]
        return "\n".join([*head, *(f"\n{block}" for block in blocks), "", *remarks])
    remarks = [wrapped(remark, screen) for remark in remarks[:_MAX_REMARKS]]
    # Two more lines: a blank one above the remarks, and one that counts the rest.
    room = screen.lines - 2 - sum(height(part, screen) for part in remarks)
    judged = wrapped(judged, screen)
    line, overview, costs = kernel_line(report.kernel, screen), *_tables(report, screen)
    head = [line, "", judged, "", overview, "", costs]
    if _is_too_wide(report, screen) or sum(height(part, screen) for part in head) > room:
        head = [line, judged, "", _both(report, screen), NARROWED]
    room -= sum(height(part, screen) for part in head)
    blocks = [wrapped(block, screen) for block in blocks]
    shown = fitting(blocks, room, screen)
    head += [f"\n{block}" for block in blocks[:shown]]
    if blocks[shown:]:
        head.append(f"... {len(blocks) - shown} more blocks of examples {SHOW_ALL}")
    return "\n".join([*head, "", *remarks])


def _tables(report: ProposalReport, screen: Screen | None) -> tuple[str, str]:
    return _overview(report, screen), _costs(report, screen)


def _is_too_wide(report: ProposalReport, screen: Screen) -> bool:
    """Return whether there is no room for the overview, even without descriptions."""
    lines = table(_OVERVIEW[:-1], map(_counts, report.verdicts)).split("\n")
    return screen.columns is not None and max(map(len, map(str.rstrip, lines))) > screen.columns


def _both(report: ProposalReport, screen: Screen) -> str:
    """Render mistakes and costs in one table."""
    return fitted_table(
        ("VARIANT", "RIGHT", "FALSE YES", "FALSE NO", *_LOOKUP, "MEMORY"),
        [
            (
                v.variant.name,
                v.right,
                sum(v.pages(True).values()),
                sum(v.pages(False).values()),
                *_lookup(v.lookup),
                size_text(v.memory.machine),
            )
            for v in report.verdicts
        ],
        screen,
        ("RCU", "LINES", "NEXT PFN", "REFERENCE", "MEMORY", "LOADS"),
    )


def _overview(report: ProposalReport, screen: Screen | None) -> str:
    rows = [(*_counts(v), v.variant.what) for v in report.verdicts]
    return fitted_table(_OVERVIEW, rows, screen, _OVERVIEW[-1:])


def _counts(v: Verdict) -> tuple[object, ...]:
    return v.variant.name, v.right, _cases(v.pages(True)), _cases(v.pages(False))


def _cases(pages: Mapping[Case, int]) -> str:
    return ", ".join(f"{count} {case_text(c)}" for c, count in pages.items()) or "-"


def _costs(report: ProposalReport, screen: Screen | None) -> str:
    return fitted_table(
        ("VARIANT", *_LOOKUP, "MEMORY", "PER TiB", "HOT-ADDED SECTION"),
        [
            (
                v.variant.name,
                *_lookup(v.lookup),
                size_text(v.memory.machine),
                size_text(v.memory.per_tib),
                _slab(v.memory),
            )
            for v in report.verdicts
        ],
        screen,
        ("HOT-ADDED SECTION", "PER TiB", "RCU", "LINES"),
    )


def _lookup(lookup: Lookup | None) -> tuple[object, ...]:
    if lookup is None:
        return ("not known",) * 5
    first, again = lookup.first, lookup.again
    more = f", {_reference(again)}" if again.percpu or again.atomics else ""
    return first.loads, first.lines, first.rcu, _reference(first), f"{again.loads} loads{more}"


def _reference(work: LookupWork) -> str:
    if work.atomics:
        return f"{work.atomics} atomic"
    return f"{work.percpu} per-CPU" if work.percpu else "-"


def _slab(memory: MemoryCost) -> str:
    if not memory.per_section:
        return "-"
    if memory.slab is None:
        return "not known"
    before, after = memory.slab
    return f"{'stays in' if before == after else f'kmalloc-{before} becomes'} kmalloc-{after}"


def _ram(report: ProposalReport) -> Iterator[str]:
    yield "if pfn_to_online_page() used it to recognise devices, not SECTION_TAINT_ZONE_DEVICE:"
    for verdict in report.verdicts:
        if _mistakes_ram(verdict):
            yield f"  {verdict.variant.name}: {', '.join(_mistakes_ram(verdict))}"


def _mistakes_ram(verdict: Verdict) -> list[str]:
    taken, lost = verdict.taken_for_ram, verdict.lost_ram
    mistakes = [f"takes {_cases(taken)} for RAM"] if taken else []
    return mistakes + ([f"loses {lost} pages of RAM"] if lost else [])


def _mistakes(verdict: Verdict) -> Iterator[str]:
    variant = verdict.variant
    yield f"{variant.name}: set {variant.set}; cleared {variant.cleared}"
    for wrong in verdict.wrong[:_EXAMPLES]:
        meaning = _meaning(wrong)
        answer = "yes" if wrong.answer else "no"
        where = f"{span(wrong.start_pfn, wrong.end_pfn)} {case_text(wrong.case)}"
        yield f"  {where}, {wrong.pages} pages: {answer}, {meaning}"
    if more := verdict.wrong[_EXAMPLES:]:
        yield f"  {len(more)} more ranges, {sum(w.pages for w in more)} pages"


def _meaning(wrong: Wrong) -> str:
    if not wrong.answer:
        return "loses valid struct pages"
    return "takes RAM for it" if wrong.case is Case.ONLINE else "reads unpromised struct pages"


def _carried(carried: Carried) -> Iterator[str]:
    yield (
        f"this kernel has mem_section_usage.{carried.name}: {carried.meaning}; {carried.bits} "
        f"bits are set, {carried.different} are wrong"
    )
    for d in carried.differences:
        yield f"  {span(d.start_pfn, d.end_pfn)}: {'set' if d.found else 'clear'}"
    for gap in carried.unreadable:
        yield f"  {span(gap.start_pfn, gap.end_pfn)}: {printable(gap.reason)}"


def _remarks(report: ProposalReport) -> Iterator[str]:
    depths = {v.lookup.depth for v in report.verdicts if v.lookup}
    yield (
        "a lookup is counted for the most expensive PFN of a device: words loaded, cache lines of "
        "64 bytes that they are in, RCU read-side critical sections, and changes of the pgmap's "
        "reference; the next PFN of the same range is looked up with the reference kept; "
        f"pgmap_array is at most {max(depths, default=0)} deep there"
    )
    yield (
        "two-bits and pgmap+range are computed from the same structures as the truth, except for "
        "the rounding of bits: that they are right only shows that this memory is consistent"
    )
    coverage = report.coverage
    if coverage.pages_unreadable:
        yield f"{coverage.pages_unreadable} struct pages could not be read to confirm it"
    if report.broken:
        yield (
            f"{report.broken} valid struct pages are wrong, independent of the variant: "
            "see zonedev check"
        )
    for gap in report.unjudged:
        yield f"not judged: {span(gap.start_pfn, gap.end_pfn)}: {printable(gap.reason)}"


def proposal_document(report: ProposalReport) -> Document:
    """The document of ``proposal``."""
    return {
        "schema": "drgn-zonedev/proposal/1",
        "kernel": kernel_document(report.kernel),
        "judged": report.judged,
        "valid": report.valid,
        "broken": report.broken,
        "unreadable": report.coverage.pages_unreadable,
        "variants": [_verdict(v) for v in report.verdicts],
        "carried": [_carried_document(c) for c in report.carried],
        "unjudged": [gap_document(u) for u in report.unjudged],
    }


def _verdict(verdict: Verdict) -> Document:
    variant, memory, lookup = verdict.variant, verdict.memory, verdict.lookup
    return {
        "name": variant.name,
        "what": variant.what,
        "set": variant.set,
        "cleared": variant.cleared,
        "right": verdict.right,
        "false_yes": {case.value: count for case, count in verdict.pages(True).items()},
        "false_no": {case.value: count for case, count in verdict.pages(False).items()},
        "wrong": [
            {
                "start_pfn": w.start_pfn,
                "end_pfn": w.end_pfn,
                "case": w.case.value,
                "number": w.case.number,
                "answer": w.answer,
            }
            for w in verdict.wrong
        ],
        "taken_for_ram": {case.value: count for case, count in verdict.taken_for_ram.items()},
        "lost_ram": verdict.lost_ram,
        "lookup": {
            "pfn": lookup.pfn,
            "walks": lookup.walks,
            "depth": lookup.depth,
            "first": _work(lookup.first),
            "again": _work(lookup.again),
        }
        if lookup
        else None,
        "memory": {
            "per_section": memory.per_section,
            "machine": memory.machine,
            "per_tib": memory.per_tib,
            "usage": memory.usage,
            "slab": list(memory.slab) if memory.slab else None,
        },
    }


def _work(work: LookupWork) -> Document:
    return {
        "loads": work.loads,
        "lines": work.lines,
        "rcu": work.rcu,
        "percpu": work.percpu,
        "atomics": work.atomics,
    }


def _carried_document(carried: Carried) -> Document:
    return {
        "name": carried.name,
        "meaning": carried.meaning,
        "bits": carried.bits,
        "different": carried.different,
        "differences": [
            {"start_pfn": d.start_pfn, "end_pfn": d.end_pfn, "set": d.found}
            for d in carried.differences
        ],
        "unread": [gap_document(u) for u in carried.unreadable],
    }
