# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``walkers`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from drgn_zonedev.kernel.strings import printable
from drgn_zonedev.render.as_json import Document, kernel_document, unjudged_document
from drgn_zonedev.render.as_text import kernel_text
from drgn_zonedev.render.cells import case_text, span, table
from drgn_zonedev.render.screen import (
    SHOW_ALL,
    Screen,
    chosen,
    cut,
    fitting,
    height,
    left_out,
    more,
)
from drgn_zonedev.walkers import Exposure, Judgement, Outcome, WalkersReport

__all__ = ("walkers_document", "walkers_text")

# Of what a walker meets, and of what is not judged, a screen shows so many.
_MAX_EXPOSURES = 6
_MAX_UNJUDGED = 3


def walkers_text(report: WalkersReport, *, screen: Screen | None = None) -> str:
    """
    A row per walker, and below that, what each of them would meet.

    :param screen: Show only as much as fits, and count the rest.
    """
    head = [kernel_text(report.kernel), ""]
    exposed = [j for j in report.walkers if j.exposures]
    if screen is None:
        blocks = [f"\n{chr(10).join(_judgement(j, j.exposures))}" for j in exposed]
        parts = [
            *head,
            _overview(report.walkers),
            *blocks,
            "",
            *_remarks(report, len(report.unjudged)),
        ]
        return "\n".join(parts)
    tail = [cut(line, screen) for line in _remarks(report, _MAX_UNJUDGED)]
    # Four lines more: the headings, what counts walkers and what they meet, and a blank one.
    room = screen.lines - 4 - len(tail) - sum(height(part, screen) for part in head)
    # What the worst of them meet is worth more than those that meet nothing.
    rows = room if room >= len(report.walkers) and not exposed else room * 2 // 3
    head += _folded_overview(report.walkers, rows, screen)
    room -= min(rows, len(report.walkers))
    exposed.sort(key=_rank)
    blocks = [cut("\n".join(_shortened(j, screen)), screen) for j in exposed]
    shown = fitting(blocks, room, screen)
    head += [f"\n{block}" for block in blocks[:shown]]
    if exposed[shown:]:
        head.append(more("walkers that would meet something", exposed[shown:], _worst, screen))
    return "\n".join([*head, "", *tail])


def _folded_overview(judgements: Sequence[Judgement], room: int, screen: Screen) -> Iterator[str]:
    ranks = [_rank(j) for j in judgements]
    shown = chosen([j.walker.name for j in judgements], ranks, max(room, 1))
    yield cut(_overview([judgements[i] for i in shown]), screen)
    rest = left_out(judgements, shown)
    if rest:
        yield more("walkers", rest, _worst, screen)


def _rank(judgement: Judgement) -> int:
    order = list(Outcome)
    return min((order.index(e.worst) for e in judgement.exposures), default=len(order))


def _shortened(judgement: Judgement, screen: Screen) -> Iterator[str]:
    exposures = judgement.exposures
    ranks = [list(Outcome).index(e.worst) for e in exposures]
    shown = chosen([e.case for e in exposures], ranks, _MAX_EXPOSURES)
    yield from _judgement(judgement, [exposures[i] for i in shown])
    rest = left_out(exposures, shown)
    if rest:
        yield more("ranges", rest, lambda e: e.case.value, screen)


_PRESENT = {True: "yes", False: "not in vmlinux", None: "not known"}


def _overview(judgements: Iterable[Judgement]) -> str:
    return table(
        ("WALKER", "FUNCTION", "IN KERNEL", "TOUCHED", "USED", "WORST", "FROM", "GUARD"),
        [
            (
                j.walker.name,
                f"{j.walker.file}: {j.walker.function}()",
                "a program" if not j.walker.functions else _PRESENT[j.present],
                sum(e.touched for e in j.exposures),
                sum(e.used for e in j.exposures),
                _worst(j),
                "proved" if j.walker.proof else "reasoned",
                "none: the kernel is older" if j.guard is None else ", ".join(_guard(j)),
            )
            for j in judgements
        ],
    )


def _guard(judgement: Judgement) -> Iterator[str]:
    assert judgement.guard is not None
    yield from judgement.guard.steps
    for name in judgement.guard.filters:
        yield f"then {name}"


