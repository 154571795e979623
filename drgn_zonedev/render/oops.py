# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Logs of Oopses
--------------

What ``oops`` prints, as text and as JSON. Logs are as untrusted as dumps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from drgn_zonedev.known_bugs.bugs import BUGS
from drgn_zonedev.known_bugs.in_logs import known_bugs_of_log
from drgn_zonedev.oops_log.answer import (
    AddressKind,
    Boot,
    LoggedAddress,
    LoggedPage,
    OopsLog,
)
from drgn_zonedev.oops_log.events import Event
from drgn_zonedev.render.as_json import Document
from drgn_zonedev.render.bugs import fix_text
from drgn_zonedev.render.cells import fitted_table
from drgn_zonedev.render.screen import SHOW_ALL, Screen
from drgn_zonedev.util.strings import printable

if TYPE_CHECKING:
    from drgn_zonedev.explanation.explain import Explanation

__all__ = ("oops_document", "oops_text")


def oops_document(log: OopsLog, explanations: Sequence[Explanation] | None = None) -> Document:
    """
    The document of ``oops``.

    :param explanations: Of the PFNs, if there is a dump.
    """
    return {
        "schema": "drgn-zonedev/oops/1",
        "addresses": [_address(address) for address in log.addresses],
        "pages": [_page(page) for page in log.pages],
        "known_bugs": list(known_bugs_of_log(log)),
        "boots": [_boot(boot) for boot in log.boots],
        **({} if explanations is None else {"explanations": [*map(_explanation, explanations)]}),
    }


def _address(address: LoggedAddress) -> Document:
    return {
        "line": address.line,
        "address": hex(address.address),
        "kind": address.kind.value,
        "pfn": address.pfn,
        "offset": address.offset,
        "field": address.field,
        "pattern": address.pattern.value if address.pattern else None,
        "base": address.base.value if address.base else None,
    }


def _page(page: LoggedPage) -> Document:
    return {
        "line": page.line,
        "pfn": page.pfn,
        "node": page.node,
        "zone": page.zone,
        "flags": None if page.flags is None else hex(page.flags),
        "words": [hex(word) for word in page.words],
    }


def _boot(boot: Boot) -> Document:
    return {
        "release": boot.kernel.release,
        "architecture": boot.architecture,
        "page_size": boot.page_size,
        "vmemmap": [
            {"address": hex(base.address), "base": base.source.value, "why": base.why}
            for base in boot.bases
        ],
        "layout": boot.fields.source,
        "events": [
            {
                "line": event.line,
                "kind": event.kind.value,
                "function": event.function,
                "trace": list(event.trace),
                "condition": event.condition,
            }
            for event in boot.events
        ],
        "reserved_holes": [list(span) for span in boot.reserved_holes],
        "missing": [need.name.lower().replace("_", "-") for need in boot.needs],
    }


def _explanation(explanation: Explanation) -> Document:
    return {
        "pfn": explanation.pfn,
        "case": explanation.range.case.value if explanation.range else None,
        "contents": explanation.page.contents if explanation.page else None,
        "findings": [finding.slug for finding in explanation.findings],
        "walkers": [walker.name for walker in explanation.walkers],
        "verdict": explanation.verdict,
    }


def oops_text(
    log: OopsLog,
    explanations: Sequence[Explanation] | None = None,
    *,
    screen: Screen | None = None,
) -> str:
    """
    What ``oops`` prints.

    :param explanations: Of the PFNs, if there is a dump.
    :param screen: show only what fits on this screen, and count the rest
    """
    shown = [boot for boot in log.boots if boot.addresses or boot.pages or boot.events]
    blocks = [block for boot in shown for block in _blocks(boot, screen)]
    if bugs := list(_bugs(log)):
        blocks.append("\n".join(["KNOWN BUGS", "", *bugs]))
    if explanations:
        blocks.append("\n".join(["IN THE DUMP", "", *_explained(explanations)]))
    if not blocks:
        return "This log has no oops, page dump or registers."
    return "\n\n".join(blocks)


# Rows of each table on a screen; there are up to five tables.
_ROWS = 8


def _blocks(boot: Boot, screen: Screen | None) -> Iterator[str]:
    yield "\n".join(_head(boot))
    for title, lines in (
        ("EVENTS", _events(boot.events)),
        ("ADDRESSES", _addresses(boot, screen)),
        ("STRUCT PAGES", _pages(boot)),
        ("WHAT THIS MEANS", _meanings(boot)),
        ("WHAT IS MISSING", (need.value for need in boot.needs)),
    ):
        if found := _folded(list(lines), title, screen):
            yield "\n".join([title, "", *found])


def _folded(lines: list[str], title: str, screen: Screen | None) -> list[str]:
    if screen is None or len(lines) <= _ROWS + 1:
        return lines
    hidden = len(lines) - _ROWS
    return [*lines[:_ROWS], f"... {hidden} more lines of {title.lower()} {SHOW_ALL}"]


