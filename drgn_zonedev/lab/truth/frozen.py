# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Read what the guest's kernel said of every struct page when its machine was stopped.

The answers lie in the same memory as the struct pages: ``struct frozen`` of ``zonedev_truth.c``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from drgn import Program

__all__ = ("IRREGULAR", "Frozen", "Is", "Use", "read_frozen")

IRREGULAR = -2
"""The order of a page whose head is not the PFN rounded down to the order of the head."""


class Is(enum.IntFlag):
    """
    Answers of yes or no; page types and mappings are those of the head, and all others of the page
    itself.
    """

    ONLINE = 1 << 0
    TAIL = 1 << 1
    RESERVED = 1 << 2
    HWPOISON = 1 << 3
    SELF_HOSTED = 1 << 4
    BUDDY = 1 << 5
    OFFLINE = 1 << 6
    TABLE = 1 << 7
    GUARD = 1 << 8
    SLAB = 1 << 9
    HUGETLB = 1 << 10
    ZSMALLOC = 1 << 11
    UNACCEPTED = 1 << 12
    LARGE_KMALLOC = 1 << 13
    MEMMAP = 1 << 14
    PCP = 1 << 15
    FILE = 1 << 16
    SHMEM = 1 << 17
    KSM = 1 << 18
    HUGE_ZERO = 1 << 19


class Use(enum.IntFlag):
    """What ``stable_page_flags()`` said: the bits of ``include/uapi/linux/kernel-page-flags.h``."""

    BUDDY = 1 << 10
    ANON = 1 << 12
    SWAPCACHE = 1 << 13
    THP = 1 << 22
    ZERO_PAGE = 1 << 24


_RUN = np.dtype(
    [
        ("start_pfn", "<u8"),
        ("end_pfn", "<u8"),
        ("zone", "<i2"),
        ("nid", "<i2"),
        ("order", "<i2"),
        ("buddy_order", "<i2"),
        ("answers", "<u4"),
        ("uses", "<u4"),
    ]
)
_ZONE_COUNTERS = ("nid", "number", "start_pfn", "spanned", "present", "managed")
_ZONE = np.dtype([*((name, "<u8") for name in _ZONE_COUNTERS), ("nr_free", "<u8", 16)])
_NODE = np.dtype([(name, "<u8") for name in ("nid", "start_pfn", "spanned", "present")])


@dataclass(frozen=True)
class Frozen:
    """The kernel's answers, a row per run of PFNs, per zone, and per node (structured arrays)."""

    runs: np.ndarray
    """Of all online PFNs and device pages."""
    zones: np.ndarray
    """Of all online nodes, empty ones too."""
    nodes: np.ndarray

    @property
    def pfn(self) -> np.ndarray:
        """The PFNs that the kernel answered for."""
        lengths = self._lengths
        ends = np.cumsum(lengths)
        first = np.repeat(self.runs["start_pfn"].astype(np.int64) - (ends - lengths), lengths)
        return first + np.arange(ends[-1] if len(ends) else 0)

    @property
    def _lengths(self) -> np.ndarray:
        return (self.runs["end_pfn"] - self.runs["start_pfn"]).astype(np.int64)

    def column(self, name: str) -> np.ndarray:
        """A member of the runs, an element per PFN."""
        return self.spread(self.runs[name])

    def spread(self, column: np.ndarray) -> np.ndarray:
        """An element per PFN, of a column with one per run."""
        return np.repeat(column, self._lengths)

    def yes(self, answer: Is) -> np.ndarray:
        """An answer, per PFN."""
        return (self.column("answers") & np.uint32(answer)) != 0


def read_frozen(prog: Program, facts: Mapping[str, int]) -> Frozen | None:
    """
    Read the answers from the memory of a guest that was booted with ``truth=True``.

    :return: None if it was not stopped
    """
    if "frozen" not in facts:
        return None
    header = np.frombuffer(prog.read(facts["frozen"], 6 * 8), "<u8").tolist()
    nodes, zones, runs = (
        np.frombuffer(prog.read(address, count * dtype.itemsize), dtype)
        for count, address, dtype in zip(header[:3], header[3:], (_NODE, _ZONE, _RUN))
    )
    return Frozen(runs, zones, nodes)
