# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Rule
----

What a promise about one word of a ``struct page`` is made of.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.promises import Area, Place, Promise

__all__ = (
    "Bits",
    "Commit",
    "Comparison",
    "Computed",
    "Condition",
    "ExpectedValue",
    "Role",
    "Rule",
    "Varies",
    "Word",
)


@dataclass(frozen=True)
class Bits:
    """``mask`` of the little-endian integer of ``size`` bytes at ``offset`` of struct page."""

    offset: int
    size: int
    mask: int

    @property
    def shift(self) -> int:
        """Of the lowest bit."""
        return max((self.mask & -self.mask).bit_length() - 1, 0)

    def column(self, words: np.ndarray) -> np.ndarray:
        """The whole integer, of each page of an array of words."""
        return words.view(f"<u{self.size}")[..., self.offset // self.size]

    def in_word(self, integer: int) -> int:
        """The integer as a part of the 64-bit word that it lies in."""
        return integer << self.offset % 8 * 8

    def within(self, other: Bits) -> bool:
        """Return whether all of them are others as well."""
        outside = self.in_word(self.mask) & ~other.in_word(other.mask)
        return self.offset // 8 == other.offset // 8 and not outside


def _all_ones(layout: PageLayout, promise: Promise) -> int:
    return (1 << 64) - 1


@dataclass(frozen=True)
class Word:
    """
    A word of struct page, or some bits of it.

    ``name`` is what evidence calls it, ``title`` what the documentation does, and
    ``offset`` is ``None`` where the kernel's layout is not known. A ``flag`` is shown
    together with the rest of its word.
    """

    name: str
    offset: Callable[[PageLayout, Promise], int | None]
    size: int = 8
    mask: Callable[[PageLayout, Promise], int] = _all_ones
    flag: bool = False
    title: str = ""

    def bits(self, layout: PageLayout, promise: Promise) -> Bits:
        """Where it is in the struct pages of a promise, in a kernel that has it."""
        offset = self.offset(layout, promise)
        assert offset is not None
        return Bits(offset, self.size, self.mask(layout, promise) & (1 << 8 * self.size) - 1)


class Comparison(enum.Enum):
    """How a word is compared with its value; the text is for people."""

    EQUAL = "is {}"
    ONE_OF = "is one of {}"
    OTHER = "is not {}"
    AT_LEAST = "is {} or more"
    COUNT_OR_TYPE = "is {} or more, or a page type"
    COUNT_OR_KNOWN_TYPE = "is {} or more, or a page type that the kernel has"
    EQUAL_OR_ZERO = "is {}, or 0 while it is made or freed"
    LEADS_TO = "leads to {}"
    EQUAL_OR_FOLIO = "is {}, or links to a head in the range that has it"


class Varies(enum.Enum):
    """From where to where a value changes."""

    BY_RANGE = enum.auto()
    BY_COMPOUND_PAGE = enum.auto()
    BY_PAGE = enum.auto()


ExpectedValue = Union[int, tuple[int, ...], np.ndarray]
"""One number for all pages, those that are as good as each other, or one of each page."""


@dataclass(frozen=True)
class Computed:
    """A value that depends on the kernel, or on where a page is."""

    name: str
    of: Callable[[Place], ExpectedValue]
    varies: Varies = Varies.BY_RANGE


Value = Union[int, Computed]


@dataclass(frozen=True)
class Condition:
    """Whether a rule holds for a kernel and a promise, by presence of what brought it."""

    text: str
    holds: Callable[[PageLayout, Promise], bool]


@dataclass(frozen=True)
class Commit:
    """A Linux kernel commit, and the first release that has it."""

    hash: str
    title: str
    release: str


class Role(enum.Enum):
    """
    What a broken rule says of the page's other words.

    A page that breaks a rule of ``ORIGIN`` and one of ``LINK`` was never written. A page
    that breaks one of them breaks that rule only: where a page does not belong here,
    its other words mean nothing.
    """

    ORIGIN = enum.auto()
    LINK = enum.auto()
    CONTENT = enum.auto()


# One is the same as another only if it is that very line of the table.
@dataclass(frozen=True, eq=False)
class Rule:
    """
    A promise about one word.

    ``promised`` says it for one page, with its ``value`` and the PFN of its ``head``.
    ``function`` writes the word; since ``commit`` the kernel keeps the promise.
    """

    finding: str
    areas: tuple[Area, ...]
    word: Word
    value: Value
    promised: str
    function: str
    commit: Commit
    comparison: Comparison = Comparison.EQUAL
    condition: Condition | None = None
    role: Role = Role.CONTENT

    @property
    def varies(self) -> Varies:
        """From where to where its value changes."""
        return self.value.varies if isinstance(self.value, Computed) else Varies.BY_RANGE

    def expected(self, place: Place) -> ExpectedValue:
        """The value, for each page where it varies."""
        return self.value.of(place) if isinstance(self.value, Computed) else self.value
