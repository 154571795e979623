# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Machines that nobody here has: tens of TiB, most of it device memory.

A quarter is RAM with memory blocks of 2 GiB, as x86 has them from 64 GiB on; the
rest is divided among pgmaps of all kinds. Everything that is a structure of the
kernel is really there, in the layout of Linux 6.1; struct pages are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from support.fakekernel import Altmap, FakeKernel

__all__ = ("SECTIONS_PER_TIB", "large_machine")

SECTIONS_PER_TIB = 1 << 13
_PGMAPS_PER_TIB = 32
_PAGES = 1 << 15
_SECTIONS_PER_ROOT = 256
_SECTIONS_PER_BLOCK = 16
_USAGE_SIZE = 64

_PRESENT, _MEM_MAP, _ONLINE, _EARLY, _TAINT = 1, 2, 4, 8, 16
_FULL = (1 << 64) - 1


def large_machine(tebibytes: int) -> FakeKernel:
    """
    Build a machine.

    :param tebibytes: Up to 64, which is 524288 sections and 2048 pgmaps.
    """
    kernel = FakeKernel("6.1")
    count = tebibytes * SECTIONS_PER_TIB
    ram = count // 4
    word = np.full(count, kernel.vmemmap | _PRESENT | _MEM_MAP, np.uint64)
    bitmap = np.full(count, _FULL, np.uint64)
    word[:ram] |= np.uint64(_ONLINE | _EARLY)
    _offline_ram(kernel, word, ram)
    per_pgmap = (count - ram) // (tebibytes * _PGMAPS_PER_TIB)
    for i in range(tebibytes * _PGMAPS_PER_TIB):
        _device(kernel, i, ram + i * per_pgmap, per_pgmap, word, bitmap)
    _write_sections(kernel, word, bitmap)
    return kernel


def _offline_ram(kernel: FakeKernel, word: np.ndarray, ram: int) -> None:
    # Every 64th block of 2 GiB was plugged in and left offline.
    kernel.set_variable("sections_per_block", _SECTIONS_PER_BLOCK)
    for block in range(ram // _SECTIONS_PER_BLOCK):
        offline = block % 64 == 63
        kernel.memory_block(block, "MEM_OFFLINE" if offline else "MEM_ONLINE")
        if offline:
            first = block * _SECTIONS_PER_BLOCK
            word[first : first + _SECTIONS_PER_BLOCK] &= ~np.uint64(_ONLINE | _EARLY)


def _device(
    kernel: FakeKernel, i: int, first: int, count: int, word: np.ndarray, bitmap: np.ndarray
) -> None:
    # In turns: fsdax with its memmap on the device, devdax with 2 MiB and with
    # 1 GiB pages, and one that ends in mid-section.
    start, end = first * _PAGES, (first + count) * _PAGES
    kind = i % 4
    if kind == 0:
        head = 2 + (end - start) // 64
        altmap = Altmap(start, end - 1, reserve=2, free=head + -(2 + head) % 512, align=0)
        kernel.pgmap((start, end), altmap=altmap, ops="fsdax_pagemap_ops")
        return
    if kind == 3:
        # 16 MiB are missing at the end, and nobody else has them.
        end -= 0x1000
        bitmap[first + count - 1] = _FULL >> 8
        word[first + count - 1] |= np.uint64(_TAINT)
    shift = 18 if kind == 2 else 9
    kernel.pgmap((start, end), type="MEMORY_DEVICE_GENERIC", vmemmap_shift=shift)


def _write_sections(kernel: FakeKernel, word: np.ndarray, bitmap: np.ndarray) -> None:
    usages = kernel.allocate(_USAGE_SIZE * len(word))
    offset = kernel.layout.structs["mem_section_usage"].members["subsection_map"].offset
    content = np.zeros((len(word), _USAGE_SIZE // 8), np.uint64)
    content[:, offset // 8] = bitmap
    kernel.poke(usages, content.tobytes())
    rows = np.empty((len(word), 2), np.uint64)
    rows[:, 0] = word
    rows[:, 1] = np.uint64(usages) + np.arange(len(word), dtype=np.uint64) * np.uint64(_USAGE_SIZE)
    for first, root in _roots(kernel, len(word)):
        kernel.poke(root, rows[first : first + _SECTIONS_PER_ROOT].tobytes())


def _roots(kernel: FakeKernel, count: int) -> Iterator[tuple[int, int]]:
    # section() makes a root on first use.
    for first in range(0, count, _SECTIONS_PER_ROOT):
        yield first, kernel.section(first, usage=False)
    kernel.set_variable("__highest_present_section_nr", count - 1)
