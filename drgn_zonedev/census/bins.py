# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Bins
----

What pages are counted by, as numbers.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("NO_LABEL", "NO_ZONE", "Bin")

NO_LABEL = (1 << 64) - 1
"""Of pages that do not have what others are grouped by."""

NO_ZONE = -1
"""The zone ID of pages whose struct page says nothing."""


class Bin(NamedTuple):
    """
    What is counted together: the code of a kind, a zone ID, an order or 0, a label, and for
    device pages the type of the memory, and whether they are in use.
    """

    kind: int
    zone: int
    order: int
    label: int
    device: str | None
    in_use: bool
