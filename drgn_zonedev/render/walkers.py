# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``walkers`` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from drgn_zonedev.pfn_walkers import Act, Exposure, Judgement, WalkersReport, WalkOutcome
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
from drgn_zonedev.util.strings import printable

__all__ = ("walkers_document", "walkers_text")

# The most exposures of a walker, and the most unjudged ranges, that a screen shows.
_MAX_EXPOSURES = 6
_FEWEST_EXPOSURES = 4
_MAX_UNJUDGED = 3


def walkers_text(report: WalkersReport, *, screen: Screen | None = None) -> str:
    """
    Render a row per walker, the worst first, then the memory that each of them would meet.
    Walkers that the kernel does not have come last.

    :param screen: Show only as much as fits, and count the rest.
    """
    judgements = sorted(report.walkers, key=_rank)
    here = [j for j in judgements if j.present is not False]
    absent = [j for j in judgements if j.present is False]
    exposed = [j for j in here if j.exposures]
    if screen is None:
        parts = [
            kernel_text(report.kernel),
            *(["", _overview(here)] if here else []),
            *_blocks(exposed),
            *(["", _ABSENT, _overview(absent)] if absent else []),
            *_blocks([j for j in absent if j.exposures]),
            "",
            *_remarks(report, len(report.unjudged)),
        ]
        return "\n".join(parts)
    head = [kernel_line(report.kernel, screen), ""]
    tail = [wrapped(line, screen) for line in _remarks(report, _MAX_UNJUDGED)]
    if sum(height(line, screen) for line in tail) > screen.lines // 3:
        tail = [wrapped(line, screen) for line in _shorter_remarks(report)]
    # One more line for the blank one above the remarks, and one that counts absent walkers.
    room = screen.lines - 1 - bool(absent) - sum(height(part, screen) for part in head + tail)
    # The exposures of the worst walkers are more important than walkers without exposures.
    wanted = len(exposed) + 2 if exposed else len(here) + 1
    rows = min(wanted, max(room - _LEAST_BLOCK, room // 2))
    blocks = _fitting_blocks(exposed, room - rows, screen)
    if not blocks:
        rows = room
    body = [_folded_overview(here, rows, screen)] if here else []
    body += blocks
    if absent:
        left = room + 1 - sum(height(part, screen) for part in body)
        body += _folded_absent(absent, left, screen)
    return "\n".join([*head, *body, "", *tail])


_ABSENT = "NOT IN THIS KERNEL. What these walkers would do if it were built with them:"


def _folded_absent(absent: Sequence[Judgement], room: int, screen: Screen) -> Iterator[str]:
    # All or nothing: they are not what was asked for, unless nothing else was.
    parts = ["", wrapped(_ABSENT, screen), _overview(absent, screen)]
    for judgement in (j for j in absent if j.exposures):
        lines = [wrapped(line, screen) for line in _shortened(judgement, screen)]
        parts.append("\n".join(["", *lines]))
    if sum(height(part, screen) for part in parts) <= room:
        yield from parts
    else:
        yield more("walkers that this kernel does not have", absent, _worst, screen)


def _blocks(judgements: Iterable[Judgement]) -> Iterator[str]:
    for judgement in judgements:
        yield "\n".join(["", *_judgement(judgement, judgement.exposures)])


def _fitting_blocks(exposed: Sequence[Judgement], room: int, screen: Screen) -> list[str]:
    """Render what each walker meets, as far as there is room, and count the others."""
    blocks: list[str] = []
    for i, judgement in enumerate(exposed):
        # After all but the last, leave room for the line that counts the others.
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


# A blank line, the name of the walker, a heading, some ranges, and the count of the rest.
_LEAST_BLOCK = 7


def _folded_overview(judgements: Sequence[Judgement], room: int, screen: Screen) -> str:
    shown = judgements if len(judgements) < room else judgements[: max(room - 2, 0)]
    rest = judgements[len(shown) :]
    parts = [_overview(shown, screen)] if shown else []
    if rest:
        parts.append(more("walkers", rest, _worst, screen))
    return "\n".join(parts)


def _rank(judgement: Judgement) -> int:
    order = list(WalkOutcome)
    return min((order.index(e.worst) for e in judgement.exposures), default=len(order))


def _shortened(judgement: Judgement, screen: Screen) -> Iterator[str]:
    yield from _about(judgement)
    yield from _some_exposures(judgement, _MAX_EXPOSURES, screen)


def _met(judgement: Judgement, screen: Screen) -> Iterator[str]:
    """Render only what a walker meets."""
    yield f"{judgement.walker.name}: {judgement.walker.what}"
    yield from _some_exposures(judgement, _FEWEST_EXPOSURES, screen)


def _some_exposures(judgement: Judgement, room: int, screen: Screen) -> Iterator[str]:
    exposures = judgement.exposures
    ranks = [list(WalkOutcome).index(e.worst) for e in exposures]
    shown = placed([e.case for e in exposures], ranks, room)
    header, *lines = _exposures([exposures[i] for i in shown], screen).splitlines()
    yield header
    yield from with_gaps(lines, shown, exposures, "ranges", lambda e: e.case.value, screen)


_UNTRACED = (
    "not known to be in this kernel, as BTF and kallsyms do not show a function that is inlined "
    "everywhere"
)
_PRESENT = {True: "yes", False: "not in vmlinux", None: "not known"}


def _overview(judgements: Iterable[Judgement], screen: Screen | None = None) -> str:
    return fitted_table(
        ("WALKER", "FUNCTION", "IN KERNEL", "TOUCHED", "FROM", "USED", "WORST", "GUARD"),
        [
            (
                j.walker.name,
                f"{j.file}: {j.function}()",
                "a program" if not j.walker.functions else _PRESENT[j.present],
                _sum(j, "touched"),
                "proved" if j.proof else "reasoned" if _is_judged(j) else "-",
                _sum(j, "used"),
                _worst(j),
                _guard_text(j),
            )
            for j in judgements
        ],
        screen,
        ("FUNCTION", "FROM", "GUARD", "IN KERNEL"),
    )


def _is_judged(judgement: Judgement) -> bool:
    return judgement.guard is not None and judgement.unjudged is None


def _sum(judgement: Judgement, name: str) -> int | str:
    if not _is_judged(judgement):
        return "-"
    return sum(getattr(exposure, name) for exposure in judgement.exposures)


def _guard_text(judgement: Judgement) -> str:
    if judgement.guard is None:
        return f"none: the kernel is {'newer' if judgement.walker.until else 'older'}"
    if judgement.unjudged is not None:
        return f"not judged: {judgement.unjudged}"
    return ", ".join(_guard(judgement))


def _guard(judgement: Judgement) -> Iterator[str]:
    assert judgement.guard is not None
    yield from judgement.guard.steps
    for name in judgement.guard.filters:
        yield f"then {name}"


def _worst(judgement: Judgement) -> str:
    return _word(_worst_outcome(judgement)) if judgement.exposures else "-"


def _worst_outcome(judgement: Judgement) -> WalkOutcome:
    return list(WalkOutcome)[_rank(judgement)]


def _word(outcome: WalkOutcome) -> str:
    return outcome.name.lower().replace("_", "-")


def _judgement(judgement: Judgement, exposures: Iterable[Exposure]) -> Iterator[str]:
    yield from _about(judgement)
    yield from _exposures(exposures, None).splitlines()


def _about(judgement: Judgement) -> Iterator[str]:
    walker, guard = judgement.walker, judgement.guard
    assert guard is not None
    yield f"{walker.name}: {walker.what}"
    yield f"  guard: {', '.join(_guard(judgement))}"
    yield f"  known: {guard.source}{' (chosen by the release)' if judgement.by_release else ''}"
    yield f"  it {', '.join(_does(guard.does))}"
    if walker.note:
        yield f"  note: {walker.note}"
    if judgement.proof:
        yield f"  proof: {judgement.proof}"


def _does(does: Iterable[Act | str]) -> Iterator[str]:
    for each in does:
        yield each.value if isinstance(each, Act) else f"goes on if {each}"


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
    counted = [j for j in report.walkers if j.counts]
    worst = [_worst_outcome(j) for j in counted if j.exposures]
    looks = sum(outcome is WalkOutcome.DROPPED for outcome in worst)
    harmed = sum(o not in (WalkOutcome.DROPPED, WalkOutcome.HARMLESS) for o in worst)
    yield (
        f"{harmed} of {len(counted)} walkers that this kernel has or may have would use "
        "uninitialised or stale struct pages"
        + (f"; {looks} more would read some and use nothing" if looks else "")
    )
    here = [j for j in report.walkers if j.present is not False]
    if untraced := [j.walker.name for j in here if j.untraced]:
        yield f"{_UNTRACED}: {', '.join(untraced)}"
    if skipped := [j.walker.name for j in here if j.unjudged]:
        yield f"not judged on this kernel: {', '.join(skipped)}"
    if unsure := [j.walker.name for j in here if j.by_release and not j.unjudged]:
        yield (
            f"guards chosen by the release ({printable(report.kernel.release)}), perhaps wrong if "
            f"this kernel was patched: {', '.join(unsure)}"
        )


def _outcomes(report: WalkersReport) -> list[WalkOutcome]:
    outcomes = {o for j in report.walkers for e in j.exposures for o in e.outcomes}
    return [outcome for outcome in WalkOutcome if outcome in outcomes]


def _not_known(report: WalkersReport, max_unjudged: int) -> Iterator[str]:
    for name in report.unreadable:
        yield f"{name} could not be read: guards that need it are taken to let everything pass"
    for gap in report.unjudged[:max_unjudged]:
        yield f"not judged: {span(gap.start_pfn, gap.end_pfn)}: {printable(gap.reason)}"
    if report.unjudged[max_unjudged:]:
        yield f"... {len(report.unjudged) - max_unjudged:,} more not judged {SHOW_ALL}"


def walkers_document(report: WalkersReport) -> Document:
    """The document of ``walkers``."""
    return {
        "schema": "drgn-zonedev/walkers/1",
        "kernel": kernel_document(report.kernel),
        "walkers": [_judgement_document(j) for j in report.walkers],
        "unjudged": [unjudged_document(u) for u in report.unjudged],
        "unread": list(report.unreadable),
    }


def _judgement_document(judgement: Judgement) -> Document:
    walker, guard = judgement.walker, judgement.guard
    return {
        "name": walker.name,
        "what": walker.what,
        "file": judgement.file,
        "function": judgement.function,
        "in_kernel": judgement.present,
        **({"in_kernel_unknown": _UNTRACED} if judgement.untraced else {}),
        "counts": judgement.counts,
        "unjudged": judgement.unjudged,
        "guard": {
            "steps": list(guard.steps),
            "filters": list(guard.filters),
            "does": [
                {"act": each.value} if isinstance(each, Act) else {"filter": each}
                for each in guard.does
            ],
            "known": guard.source,
            "by_release": judgement.by_release,
        }
        if guard
        else None,
        "stride": judgement.stride,
        "offset": judgement.offset,
        "proof": judgement.proof,
        "note": walker.note,
        "exposures": [
            {
                "start_pfn": e.start_pfn,
                "end_pfn": e.end_pfn,
                "case": e.case.value,
                "number": e.case.number,
                "touched": e.touched,
                "used": e.used,
                "outcomes": {_word(outcome): count for outcome, count in e.outcomes.items()},
                "contents": {kind.value: count for kind, count in e.contents.items()},
            }
            for e in judgement.exposures
        ],
    }
