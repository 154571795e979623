# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pieces
------

How much work a process gets at a time. This also limits how many processes get any.
"""

from __future__ import annotations

__all__ = ("PIECE_BYTES", "number_of_pieces", "piece_pages")

# Small enough for all to end at the same time, large enough to be worth a message.
PIECE_BYTES = 8 << 20


def piece_pages(page_size: int) -> int:
    """Get how many struct pages of a size in bytes make a piece."""
    return max(1, PIECE_BYTES // page_size)


def number_of_pieces(size: int) -> int:
    """Get the number of pieces in this many bytes of struct pages."""
    return -(-size // PIECE_BYTES)