def _worst(judgement: Judgement) -> str:
    return _word(list(Outcome)[_rank(judgement)]) if judgement.exposures else "-"


def _word(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", "-")


def _judgement(judgement: Judgement, exposures: Iterable[Exposure]) -> Iterator[str]:
    walker, guard = judgement.walker, judgement.guard
    assert guard is not None
    yield f"{walker.name}: {walker.what}"
    yield f"  guard: {', '.join(_guard(judgement))}"
    yield f"  known: {guard.known}{' (chosen by the release)' if judgement.by_release else ''}"
    yield f"  it {', '.join(sorted(act.value for act in walker.acts))}"
    if walker.note:
        yield f"  note: {walker.note}"
    if walker.proof:
        yield f"  proof: {walker.proof}"
    rows = [
        (
            span(e.start_pfn, e.end_pfn),
            case_text(e.case),
            e.touched,
            e.used,
            ", ".join(f"{count} {_word(outcome)}" for outcome, count in e.outcomes.items()),
            ", ".join(f"{count} {kind.value}" for kind, count in e.contents.items()),
        )
        for e in exposures
    ]
    headers = ("PFNS", "CASE", "TOUCHED", "USED", "OUTCOME", "STRUCT PAGES HOLD")
    yield from (f"  {line}" for line in table(headers, rows).splitlines())


def _remarks(report: WalkersReport, max_unjudged: int) -> Iterator[str]:
    exposed = [j for j in report.walkers if j.exposures]
    harmed = [j for j in exposed if any(e.worst is not Outcome.HARMLESS for e in j.exposures)]
    yield (
        f"{len(harmed)} of {len(report.walkers)} walkers would touch struct pages that are not "
        "initialised for what is there"
    )
    unsure = [j.walker.name for j in report.walkers if j.by_release]
    if unsure:
        yield (
            f"guards chosen by the release, which is {printable(report.kernel.release)}; if this "
            f"kernel was patched, they may be wrong: {', '.join(unsure)}"
        )
    outcomes = {o for j in exposed for e in j.exposures for o in e.outcomes}
    for outcome in Outcome:
        if outcome in outcomes:
            yield f"{_word(outcome)}: it {outcome.value}"
    for name in report.unread:
        yield f"{name} could not be read: the guards that need it let everything pass here"
    for gap in report.unjudged[:max_unjudged]:
        yield f"not judged: {span(gap.start_pfn, gap.end_pfn)}: {printable(gap.reason)}"
    if report.unjudged[max_unjudged:]:
        yield f"... {len(report.unjudged) - max_unjudged:,} more not judged {SHOW_ALL}"


def walkers_document(report: WalkersReport) -> Document:
    """Everything that ``walkers`` knows."""
    return {
        "schema": "drgn-zonedev/walkers/1",
        "kernel": kernel_document(report.kernel),
        "walkers": [_judgement_document(j) for j in report.walkers],
        "unjudged": [unjudged_document(u) for u in report.unjudged],
        "unread": list(report.unread),
    }


def _judgement_document(judgement: Judgement) -> Document:
    walker, guard = judgement.walker, judgement.guard
    return {
        "name": walker.name,
        "what": walker.what,
        "file": walker.file,
        "function": walker.function,
        "in_kernel": judgement.present,
        "guard": {
            "steps": list(guard.steps),
            "filters": list(guard.filters),
            "known": guard.known,
            "by_release": judgement.by_release,
        }
        if guard
        else None,
        "acts": sorted(act.value for act in walker.acts),
        "stride": walker.stride,
        "offset": walker.offset,
        "proof": walker.proof or None,
        "note": walker.note,
        "exposures": [_exposure_document(e) for e in judgement.exposures],
    }


def _exposure_document(exposure: Exposure) -> Document:
    return {
        "start_pfn": exposure.start_pfn,
        "end_pfn": exposure.end_pfn,
        "case": exposure.case.value,
        "number": exposure.case.number,
        "touched": exposure.touched,
        "used": exposure.used,
        "outcomes": {_word(outcome): count for outcome, count in exposure.outcomes.items()},
        "contents": {kind.value: count for kind, count in exposure.contents.items()},
    }
