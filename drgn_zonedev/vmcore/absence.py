# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Absent Memory
-------------

Finds the pages of the kernel's virtual memory that cannot be read from a core dump, without
reading them.
"""

from __future__ import annotations

import numpy as np
from drgn import FaultError, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.vmcore.left_out import (
    LEFT_OUT,
    absent_frames,
    leaves_something_out,
    next_segment_page,
    segment_pages,
    tells_what_is_absent,
)
from drgn_zonedev.vmcore.pagetables import (
    UNKNOWN,
    UNMAPPED,
    next_mapped,
    page_frames,
    walks_in_bulk,
)

__all__ = ("absent_pages", "next_present_page", "refuse_what_is_left_out")

# Translate this many pages at once, and keep the result: neighbours are asked for next.
# 128 MiB of struct pages are 8 GiB of memory.
_WINDOW_ORDER = 15
_MAX_WINDOWS = 64


@takes_program_or_default
def absent_pages(prog: Program, first: int, end: int) -> np.ndarray:
    """
    Return which pages of virtual memory certainly cannot be read from a core dump: they are not
    mapped, or the dump does not have the memory that they are mapped to, or the page tables.

    :param first: Virtual page number: the address divided by the page size.
    :param end: One more than the last.
    :return: Column of ``bool``; all false if the dump does not say, or if the program is
        not a dump.
    """
    if not tells_what_is_absent(prog):
        return np.zeros(end - first, bool)
    if not walks_in_bulk(prog):
        # Translating page by page is as slow as reading, but zeros do not fault.
        return _look_up(prog, first, end) if leaves_something_out(prog) else _none(first, end)
    parts = []
    for number in range(first >> _WINDOW_ORDER, (end - 1 >> _WINDOW_ORDER) + 1):
        start = number << _WINDOW_ORDER
        parts.append(_window(prog, number)[max(first - start, 0) : end - start])
    return np.concatenate([_none(0, 0), *parts])


@takes_program_or_default
def next_present_page(prog: Program, first: int, end: int) -> int:
    """
    Find the first page that may be readable. The time does not depend on the number of
    pages that are not mapped. Unless the program is a core dump, only page tables decide.

    :param first: Virtual page number.
    :param end: One more than the last.
    :return: Virtual page number; *end* if there is none.
    """
    if not walks_in_bulk(prog):
        return first
    if not tells_what_is_absent(prog):
        return _next_mapped(prog, first, end)
    page = first
    while page < end:
        # A damaged structure can claim the whole address space.
        page = min(next_segment_page(prog, page, end), _next_mapped(prog, page, end))
        if page == end:
            break
        stop = min((page >> _WINDOW_ORDER) + 1 << _WINDOW_ORDER, end)
        absent = absent_pages(prog, page, stop)
        if not absent.all():
            return page + int(absent.argmin())
        page = stop
    return end


def _next_mapped(prog: Program, first: int, end: int) -> int:
    try:
        return next_mapped(prog, first, end)
    except FaultError:
        # /proc/kcore needs no page tables of ours.
        return end if tells_what_is_absent(prog) else first
    except (LookupError, ValueError):
        return first


def refuse_what_is_left_out(prog: Program, address: int, raw: bytes, physical: bool) -> None:
    """
    Refuse zeros that were read from an ELF dump and are not in it.

    :raises FaultError: with the first address that the dump does not have
    """
    page_size = prog["PAGE_SIZE"].value_()
    blank = _blank_pages(address, raw, page_size)
    if not len(blank):
        return
    first, end = int(blank[0]), int(blank[-1]) + 1
    absent = (
        absent_frames(prog, blank) if physical else absent_pages(prog, first, end)[blank - first]
    )
    if absent.any():
        where = max(address, int(blank[absent.argmax()]) * page_size)
        raise FaultError(LEFT_OUT, where)


def _blank_pages(address: int, raw: bytes, page_size: int) -> np.ndarray:
    # The pages of which only zeros were read.
    first, skip = divmod(address, page_size)
    if len(raw) <= page_size - skip:
        return np.array([first] if raw and raw.count(0) == len(raw) else [], np.int64)
    head = -skip % page_size
    body = (len(raw) - head) // page_size * page_size
    whole = np.frombuffer(raw[head : head + body], "<u8").reshape(-1, page_size // 8)
    rows = np.flatnonzero(whole[:, 0] == 0)
    blank = (rows[~whole[rows].any(axis=1)] + (address + head) // page_size).tolist()
    if head and raw.count(0, 0, head) == head:
        blank.insert(0, first)
    rest = len(raw) - head - body
    if rest and raw.count(0, head + body) == rest:
        blank.append((address + len(raw) - 1) // page_size)
    return np.array(blank, np.int64)


def _window(prog: Program, number: int) -> np.ndarray:
    windows: dict[int, np.ndarray] = prog.cache.setdefault("zonedev_absent_pages", {})
    if number not in windows:
        if len(windows) == _MAX_WINDOWS:
            windows.pop(next(iter(windows)))
        start = number << _WINDOW_ORDER
        windows[number] = _look_up(prog, start, start + (1 << _WINDOW_ORDER))
    return windows[number]


def _look_up(prog: Program, first: int, end: int) -> np.ndarray:
    filled, empty = segment_pages(prog, first, end)
    frames = page_frames(prog, first, end)
    if frames is None:
        return empty
    # A read goes through the same page tables.
    absent = (frames == UNMAPPED) | (frames == UNKNOWN)
    mapped = np.flatnonzero(frames >= 0)
    absent[mapped] = absent_frames(prog, frames[mapped])
    return (absent | empty) & ~filled


def _none(first: int, end: int) -> np.ndarray:
    return np.zeros(end - first, bool)
