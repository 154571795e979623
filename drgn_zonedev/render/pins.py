# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``pins`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.kernel.page_holders import HolderKind
from drgn_zonedev.kernel.rmap import MappingKind
from drgn_zonedev.kernel.tasks import Process
from drgn_zonedev.page_users.pins import (
    Awaited,
    Gap,
    HeldBy,
    MappedBy,
    OpenedBy,
    PageOwner,
    PgmapPins,
    Pins,
    ReferenceSum,
    UsedPages,
    Waiter,
)
from drgn_zonedev.render.as_json import Document, kernel_document
from drgn_zonedev.render.cells import device_text, span, type_text
from drgn_zonedev.render.screen import Screen, cut, height, placed, with_gaps, wrapped
from drgn_zonedev.util.strings import printable

__all__ = ("pins_document", "pins_text", "used_pages_text")


@dataclass(frozen=True)
class _Line:
    """A line of text. Lines of rank 0 are shown first if not all fit."""

    text: str
    rank: int


def pins_text(pins: Pins, *, screen: Screen | None = None) -> str:
    """
    Render the users of each pgmap's pages.

    :param screen: show only what fits on this screen, and count the rest
    """
    lines = [line for pgmap in pins.pgmaps for line in _pgmap_lines(pgmap)]
    last = [*map(_gap_line, pins.gaps), _summary(pins)]
    texts = [line.text for line in lines]
    if screen is None or height("\n".join([*texts, "", *last]), screen) <= screen.lines:
        return "\n".join([*texts, "", *last] if lines else last)
    # Gaps are named as far as they take no more than a third of the screen.
    ending = [wrapped(line, screen) for line in last]
    if sum(height(line, screen) for line in ending) > screen.lines // 3:
        ending = [
            cut(f"NOT SEARCHED: {_plural(len(pins.gaps), 'part')}: users may be missing", screen),
            wrapped(last[-1], screen),
        ]
    room = screen.lines - 1 - sum(height(line, screen) for line in ending)
    shown = placed([""] * len(lines), [line.rank for line in lines], max(room, 1))
    kept = [cut(texts[i], screen) for i in shown]
    body = with_gaps(kept, shown, lines, "lines", lambda _: "of users", screen)
    return "\n".join([*body, "", *ending])


def used_pages_text(use: UsedPages) -> str:
    """Render pages that are used in the same way, and their users."""
    return "\n".join(line.text[4:] for line in _use_lines(use))


def _summary(pins: Pins) -> str:
    if not pins.pgmaps:
        return "no pgmaps: this machine has no ZONE_DEVICE memory"
    if pins.pfn is not None:
        used = any(pgmap.uses for pgmap in pins.pgmaps)
        return f"PFN {pins.pfn:#x} is {'used' if used else 'not used'}"
    pages, used = (sum(counts) for counts in zip(*((p.pages, p.used_pages) for p in pins.pgmaps)))
    waiting = sum(len(pgmap.waiters) for pgmap in pins.pgmaps)
    tasks = f", {_plural(waiting, 'task')} {'waits' if waiting == 1 else 'wait'}"
    return f"{used} of {_plural(pages, 'page')} {'is' if used == 1 else 'are'} used{tasks}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _gap_line(gap: Gap) -> str:
    at = "" if gap.address is None else f" at {gap.address:#x}"
    return printable(f"NOT SEARCHED: {gap.searched.value}{at}: {gap.reason}")


# A pgmap.


def _pgmap_lines(pgmap: PgmapPins) -> Iterator[_Line]:
    yield _Line(printable(_title(pgmap)), 0)
    if pgmap.references is not None:
        yield _Line(f"    {_references(pgmap, pgmap.references)}", 2)
    for waiter in pgmap.waiters:
        yield from _waiter_lines(waiter)
    for use in pgmap.uses:
        yield from _use_lines(use)


def _title(pgmap: PgmapPins) -> str:
    map_ = pgmap.pgmap
    spans = ", ".join(span(r.start_pfn, r.end_pfn) for r in map_.ranges)
    device = device_text(map_) or "?"
    used = f"{pgmap.used_pages} of {_plural(pgmap.pages, 'page')} used"
    return f"{device}: {type_text(map_)}, PFNs {spans}, pgmap {map_.address:#x}: {used}"


