# SPDX-License-Identifier: LGPL-2.1-or-later

"""Rounding to multiples."""

from __future__ import annotations

__all__ = ("align_down", "align_up")


def align_up(value: int, alignment: int) -> int:
    """``ALIGN()``."""
    return -(-value // alignment) * alignment


def align_down(value: int, alignment: int) -> int:
    """``ALIGN_DOWN()``."""
    return value // alignment * alignment
