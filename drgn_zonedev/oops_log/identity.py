# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Kernel That Printed a Log
-----------------------------

Finds what a log says about its kernel: enough to know its layout, and whether a dump is of
the same kernel.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from drgn_zonedev.oops_log.lines import LogLine

__all__ = ("LogKernel", "boots", "kernel_of_lines")


@dataclass(frozen=True)
class LogKernel:
    """
    A kernel, as far as a log identifies it; ``None`` for what the log does not say.

    ``kaslr_offset`` is 0 if the log says that there is none. ``kasan`` is true if an oops
    lists KASAN. ``ram_start`` is the first byte of RAM.
    """

    release: str | None = None
    build_id: str | None = None
    kaslr_offset: int | None = None
    kaslr_disabled: bool = False
    kasan: bool = False
    page_size: int | None = None
    va_bits: int | None = None
    phys_offset: int | None = None
    ram_start: int | None = None


_BANNER = re.compile(r"\bLinux version (\d{1,3}\.\d{1,4}[\w.+~-]{0,80})")
_CPU = re.compile(
    r"\bCPU: {0,2}\d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: .{1,80}?"
    r"(?:Not tainted|Tainted: [A-Z ,()_=\[\]-]{1,200}?) {1,4}"
    r"(\d{1,3}\.\d{1,4}[\w.+~-]{0,80}) #\S{1,20}(?: [\w ]{0,80}?([0-9a-f]{40})\b)?"
)
# arm64 and s390x of long ago, and ppc64, whose registers name the release.
_REGS = re.compile(
    r"\b(?:Not tainted|Tainted: [A-Z ]{1,40}?) {1,4}\(?(\d{1,3}\.\d{1,4}\.[\w.+~-]{1,80})[ )]"
)
_OFFSET = re.compile(r"\bKernel Offset: (?:0x([0-9a-f]{1,16})|(disabled))")
_NO_KASLR = re.compile(r"ommand line: .{0,2000}\bnokaslr\b|KASLR disabled")
_OOPS_KASAN = re.compile(r"#\d{1,4}\][A-Z_ ]{0,60}\bKASAN\b|\bBUG: KASAN: ")
_VA_BITS = re.compile(r"pgtable: (4|16|64)k pages, (3[69]|4[278]|52)-bit VAs")
_PAGE_SIZE = re.compile(r"\bPAGE_SIZE=(4|16|64)K\b")
_PHYS_OFFSET = re.compile(r"\bPHYS_OFFSET: 0x([0-9a-f]{1,16})\b")
_NODE = re.compile(r"\bnode +\d{1,4}: \[mem 0x([0-9a-f]{1,16})-0x")


# What can be the first line of an oops, whose release comes below.
_FIRST = re.compile(
    r"\bBUG\b|nable to handle|\bOops\b|general protection|\bpage: ?\S|list_(?:add|del) corruption"
    r"|\bWARNING\b|soft lockup|Corrupted page table"
)


def boots(lines: Iterable[LogLine]) -> list[list[LogLine]]:
    """Divide lines where a kernel begins to print, and where another one has an oops."""
    found: list[list[LogLine]] = [[]]
    release: str | None = None
    first: int | None = None
    for line in lines:
        banner = "Linux version " in line.text and bool(_BANNER.search(line.text))
        if banner and found[-1]:
            found.append([])
            release = first = None
        said = _release(line.text)
        if said is not None and release not in (None, said):
            start = len(found[-1]) if first is None else first
            found.append(found[-1][start:])
            del found[-2][start:]
        if said is not None:
            release, first = said, None
        elif first is None and "panic" not in line.text and _FIRST.search(line.text):
            first = len(found[-1])
        found[-1].append(line)
    return [part for part in found if part] or [[]]


def _release(text: str) -> str | None:
    if "ainted" not in text and "Linux version " not in text:
        return None
    patterns = (_BANNER, _CPU, _REGS)
    match = next((m for m in (p.search(text) for p in patterns) if m is not None), None)
    return match[1] if match else None


def kernel_of_lines(lines: Iterable[LogLine]) -> LogKernel:
    """Get what the lines of one boot say about their kernel; the first mention counts."""
    kernel = LogKernel()
    for line in lines:
        changes: dict[str, Any] = {
            name: value
            for name, value in _said(line.text)
            if value is not None and getattr(kernel, name) in (None, False)
        }
        if changes:
            kernel = dataclasses.replace(kernel, **changes)
    return kernel


def _said(text: str) -> list[tuple[str, object]]:
    said: list[tuple[str, object]] = []
    if "ainted" in text or "Linux version" in text:
        for pattern in (_BANNER, _CPU, _REGS):
            if (release := pattern.search(text)) is not None:
                said.append(("release", release[1]))
                if pattern is _CPU:
                    said.append(("build_id", release[2]))
                break
    if "ernel Offset" in text and (offset := _OFFSET.search(text)) is not None:
        said.append(("kaslr_offset", int(offset[1], 16) if offset[1] else 0))
        said.append(("kaslr_disabled", bool(offset[2])))
    if "kaslr" in text or "KASLR" in text:
        said.append(("kaslr_disabled", bool(_NO_KASLR.search(text))))
    if "KASAN" in text:
        said.append(("kasan", bool(_OOPS_KASAN.search(text))))
    if "VAs" in text and (bits := _VA_BITS.search(text)) is not None:
        said += [("page_size", int(bits[1]) << 10), ("va_bits", int(bits[2]))]
    if "PAGE_SIZE=" in text and (size := _PAGE_SIZE.search(text)) is not None:
        said.append(("page_size", int(size[1]) << 10))
    if "PHYS_OFFSET" in text and (phys := _PHYS_OFFSET.search(text)) is not None:
        said.append(("phys_offset", int(phys[1], 16)))
    if "[mem 0x" in text and (ram := _NODE.search(text)) is not None:
        said.append(("ram_start", int(ram[1], 16)))
    return said