def _references(pgmap: PgmapPins, sum_: ReferenceSum) -> str:
    ref = pgmap.pgmap.ref
    found = "not readable" if sum_.found is None else str(sum_.found)
    parts = [(sum_.initial, "initial"), (sum_.of_pages, "of pages"), (sum_.of_users, "of users")]
    account = " + ".join(f"{count} {whose}" for count, whose in parts if count)
    expected = f"{sum_.expected} expected" + (f" ({account})" if account else "")
    mode = f"{ref.state}, {ref.mode} mode" if ref.mode else ref.state
    text = f"references to the pgmap: {found}, {expected}; {mode}"
    if sum_.found is not None and sum_.found > sum_.expected:
        text += f": {sum_.found - sum_.expected} more than its pages account for"
    return text


def _waiter_lines(waiter: Waiter) -> Iterator[_Line]:
    what = waiter.awaited.value
    if waiter.pfn is not None:
        what = f"{what}, PFN {waiter.pfn:#x}"
    yield _Line(f"    {_process(waiter.process)} waits for {what}", 0)
    yield _Line(f"        {printable(_stack(waiter.stack))}", 1)


# The innermost functions of a stack say enough.
_MOST_FUNCTIONS = 12


def _stack(stack: Sequence[str]) -> str:
    if not stack:
        return "its stack cannot be unwound"
    more = ["..."] if len(stack) > _MOST_FUNCTIONS else []
    return " < ".join([*stack[:_MOST_FUNCTIONS], *more])


def _use_lines(use: UsedPages) -> Iterator[_Line]:
    yield _Line(printable(f"    {span(use.start_pfn, use.end_pfn)} {_use(use)}"), 0)
    for user in use.mapped_by:
        yield _Line(printable(f"        {_mapped(use, user)}"), 1)
    for holder in use.held_by:
        yield _Line(printable(f"        {_held(holder)}"), 1)
    if use.has_unknown_user:
        yield _Line(f"        no user found for {_unknown(use)}", 1)
    for sleeper in use.sleepers:
        who, stack = _process(sleeper.process), printable(_stack(sleeper.stack))
        yield _Line(f"        {who} cannot be interrupted: {stack}", 1)


def _use(use: UsedPages) -> str:
    size = _plural(use.pages, "page")
    if use.order:
        size += f" in {_plural(use.folios, 'folio')} of {1 << use.order}"
    each = " each" if use.folios > 1 else ""
    counts = [f"{_plural(use.references, 'reference')}{each} (idle: {use.idle})"]
    if use.pins:
        counts.append(_plural(use.pins, "pin"))
    if use.mappings:
        counts.append(_plural(use.mappings, "mapping"))
    if not use.is_held:
        counts.append("mapped without a reference" if use.mapped_by else "not referenced")
    return f"{size}, {', '.join(counts)}: {_owner(use.owner, use.index)}"


_OWNERS = {
    MappingKind.NONE: "of no file",
    MappingKind.ANON: "anonymous memory",
    MappingKind.KSM: "KSM",
    MappingKind.MOVABLE: "of a driver that can move it",
    MappingKind.SHARED: "shared by files (reflink)",
}


def _owner(owner: PageOwner, index: int) -> str:
    if owner.kind is not MappingKind.FILE:
        return _OWNERS[owner.kind]
    if owner.path is not None:
        return f"{owner.path}, page {index}"
    if owner.inode is not None:
        return f"a file without a path, inode {owner.inode}, page {index}"
    return f"a file that cannot be read, address_space {owner.address:#x}"


def _process(process: Process) -> str:
    return printable(f"{process.name} (PID {process.pid})")


def _mapped(use: UsedPages, user: MappedBy) -> str:
    who = " and ".join(map(_process, user.processes))
    who = who or f"no process that was found, mm {user.mm:#x},"
    verb = "map" if len(user.processes) > 1 else "maps"
    what = "may map them" if user.pages is None else f"{verb} {_plural(user.pages, 'page')}"
    where = f"VMA [{user.start:#x}, {user.end:#x})"
    path = f" of {user.path}" if user.path and user.path != use.owner.path else ""
    return f"{who} {what}, {where}{path}"


