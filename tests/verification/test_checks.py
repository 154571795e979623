# SPDX-License-Identifier: LGPL-2.1-or-later

"""Rules put together word by word: what passes keeps each of them."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import busy_ram

from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.verification.checks import checks_of
from drgn_zonedev.verification.columns import Buffers, Columns
from drgn_zonedev.verification.promises import Area, RamPages
from drgn_zonedev.verification.ram_groups import Kept
from drgn_zonedev.verification.ram_zones import ram_promises
from drgn_zonedev.verification.rule import Commit, Comparison, Computed, Rule, Varies, Word

COMMIT = Commit("0" * 12, "mm: none", "v0")


@pytest.fixture(scope="module")
def ram() -> tuple[PageLayout, RamPages]:
    prog = busy_ram("6.1").program()
    return page_layout(prog), next(ram_promises(prog, zones(prog), 0x40000, 0x48000))


def rule(
    offset: int, mask: int, value: object, comparison: Comparison = Comparison.EQUAL, size: int = 8
) -> Rule:
    word = Word("word", lambda *_: offset, size, lambda *_: mask)
    of = value if isinstance(value, int) else Computed("values", lambda _: value)  # type: ignore[arg-type,return-value]
    return Rule("slug", (Area.RAM,), word, of, "", "", COMMIT, comparison)


def passing(ram: tuple[PageLayout, RamPages], rules: list[Rule], word: list[int]) -> list[int]:
    """Which values of the first word pass, of pages whose other words are 0."""
    words = np.zeros((len(word), 8), np.uint64)
    words[:, 0] = word
    kept = Kept(*ram, rules, checks_of(*ram, rules))
    columns = Columns(words, Buffers())
    passed = np.flatnonzero(kept.passes(columns))
    # The same, page by page.
    assert not set(kept.broken(columns).tolist()) & set(passed.tolist())
    assert kept.passes(columns.at(passed)).all()
    return [word[row] for row in passed.tolist()]


EVERY = list(range(16))
ONE_OF, OTHER, EQUAL = Comparison.ONE_OF, Comparison.OTHER, Comparison.EQUAL


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule(0, 3, 2)], [2, 6, 10, 14]),
        ([rule(0, 3, 2), rule(0, 4, 1)], [6, 14]),
        # A part of what another one is about, which agrees or does not.
        ([rule(0, 3, 2), rule(0, 7, 6)], [6, 14]),
        ([rule(0, 3, 2), rule(0, 7, 5)], []),
        ([rule(0, 6, 1), rule(0, 3, 2)], [2, 10]),
        ([rule(0, 6, 1), rule(0, 3, 1)], []),
        # The first of several values.
        ([rule(0, 15, (5, 7), ONE_OF)], [5]),
        ([rule(0, 15, (5, 7), ONE_OF), rule(0, 3, (0, 1), ONE_OF)], [5]),
        ([rule(0, 15, (5, 7), ONE_OF), rule(0, 3, (0, 3), ONE_OF)], []),
        ([rule(0, 15, (), ONE_OF)], []),
        # All but one, by itself and as a part.
        ([rule(0, 3, 2, OTHER)], [v for v in EVERY if v % 4 != 2]),
        ([rule(0, 15, (5, 7), ONE_OF), rule(0, 3, 1, OTHER)], []),
        ([rule(0, 15, (5, 7), ONE_OF), rule(0, 3, 2, OTHER)], [5]),
        # What does not fit in the bits is never there.
        ([rule(0, 3, 4)], []),
        ([rule(0, 3, 4, OTHER)], EVERY),
        # Bits that a kernel does not have.
        ([rule(0, 0, 0)], EVERY),
    ],
)
def test_rules_about_bits(
    ram: tuple[PageLayout, RamPages], rules: list[Rule], expected: list[int]
) -> None:
    assert passing(ram, rules, EVERY) == expected
    assert passing(ram, rules[::-1], EVERY) == expected


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("least", [-1, 0, 1])
def test_halves_are_signed(ram: tuple[PageLayout, RamPages], half: int, least: int) -> None:
    values = [-(1 << 31), -2, -1, 0, 1, (1 << 31) - 1]
    words = [value % (1 << 32) << 32 * half for value in values]
    rules = [rule(4 * half, (1 << 32) - 1, least, Comparison.AT_LEAST, 4)]
    expected = [word for word, value in zip(words, values) if value >= least]
    assert passing(ram, rules, words) == expected


def test_nothing_passes_what_differs_from_page_to_page(ram: tuple[PageLayout, RamPages]) -> None:
    placed = Computed("place", lambda place: place.pfn, Varies.BY_PAGE)
    word = Word("word", lambda *_: 0)
    rules = [Rule("slug", (Area.RAM,), word, placed, "", "", COMMIT)]
    assert passing(ram, rules, EVERY) == []
    assert not checks_of(*ram, rules).alike


def test_pages_without_some_bits(ram: tuple[PageLayout, RamPages]) -> None:
    checks = checks_of(*ram, [rule(0, 1, 1)])
    assert checks.without(0, 2).masked == {0: (3, 1)}
    assert not checks.without(0, 1).satisfiable
    assert checks_of(*ram, [rule(0, 1, 0)]).without(0, 3).pass_zeros
    assert not checks.without(0, 2).pass_zeros
