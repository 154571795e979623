# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Queries
-------

Which pages are asked for: PFNs, and what they must be.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drgn_zonedev.census.kinds import PageKind

__all__ = ("CountTest", "PageQuery", "parse_count_test")

_TEST = re.compile(r"\s*(>=|<=|==|!=|=|>|<)?\s*(0x[0-9a-fA-F]+|-?(?:0+|[1-9]\d*))\s*")
_OPERATORS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "": operator.eq,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class CountTest:
    """What a count must be, such as ``>1``."""

    comparison: str
    number: int

    def holds(self, counts: np.ndarray) -> np.ndarray:
        """For which of some counts it is true."""
        found: np.ndarray = _OPERATORS[self.comparison](counts, self.number)
        return found


def parse_count_test(text: str) -> CountTest:
    """
    Parse ``1``, ``>1``, ``<=0`` and the like.

    :raises ValueError: if it is anything else
    """
    found = _TEST.fullmatch(text)
    if not found:
        raise ValueError(f"expected a number or a comparison, such as '>1', got {text!r}")
    return CountTest(found[1] or "", int(found[2], 0))


@dataclass(frozen=True)
class PageQuery:
    """
    Pages with a PFN in ``[start_pfn, end_pfn)`` that are of a kind, whose head has a page flag (a
    mask), whose head has a number of references, and which belong to a pgmap (an address). What is
    ``None`` does not matter.
    """

    start_pfn: int
    end_pfn: int
    kind: PageKind | None = None
    flag: int | None = None
    refcount: CountTest | None = None
    pgmap: int | None = None