def _head(boot: Boot) -> Iterator[str]:
    kernel = f"Linux {boot.kernel.release}" if boot.kernel.release else "Linux, of no known release"
    yield printable(f"{kernel}, {boot.architecture or 'of no known architecture'}")
    for base in boot.bases:
        yield printable(f"vmemmap at {base.address:#x} ({base.source.value}: {base.why})")
    if boot.pages or boot.bases:
        yield printable(f"members of struct page: {boot.fields.source}")


def _events(events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        where = f" in {event.function}()" if event.function else ""
        via = "".join(f" <- {name}()" for name in event.trace[:4])
        why = f": {event.condition}" if event.condition else ""
        yield printable(f"line {event.line}: {event.kind.value}{where}{via}{why}")


def _addresses(boot: Boot, screen: Screen | None) -> Iterator[str]:
    shown = [a for a in boot.addresses if a.kind is not AddressKind.OTHER]
    if rows := [_row(boot, address) for address in shown]:
        headers = ("LINE", "ADDRESS", "IN", "IS", "PFN", "PHYSICAL", "MEMBER")
        yield from fitted_table(headers, rows, screen, ("PHYSICAL",)).split("\n")
    if others := len(boot.addresses) - len(shown):
        yield f"{others} other addresses are neither in vmemmap, as far as known, nor poison"


def _row(boot: Boot, address: LoggedAddress) -> tuple[str, ...]:
    what = address.pattern.value if address.pattern else address.kind.value
    physical = None if address.pfn is None else boot.physical_address(address.pfn)
    member = "" if address.field is None else f"{address.field} (+{address.offset:#x})"
    return (
        str(address.line),
        f"{address.address:#x}",
        address.name,
        what,
        "" if address.pfn is None else f"{address.pfn:#x}",
        "" if physical is None else f"{physical:#x}",
        member,
    )


def _pages(boot: Boot) -> Iterator[str]:
    for page in boot.pages:
        yield printable(_page_line(page))
        yield from (f"    {text}" for text in _page_facts(boot, page))


def _page_line(page: LoggedPage) -> str:
    pfn = "an unknown PFN" if page.pfn is None else f"PFN {page.pfn:#x}"
    parts = (
        f"line {page.line}: {pfn}",
        "" if page.address is None else f"struct page at {page.address:#x}",
        "" if page.node is None else f"node {page.node}",
        "" if page.zone is None else f"zone {page.zone}",
        "|".join(page.flag_names),
    )
    return ", ".join(filter(None, parts))


def _page_facts(boot: Boot, page: LoggedPage) -> Iterator[str]:
    if page.pattern is not None:
        yield f"all words: {page.pattern.value}"
    elif page.words:
        counts = [
            f"{name} {value}"
            for name, value in (
                ("refcount", page.refcount),
                ("_mapcount", page.read.mapcount),
            )
            if value is not None
        ]
        if counts:
            yield ", ".join(counts)
        if page.read.link is not None and page.read.link & 1:
            head = "" if page.read.head is None else f" with its head at {page.read.head:#x}"
            pfn = "" if page.head_pfn is None else f", PFN {page.head_pfn:#x}"
            yield f"a tail{head}{pfn}"
    if page.reason:
        yield printable(f"dumped because: {page.reason}")


def _meanings(boot: Boot) -> Iterator[str]:
    patterns = dict.fromkeys(a.pattern for a in boot.addresses if a.pattern is not None)
    patterns.update(dict.fromkeys(p.pattern for p in boot.pages if p.pattern is not None))
    for pattern in patterns:
        yield f"{pattern.value}: {pattern.meaning}"
    faults = [a for a in boot.addresses if a.name in ("fault", "CR2", "DAR", "badaddr")]
    for pfn in dict.fromkeys(a.pfn for a in faults if a.pfn is not None):
        yield f"the fault is in vmemmap: the struct page of PFN {pfn:#x} is not mapped there"


def _bugs(log: OopsLog) -> Iterator[str]:
    for slug in known_bugs_of_log(log):
        bug = BUGS[slug]
        yield from (
            f"{slug}: {bug.mechanism}",
            f"    {fix_text(bug)}; {bug.cure}",
            f"    how sure: {bug.sure.value}{f'; {bug.note}' if bug.note else ''}",
        )
        holes = [span for boot in log.boots for span in boot.reserved_holes]
        if slug == _OF_HOLES and holes:
            spans = ", ".join(f"[{start:#x}, {end:#x})" for start, end in holes)
            yield f"    PFNs that boot reserves where there is no RAM: {spans}"


# The bug that is about pages that boot reserves.
_OF_HOLES = "zone-of-reserved-hole"


def _explained(explanations: Iterable[Explanation]) -> Iterator[str]:
    for e in explanations:
        yield printable(f"PFN {e.pfn:#x}: {e.verdict}")
        for finding in e.findings:
            yield printable(f"    {finding.severity.value}: {finding.slug}: {finding.message}")
        if names := ", ".join(walker.name for walker in e.walkers):
            yield printable(f"    walkers that would touch it: {names}")
