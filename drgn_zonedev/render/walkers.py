# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``walkers`` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from drgn_zonedev.kernel.strings import printable
from drgn_zonedev.render.as_json import Document, kernel_document, unjudged_document
from drgn_zonedev.render.as_text import kernel_line, kernel_text
from drgn_zonedev.render.cells import case_text, fitted_table, span
from drgn_zonedev.render.screen import (
    SHOW_ALL,
    Screen,
    height,
    more,
    placed,
    with_gaps,
    wrapped,
)
from drgn_zonedev.walkers import Exposure, Judgement, Outcome, WalkersReport

__all__ = ("walkers_document", "walkers_text")

# Of what a walker meets, and of what is not judged, a screen shows so many.
_MAX_EXPOSURES = 6
_FEWEST_EXPOSURES = 4
_MAX_UNJUDGED = 3


def walkers_text(report: WalkersReport, *, screen: Screen | None = None) -> str:
    """
    A row per walker, the worst first, and below that, what each of them would meet.

    :param screen: Show only as much as fits, and count the rest.
    """
    judgements = sorted(report.walkers, key=_rank)
    exposed = [j for j in judgements if j.exposures]
    if screen is None:
        blocks = [f"\n{chr(10).join(_judgement(j, j.exposures))}" for j in exposed]
        parts = [
            kernel_text(report.kernel),
            "",
            _overview(judgements),
            *blocks,
            "",
            *_remarks(report, len(report.unjudged)),
        ]
        return "\n".join(parts)
    head = [kernel_line(report.kernel, screen), ""]
    tail = [wrapped(line, screen) for line in _remarks(report, _MAX_UNJUDGED)]
    if sum(height(line, screen) for line in tail) > screen.lines // 3:
        tail = [wrapped(line, screen) for line in _shorter_remarks(report)]
    # A line more: the blank one above the remarks.
    room = screen.lines - 1 - sum(height(part, screen) for part in head + tail)
    # What the worst of them meet is worth more than those that meet nothing.
    wanted = len(exposed) + 2 if exposed else len(judgements) + 1
    rows = min(wanted, max(room - _LEAST_BLOCK, room // 2))
    blocks = _fitting_blocks(exposed, room - rows, screen)
    if not blocks:
        rows = room
    overview = _folded_overview(judgements, rows, screen)
    return "\n".join([*head, overview, *blocks, "", *tail])


def _fitting_blocks(exposed: Sequence[Judgement], room: int, screen: Screen) -> list[str]:
    """Get what each of them meets, and at the end, of how many more there is no room for that."""
    blocks: list[str] = []
    for i, judgement in enumerate(exposed):
        # Behind all but the last, there has to be room for the line that counts.
        left = room - (i < len(exposed) - 1)
        for lines in (_shortened(judgement, screen), _met(judgement, screen)):
            block = "\n".join(["", *(wrapped(line, screen) for line in lines)])
            if height(block, screen) <= left:
                break
        else:
            break
        blocks.append(block)
        room -= height(block, screen)
    rest = exposed[len(blocks) :]
    if blocks and rest:
        blocks.append(more("walkers that would meet something", rest, _worst, screen))
    return blocks


# A blank line, what it is, a heading, some ranges, and how many more there are.
_LEAST_BLOCK = 7


def _folded_overview(judgements: Sequence[Judgement], room: int, screen: Screen) -> str:
    shown = judgements if len(judgements) < room else judgements[: max(room - 2, 0)]
    rest = judgements[len(shown) :]
    parts = [_overview(shown, screen)] if shown else []
    if rest:
        parts.append(more("walkers", rest, _worst, screen))
    return "\n".join(parts)


def _rank(judgement: Judgement) -> int:
    order = list(Outcome)
    return min((order.index(e.worst) for e in judgement.exposures), default=len(order))


def _shortened(judgement: Judgement, screen: Screen) -> Iterator[str]:
    yield from _about(judgement)
    yield from _some_exposures(judgement, _MAX_EXPOSURES, screen)


def _met(judgement: Judgement, screen: Screen) -> Iterator[str]:
    """Get less than all that is known of a walker: what it meets."""
    yield f"{judgement.walker.name}: {judgement.walker.what}"
    yield from _some_exposures(judgement, _FEWEST_EXPOSURES, screen)


def _some_exposures(judgement: Judgement, room: int, screen: Screen) -> Iterator[str]:
    exposures = judgement.exposures
    ranks = [list(Outcome).index(e.worst) for e in exposures]
    shown = placed([e.case for e in exposures], ranks, room)
    header, *lines = _exposures([exposures[i] for i in shown], screen).splitlines()
    yield header
    yield from with_gaps(lines, shown, exposures, "ranges", lambda e: e.case.value, screen)


_PRESENT = {True: "yes", False: "not in vmlinux", None: "not known"}


def _overview(judgements: Iterable[Judgement], screen: Screen | None = None) -> str:
    return fitted_table(
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
        screen,
        ("FUNCTION", "FROM", "GUARD", "IN KERNEL"),
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
    yield from _about(judgement)
    yield from _exposures(exposures, None).splitlines()


def _about(judgement: Judgement) -> Iterator[str]:
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


def _exposures(exposures: Iterable[Exposure], screen: Screen | None) -> str:
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
    narrower = screen and Screen(screen.lines, screen.columns and max(screen.columns - 2, 1))
    text = fitted_table(headers, rows, narrower, ("STRUCT PAGES HOLD", "USED"))
    return textwrap.indent(text, "  ")


def _remarks(report: WalkersReport, max_unjudged: int) -> Iterator[str]:
    yield from _verdict(report)
    for outcome in _outcomes(report):
        yield f"{_word(outcome)}: it {outcome.value}"
    yield from _not_known(report, max_unjudged)


def _shorter_remarks(report: WalkersReport) -> Iterator[str]:
    yield from _verdict(report)
    if _outcomes(report):
        yield f"... what these words mean {SHOW_ALL}"
    yield from _not_known(report, 0)


def _verdict(report: WalkersReport) -> Iterator[str]:
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


def _outcomes(report: WalkersReport) -> list[Outcome]:
    outcomes = {o for j in report.walkers for e in j.exposures for o in e.outcomes}
    return [outcome for outcome in Outcome if outcome in outcomes]


def _not_known(report: WalkersReport, max_unjudged: int) -> Iterator[str]:
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