_HOLDERS = {
    HolderKind.PIPE: ("reference", "in a pipe"),
    HolderKind.IO_URING: ("pin", "in buffers registered with io_uring"),
}


def _held(user: HeldBy) -> str:
    noun, where = _HOLDERS[user.holder.kind]
    return f"{_plural(user.references, noun)} {where} of {_openers(user.opened_by)}"


def _openers(opened_by: Iterable[OpenedBy]) -> str:
    fds: dict[Process, list[str]] = {}
    for opened in opened_by:
        fds.setdefault(opened.process, []).append(str(opened.fd))
    return " and ".join(
        f"{_process(process)}, file descriptor{'s' if len(own) > 1 else ''} {', '.join(own)}"
        for process, own in fds.items()
    )


def _unknown(use: UsedPages) -> str:
    counts = (
        (use.unknown_references, "reference"),
        (use.unknown_pins, "pin"),
        (use.unknown_mappings, "mapping"),
    )
    return ", ".join(_plural(count, noun) for count, noun in counts if count)


# JSON.


def pins_document(pins: Pins) -> Document:
    """The document of ``pins``."""
    return {
        "schema": "drgn-zonedev/pins/1",
        "kernel": kernel_document(pins.kernel),
        "pfn": pins.pfn,
        "pgmaps": [_pgmap(pgmap) for pgmap in pins.pgmaps],
        "not_searched": [
            {
                "searched": gap.searched.name.lower(),
                "address": None if gap.address is None else hex(gap.address),
                "reason": gap.reason,
            }
            for gap in pins.gaps
        ],
    }


def _pgmap(pgmap: PgmapPins) -> Document:
    map_, sum_ = pgmap.pgmap, pgmap.references
    return {
        "address": hex(map_.address),
        "type": map_.type,
        "device": map_.device.name if map_.device else None,
        "disk": map_.device.disk if map_.device else None,
        "ranges": [{"start_pfn": r.start_pfn, "end_pfn": r.end_pfn} for r in map_.ranges],
        "state": map_.ref.state,
        "mode": map_.ref.mode,
        "pages": pgmap.pages,
        "used_pages": pgmap.used_pages,
        "references": {
            "found": sum_.found,
            "expected": sum_.expected,
            "initial": sum_.initial,
            "of_pages": sum_.of_pages,
            "of_users": sum_.of_users,
        }
        if sum_
        else None,
        "used": [_used(use) for use in pgmap.uses],
        "waiting": [
            {
                **_process_document(waiter.process),
                "waits_for": "removal" if waiter.awaited is Awaited.REMOVAL else "page",
                "pfn": waiter.pfn,
                "stack": list(waiter.stack),
            }
            for waiter in pgmap.waiters
        ],
    }


def _used(use: UsedPages) -> Document:
    return {
        "start_pfn": use.start_pfn,
        "end_pfn": use.end_pfn,
        "order": use.order,
        "references": use.references,
        "idle_references": use.idle,
        "pins": use.pins,
        "mappings": use.mappings,
        "owner": {
            "kind": use.owner.kind.value,
            "address": hex(use.owner.address) if use.owner.address else None,
            "inode": use.owner.inode,
            "path": use.owner.path,
            "index": use.index if use.owner.address else None,
        },
        "mapped_by": [
            {
                "processes": [_process_document(process) for process in user.processes],
                "mm": hex(user.mm),
                "start": hex(user.start),
                "end": hex(user.end),
                "path": user.path,
                "pages": user.pages,
            }
            for user in use.mapped_by
        ],
        "held_by": [
            {
                "kind": user.holder.kind.value,
                "address": hex(user.holder.address),
                "opened_by": [
                    {**_process_document(opened.process), "fd": opened.fd}
                    for opened in user.opened_by
                ],
                "references": user.references,
            }
            for user in use.held_by
        ],
        "unknown": {
            "references": use.unknown_references,
            "pins": use.unknown_pins,
            "mappings": use.unknown_mappings,
        },
        "sleeping": [
            {**_process_document(sleeper.process), "stack": list(sleeper.stack)}
            for sleeper in use.sleepers
        ],
    }


def _process_document(process: Process) -> Document:
    return {"pid": process.pid, "name": process.name}
