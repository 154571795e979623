# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Members of Struct Page, by Release
----------------------------------

Names the words of a ``struct page`` by the release that the log names, if there is neither a
dump nor a vmlinux. This is a guess, and reported as one, because distributions backport.

The table has what differs between 64-bit kernels of which types were read: 4.18 to 7.3 on
x86-64, and 5.16 to 6.14 on arm64, ppc64 and s390x, where it is the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ("PageFields", "PageWordsRead", "fields_of_release", "read_page_words", "release_number")

Members = tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class PageFields:
    """
    Where the members of ``struct page`` are: offset, size and name, in bytes. ``source`` says
    how that is known.
    """

    size: int
    members: Members
    source: str

    def name_at(self, offset: int) -> str | None:
        """Name of the member that has a byte."""
        for start, size, name in self.members:
            if start <= offset < start + size:
                return name
        return None

    def offset_of(self, *names: str) -> int | None:
        """Offset of the first of these members that there is."""
        return next((at for at, _, name in self.members if name in names), None)


# Since Linux kernel commit 4da1984edbbe ("mm: combine LRU and main union in struct page") and
# those around it (in v4.18). Word 7 is that of CONFIG_MEMCG.
_SINCE_4_18 = (
    (0x00, 8, "flags"),
    (0x08, 8, "compound_head"),
    (0x10, 8, "lru.prev"),
    (0x18, 8, "mapping"),
    (0x20, 8, "index"),
    (0x28, 8, "private"),
    (0x30, 4, "_mapcount"),
    (0x34, 4, "_refcount"),
    (0x38, 8, "memcg_data"),
)
_BEFORE_4_18 = (
    (0x00, 8, "flags"),
    (0x08, 8, "mapping"),
    (0x10, 8, "index"),
    (0x18, 4, "_mapcount"),
    (0x1C, 4, "_refcount"),
    (0x20, 8, "compound_head"),
    (0x28, 8, "lru.prev"),
    (0x30, 8, "private"),
    (0x38, 8, "mem_cgroup"),
)
_RENAMED = (
    # Since Linux kernel commit bcfe06bf2622 ("mm: memcontrol: Use helpers to read page's
    # memcg data") (in v5.11).
    ((5, 11), "memcg_data", "mem_cgroup"),
    # Since Linux kernel commit d50569612c29 ("mm: rename the 'compound_head' field in the
    # 'struct page' to 'compound_info'") (in v7.1).
    ((7, 1), "compound_info", "compound_head"),
)

_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,4})")


def release_number(release: str | None) -> tuple[int, int] | None:
    """Get the numbers that a release begins with."""
    match = _RELEASE.match(release or "")
    return (int(match[1]), int(match[2])) if match else None


def fields_of_release(release: str | None) -> PageFields:
    """Guess the members of ``struct page`` by the release; the newest ones if it is not known."""
    number = release_number(release)
    if number is not None and number < (4, 18):
        return PageFields(64, _BEFORE_4_18, _source(release))
    members: Members = _SINCE_4_18
    for since, new, old in _RENAMED:
        if number is not None and number >= since:
            members = tuple((at, size, new if n == old else n) for at, size, n in members)
        elif number is not None:
            members = tuple((at, size, old if n == new else n) for at, size, n in members)
    return PageFields(64, members, _source(release))


def _source(release: str | None) -> str:
    return f"a guess by the release {release}" if release else "a guess: the log names no release"


@dataclass(frozen=True)
class PageWordsRead:
    """What raw words of a struct page say."""

    link: int | None
    head: int | None
    mapping: int | None
    refcount: int | None
    mapcount: int | None


def read_page_words(
    words: Sequence[int], fields: PageFields, address: int | None, *, big_endian: bool = False
) -> PageWordsRead:
    """
    Read the members of a struct page out of its words, as far as there are any.

    :param address: Of the struct page: a link that is a mask is applied to it.
    :param big_endian: Which half of a word is the member with the lower address.
    """

    def word(*names: str) -> int | None:
        offset = fields.offset_of(*names)
        return words[offset // 8] if offset is not None and offset // 8 < len(words) else None

    counts = word("_mapcount")
    link = word("compound_head", "compound_info")
    return PageWordsRead(
        link=link,
        head=_head(link, address),
        mapping=word("mapping"),
        refcount=None if counts is None else _signed(counts if big_endian else counts >> 32),
        mapcount=None if counts is None else _signed(counts >> 32 if big_endian else counts),
    )


def _head(link: int | None, address: int | None) -> int | None:
    if link is None or not link & 1:
        return None
    if _is_mask(link):
        return None if address is None else address & link
    return link - 1


# The struct pages of the largest folio, of 16 GiB, are less.
_LARGEST = 1 << 32


def _is_mask(link: int) -> bool:
    # Since Linux kernel commit 8c846c879e22 ("mm: rework compound_head() for power-of-2
    # sizeof(struct page)") (in v7.1), which is backported without the member's new name:
    # only the value tells. No struct page is at such an address.
    size = (1 << 64) - (link - 1)
    return size <= _LARGEST and not size & (size - 1)


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
