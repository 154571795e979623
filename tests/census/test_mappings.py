# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which mappings are those of shmem: what a_ops says, or nothing where it cannot be read."""

from __future__ import annotations

import dataclasses

import numpy as np
from support.fakekernel import FakeKernel

from drgn_zonedev.census.kinds import kind_words
from drgn_zonedev.census.mappings import OTHER, SHMEM, UNKNOWN, KnownMappings

A_OPS, AOPS_OF_SHMEM = 0x70, 0xFFFFFFFF82000000


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(8)
    return kernel


def answers(mappings: KnownMappings, asked: np.ndarray) -> list[int]:
    found: list[int] = np.repeat(*mappings.ask(asked)).tolist()
    return found


def test_mappings_are_told_by_their_operations_however_often_they_come() -> None:
    kernel = machine("6.1")
    addresses = [kernel.allocate(0x100) for _ in range(3)]
    kernel.poke(addresses[1] + A_OPS, AOPS_OF_SHMEM.to_bytes(8, "little"))
    prog = kernel.program()
    words = dataclasses.replace(kind_words(prog), a_ops=A_OPS, shmem=AOPS_OF_SHMEM)
    mappings = KnownMappings(prog, words)
    unmapped = 0xFFFF9F0000000000
    asked = np.array([*addresses, unmapped, *addresses[:2], addresses[1]], np.uint64)
    wanted = [OTHER, SHMEM, OTHER, UNKNOWN, OTHER, SHMEM, SHMEM]
    for _ in range(2):
        assert answers(mappings, asked) == wanted
    assert answers(mappings, asked[:0]) == []


def test_nothing_is_known_without_symbols() -> None:
    prog = machine("6.1").program()
    words = dataclasses.replace(kind_words(prog), a_ops=None)
    asked = np.array([0xFFFF888000000000], np.uint64)
    assert answers(KnownMappings(prog, words), asked) == [UNKNOWN]
