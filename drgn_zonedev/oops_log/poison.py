# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Poison
------

Recognises poisoned values that the kernel used as addresses, and says where they come from.
"""

from __future__ import annotations

import enum

from drgn_zonedev.oops_log.architectures import LogArchitecture

__all__ = ("Pattern", "from_kasan_shadow", "poison_at", "wrapped_member")

_ALL = (1 << 64) - 1


class Pattern(enum.Enum):
    """A poisoned value; ``meaning`` says where it comes from."""

    ALL_ONES = "all-ones"
    UNUSED_FILL = "0xfd"
    LIST_POISON = "list-poison"
    TAIL_MAPPING = "tail-mapping"
    PAGE_POISON = "page-poison"
    SLAB_POISON = "slab-poison"

    @property
    def meaning(self) -> str:
        """Where it comes from, in words."""
        return _MEANINGS[self]


_MEANINGS = {
    Pattern.ALL_ONES: "a struct page of all ones (PAGE_POISON_PATTERN, or memory that reads so) "
    "was never initialised; its compound_head() is ...fffe",
    Pattern.UNUSED_FILL: "vmemmap filled with 0xfd (PAGE_UNUSED): this part of a vmemmap PMD was "
    "removed or never used, and pfn_valid() is still true; compound_head() of it is ...fdfc",
    Pattern.LIST_POISON: "LIST_POISON: the entry was deleted from its list already, or was never "
    "on one",
    Pattern.TAIL_MAPPING: "TAIL_MAPPING: page->mapping of a tail of a compound page",
    Pattern.PAGE_POISON: "PAGE_POISON (0xaa): contents of a free page",
    Pattern.SLAB_POISON: "slab poison (0x6b, 0x5a): an object that was freed, or never initialised",
}

# compound_head() of all ones, as reads of flags, and of members of which the address wraps.
_HEAD_OF_ALL_ONES = _ALL - 1
_FILLS = {
    0xFDFDFDFDFDFDFDFD: Pattern.UNUSED_FILL,
    0xAAAAAAAAAAAAAAAA: Pattern.PAGE_POISON,
    0x6B6B6B6B6B6B6B6B: Pattern.SLAB_POISON,
    0xA56B6B6B6B6B6B6B: Pattern.SLAB_POISON,
    0x5A5A5A5A5A5A5A5A: Pattern.SLAB_POISON,
}
# The size of a structure that such a pointer would point to is at most this.
_NEAR = 0x1000

# LIST_POISON1 and 2 (0x200 in older kernels), what list_del() writes there, and the start of a
# struct page whose list head the first one would be.
_LIST = (range(0xE0, 0x130), range(0x200, 0x210))
# struct address_space begins there.
_TAIL = range(0x400, 0x600)

# CONFIG_KASAN_SHADOW_OFFSET of x86-64.
_SHADOW_OFFSET = 0xDFFFFC0000000000


def poison_at(
    address: int, architecture: LogArchitecture | None, *, faulted: bool
) -> Pattern | None:
    """
    Recognise a poison.

    :param faulted: Whether the kernel used it as an address. A register that holds ...fffe
        can hold -ENOENT as well.
    """
    if address == _HEAD_OF_ALL_ONES and faulted:
        return Pattern.ALL_ONES
    for fill, pattern in _FILLS.items():
        if abs(address - fill) < _NEAR:
            return pattern
    illegal = architecture.illegal_pointer if architecture else 0xDEAD000000000000
    offset = address - illegal
    if any(offset in offsets for offsets in _LIST):
        return Pattern.LIST_POISON
    return Pattern.TAIL_MAPPING if offset in _TAIL else None


def wrapped_member(address: int) -> int | None:
    """
    Get the offset in ``struct page`` from a small address, if the kernel added the offset to
    compound_head() of all ones.
    """
    offset = (address + 2) & _ALL
    return offset if 8 <= offset < 64 and offset % 4 == 0 else None


def from_kasan_shadow(address: int) -> int | None:
    """
    Get the address whose shadow KASAN read, on x86-64; the lowest of eight. ``None`` if
    that would be a good address of the kernel or of a user.
    """
    shadowed = (address - _SHADOW_OFFSET) & _ALL
    if shadowed >> 61:
        return None
    found = shadowed << 3
    return found if (found >> 63 and found < 0xFFFF800000000000) or found >= _ALL - 7 else None
