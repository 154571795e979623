# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Dumps
----------

Reads the output of dump_page(), in all its forms since v4.9, and "Bad page state" above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from drgn_zonedev.oops_log.lines import LogLine

__all__ = ("PageDump", "RawWord", "page_dumps")


@dataclass(frozen=True)
class RawWord:
    """A word of a struct page, and the line that it is in."""

    line: int
    value: int


@dataclass
class PageDump:
    """
    One struct page that the kernel printed; ``None`` for what it did not print.

    ``address`` is ``None``, too, where ``%p`` hashed it. ``flags`` is the word without
    interpretation, ``flag_names`` what the kernel made of it. ``head_words`` are those of the head
    of a tail. ``named`` pages are named by memory_failure() or the like, and not printed.
    """

    line: int
    last_line: int
    address: int | None = None
    pfn: int | None = None
    refcount: int | None = None
    mapcount: int | None = None
    flags: int | None = None
    flag_names: tuple[str, ...] = ()
    node: int | None = None
    zone: int | None = None
    words: list[RawWord] = field(default_factory=list)
    head_words: list[RawWord] = field(default_factory=list)
    head_address: int | None = None
    reason: str | None = None
    poisoned: bool = False
    bad_state: bool = False
    named: bool = False

    @property
    def is_filled_with(self) -> int | None:
        """The byte that all its words consist of, if there are enough of them."""
        first = self.words[0].value & 0xFF if self.words else None
        if first is None or len(self.words) < 4:
            return None
        filled = first * 0x0101010101010101
        return first if all(word.value == filled for word in self.words) else None


# What memory_failure() and soft_offline_page() say of a page.
_HWPOISON = re.compile(
    r"(?:\bMemory failure|\bsoft[_ ]offline|\bSoft offlining|\bSoftware-unpoisoned"
    r"|memory failure for)"
    r"(?: page| pfn|:|_page)* (?:pfn )?(?:0x|#)([0-9a-f]{1,13})\b",
    re.IGNORECASE,
)
_START = re.compile(
    r"\bpage: ?(?:0x)?([0-9a-f]{8,16}|\(____ptrval____\)|\(ptrval\))? ?"
    r"(?:(?:ref)?count:(-?\d{1,10})|(is uninitialized and poisoned))"
)
_BAD_STATE = re.compile(r"BUG: Bad page state in process .{1,40}?\bpfn: ?(?:0x)?([0-9a-f]{1,13})\b")
_MAPCOUNT = re.compile(r"\bmapcount:(-?\d{1,10})")
_PFN = re.compile(r"\bpfn: ?0x([0-9a-f]{1,13})\b")
_HEAD = re.compile(r"\bhead:(f[0-9a-f]{15}|c00[0-9a-f]{13})\b")
_FLAGS = re.compile(r"\bflags: 0x([0-9a-f]{1,16})\(([^()]{0,600})\)?")
_NODE = re.compile(r"\bnode=(\d{1,5})")
_ZONE = re.compile(r"\bzone=(\d{1,2})")
_RAW = re.compile(r"(?:\b|poisoned)(raw|head): ((?:[0-9a-f]{16}(?: {1,4}|$)){1,8})")
_CANDIDATE = re.compile(r"page|raw:|head:|flags:|pfn:|emory failure|offlin|npoison")
_WORD = re.compile(r"[0-9a-f]{16}")
_REASON = re.compile(r"page dumped because: (.{1,200})")

# Between the first line of a dump and its last, with page_owner's trace between.
_MOST_LINES = 48


def page_dumps(lines: Sequence[LogLine]) -> Iterator[PageDump]:
    """Find every dump_page() in lines; ``raw:`` lines alone are one, too."""
    dump: PageDump | None = None
    for line in lines:
        if not _CANDIDATE.search(line.text):
            continue
        if dump is not None and (line.number - dump.last_line > _MOST_LINES or _ends(dump, line)):
            yield dump
            dump = None
        start = _begin(line, dump)
        if start is not None:
            if dump is not None and dump is not start:
                yield dump
            dump = start
        if dump is not None:
            _add(dump, line)
    if dump is not None:
        yield dump


def _begin(line: LogLine, dump: PageDump | None) -> PageDump | None:
    # The dump that a line starts, or adds its beginning to.
    text = line.text
    if (bad := _BAD_STATE.search(text)) is not None:
        return PageDump(line.number, line.number, pfn=int(bad[1], 16), bad_state=True)
    if (start := _START.search(text)) is not None:
        if dump is None or not (dump.bad_state and dump.refcount is None and not dump.words):
            dump = PageDump(line.number_at(start.start()), line.number)
        dump.address = _pointer(start[1])
        dump.refcount = int(start[2]) if start[2] else None
        dump.poisoned = bool(start[3])
        return dump
    if dump is None and (hwpoison := _HWPOISON.search(text)) is not None:
        return PageDump(line.number, line.number, pfn=int(hwpoison[1], 16), named=True)
    if dump is None and (_RAW.search(text) or _FLAGS.search(text)):
        return PageDump(line.number, line.number)
    return None


def _ends(dump: PageDump, line: LogLine) -> bool:
    if dump.named:
        return True
    # A second page's words without the line that introduces them.
    return len(dump.words) >= 8 and bool(_RAW.search(line.text)) and "raw: " in line.text


def _pointer(text: str | None) -> int | None:
    if not text or text.startswith("("):
        return None
    value = int(text, 16)
    # %p hashes to 32 bits.
    return value if value >> 32 else None


def _add(dump: PageDump, line: LogLine) -> None:
    text = line.text
    before = len(dump.words) + len(dump.head_words)
    for raw in _RAW.finditer(text):
        words = dump.words if raw[1] == "raw" else dump.head_words
        for word in _WORD.finditer(text, *raw.span(2)):
            words.append(RawWord(line.number_at(word.start()), int(word[0], 16)))
    if dump.pfn is None and (pfn := _PFN.search(text)) is not None:
        dump.pfn = int(pfn[1], 16)
    if (head := _HEAD.search(text)) is not None:
        dump.head_address = int(head[1], 16)
    if dump.mapcount is None and (mapcount := _MAPCOUNT.search(text)) is not None:
        dump.mapcount = int(mapcount[1])
    if dump.flags is None and (flags := _FLAGS.search(text)) is not None:
        _add_flags(dump, flags)
    if (reason := _REASON.search(text)) is not None:
        dump.reason = reason[1].strip()
    if dump.reason or len(dump.words) + len(dump.head_words) > before or dump.flags is not None:
        dump.last_line = line.number


def _add_flags(dump: PageDump, flags: re.Match[str]) -> None:
    dump.flags = int(flags[1], 16)
    parts = [part.strip() for part in flags[2].split("|")]
    dump.flag_names = tuple(part for part in parts if part and "=" not in part)
    node, zone = _NODE.search(flags[2]), _ZONE.search(flags[2])
    dump.node = int(node[1]) if node else None
    dump.zone = int(zone[1]) if zone else None
