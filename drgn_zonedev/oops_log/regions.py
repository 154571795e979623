# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Regions of a Log
----------------

Finds the parts of a log that can be about an oops. Registers, faults and ``raw:`` words all
have 16 hexadecimal digits in a row. Searching 100 MB for those takes a fraction of a second,
and only the lines around them are parsed one by one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Union

__all__ = ("Data", "NumberedLines", "regions")

Data = Union[bytes, mmap.mmap]
NumberedLines = list[tuple[int, bytes]]

# Bytes around a run of digits: the trace of an arm64 oops, and the panic below it, have none.
_BEFORE, _AFTER = 4096, 12288

# What stays in a processor's cache while it is translated and searched.
_BLOCK = 1 << 18

# A byte that no text has stands for a digit.
_DIGITS = bytes.maketrans(b"0123456789abcdefABCDEF", b"\xff" * 22)
_ADDRESS = b"\xff" * 16

# The banner tells boots apart, and the command line follows it.
_BANNER = b"Linux version "


def regions(data: Data) -> Iterator[NumberedLines]:
    """
    Divide a log into the parts that can be about an oops.

    :return: For each part its lines, each with its number, from 1.
    """
    number, counted = 1, 0
    for start, end in _merged(data):
        number += _count_lines(data, counted, start)
        lines = data[start:end].split(b"\n")
        if not lines[-1]:
            lines.pop()
        yield [(number + i, line.rstrip(b"\r")) for i, line in enumerate(lines)]
        number, counted = number + len(lines), end


def _merged(data: Data) -> Iterator[tuple[int, int]]:
    start = end = done = -1
    for hit in _hits(data):
        if start < 0 or hit - _BEFORE > end:
            if start >= 0:
                done = _line_end(data, end)
                yield start, done
            start = max(_line_start(data, hit - _BEFORE), done)
        end = hit + _AFTER
    if start >= 0:
        yield start, _line_end(data, end)


def _hits(data: Data) -> Iterator[int]:
    # Blocks end with a line, so that no run is cut.
    position = 0
    while position < len(data):
        end = _line_end(data, position + _BLOCK)
        block = data[position:end]
        runs = _found(block.translate(_DIGITS), _ADDRESS)
        yield from (position + at for at in sorted([*runs, *_found(block, _BANNER)]))
        position = end


def _found(block: bytes, word: bytes) -> Iterator[int]:
    at = block.find(word)
    while at >= 0:
        yield at
        # What is near is in the same part.
        at = block.find(word, at + _BEFORE)


def _line_start(data: Data, position: int) -> int:
    return data.rfind(b"\n", 0, position) + 1 if position > 0 else 0


def _line_end(data: Data, position: int) -> int:
    if position >= len(data):
        return len(data)
    border = data.find(b"\n", position)
    return len(data) if border < 0 else border + 1


def _count_lines(data: Data, start: int, end: int) -> int:
    return sum(data[at : min(at + _BLOCK, end)].count(b"\n") for at in range(start, end, _BLOCK))
