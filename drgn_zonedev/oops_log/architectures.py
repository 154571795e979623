# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Architectures of Logs
---------------------

Describes how to read the logs of each architecture: how an oops looks, where vmemmap can be, and
which values poisoned pointers have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ("ARCHITECTURES", "LogArchitecture", "VmemmapArea", "architecture_of_lines")

_GIB, _TIB = 1 << 30, 1 << 40


@dataclass(frozen=True)
class VmemmapArea:
    """Address of the struct pages of PFNs ``[0, pfns)``, unless KASLR moves them."""

    base: int
    pfns: int


@dataclass(frozen=True)
class LogArchitecture:
    """
    An architecture as its logs show it.

    ``areas`` is where vmemmap can be by default. ``movable`` says that KASLR can move it.
    ``most_pfns`` bounds the PFNs after a base that the log gives. ``illegal_pointer`` is
    CONFIG_ILLEGAL_POINTER_VALUE, to which list and tail poison add an offset. Bases are multiples
    of ``alignment``.
    """

    name: str
    signs: re.Pattern[str]
    areas: tuple[VmemmapArea, ...]
    movable: bool
    most_pfns: int
    illegal_pointer: int
    alignment: int
    page_size: int | None
    big_endian: bool = False


ARCHITECTURES = {
    a.name: a
    for a in (
        LogArchitecture(
            "x86-64",
            re.compile(
                r"\bR[ABCD]X: [0-9a-f]{16}\b|\bR(?:SP|IP): (?:[0-9a-f]{4}:|\[)"
                r"|\bCR2: [0-9a-f]{16}\b|\bx86_64\b|PGD [0-9a-f]{1,16} P4D|\bEFLAGS: "
            ),
            # __VMEMMAP_BASE_L4 and __VMEMMAP_BASE_L5; a physical address has 46 or 52 bits.
            # kernel_randomize_memory() moves it in steps of a PUD.
            (VmemmapArea(0xFFFFEA0000000000, 1 << 34), VmemmapArea(0xFFD4000000000000, 1 << 40)),
            movable=True,
            most_pfns=1 << 34,
            illegal_pointer=0xDEAD000000000000,
            alignment=_GIB,
            page_size=4096,
        ),
        LogArchitecture(
            "arm64",
            re.compile(
                r"\bpstate: ?[0-9a-f]{8}\b|\bESR = 0x|\bx(?:29|27|0|1)\s?: [0-9a-f]{16}\b"
                r"|\bpgtable: \d+k pages, \d+-bit VAs|\baarch64\b|\bPHYS_OFFSET: 0x"
            ),
            # VMEMMAP_START is in arm64_vmemmap_start(): it depends on the release, on
            # VA_BITS, and on where RAM begins.
            (),
            movable=True,
            most_pfns=1 << 35,
            illegal_pointer=0xDEAD000000000000,
            alignment=1 << 19,
            page_size=None,
        ),
        LogArchitecture(
            "ppc64",
            re.compile(
                r"\bGPR\d\d: [0-9a-f]{16}\b|\bNIP:? |\bDAR: [0-9a-f]{16}|\bMMU=(?:Radix|Hash)"
                r"|\bppc64(?:le)?\b|kernel data access on (?:read|write)"
                r"|\[c000[0-9a-f]{12}\] \[c0[0-9a-f]{14}\]"
            ),
            # RADIX_VMEMMAP_START, which is also that of the hash MMU with 64K pages since v5.2,
            # when all regions became 0xc00x. Nothing randomises it.
            (VmemmapArea(0xC00C000000000000, 1 << 40),),
            movable=False,
            most_pfns=1 << 40,
            illegal_pointer=0x5DEADBEEF0000000,
            alignment=1 << 24,
            page_size=None,
        ),
        LogArchitecture(
            "s390x",
            re.compile(
                r"\bKrnl (?:PSW|GPRS|Code) ?:|\bFailing address: [0-9a-f]|\bs390x\b|\bTEID:"
            ),
            # setup_kernel_memory_layout() places it according to the size of memory.
            (),
            movable=True,
            most_pfns=1 << 28,
            illegal_pointer=0xDEAD000000000000,
            alignment=1 << 20,
            page_size=4096,
            big_endian=True,
        ),
        LogArchitecture(
            "riscv64",
            re.compile(r"\bepc : [0-9a-f_a-zA-Z]|\bbadaddr: [0-9a-f]{16}\b|\briscv(?:64)?\b"),
            # VMEMMAP_START of Sv39, Sv48 and Sv57 less where RAM begins, which the log
            # does not say.
            (),
            movable=True,
            most_pfns=1 << 36,
            illegal_pointer=0xDEAD000000000000,
            alignment=1 << 15,
            page_size=4096,
        ),
    )
}


# One architecture is certain if it matches this many more lines than any other. Matching takes most
# of the time for a log with an oops in each megabyte.
_ENOUGH = 16


def architecture_of_lines(texts: Iterable[str]) -> LogArchitecture | None:
    """Get the architecture that matches most lines, if any."""
    counts = dict.fromkeys(ARCHITECTURES, 0)
    for text in texts:
        for name, architecture in ARCHITECTURES.items():
            if architecture.signs.search(text):
                counts[name] += 1
        second, most = sorted(counts.values())[-2:]
        if most - second >= _ENOUGH:
            break
    name = max(counts, key=lambda n: counts[n])
    return ARCHITECTURES[name] if counts[name] else None
