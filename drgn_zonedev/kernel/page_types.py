# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Types
----------

The ``drgn_zonedev.kernel.page_types`` module tells what pages without mappings are
used for: :linux:`include/linux/page-flags.h` keeps it in ``_mapcount``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.mmzone import section_flags
from drgn_zonedev.util.once import once_per_program

__all__ = ("PageType", "PageTypes", "page_types")

_PREFIX, _UNDERFLOW = "PGTY_", "mapcount_underflow"
_UINT = (1 << 32) - 1
_UPPER_BYTE = 0xFF << 24
# PAGE_TYPE_BASE and PAGE_MAPCOUNT_RESERVE; a type is the bit that is clear.
_BASE, _RESERVE = 0xF0000000, -128
# Those of v6.11, and the types.
_WIDE_BASE, _WIDE_RESERVE = 0x80000000, -(1 << 16)
_WIDE_BITS = {
    "buddy": 0x40000000,
    "offline": 0x20000000,
    "table": 0x10000000,
    "guard": 0x08000000,
    "hugetlb": 0x04000000,
    "slab": 0x02000000,
    "zsmalloc": 0x01000000,
}
_EXPORTED = re.compile(rb"^NUMBER\(PAGE_([A-Z]+)_MAPCOUNT_VALUE\)=(-?[0-9]{1,11})$", re.MULTILINE)


@dataclass(frozen=True)
class PageType:
    """A page is of a type if ``mask`` of ``page->_mapcount`` (a ``u32``) is ``value``."""

    mask: int
    value: int

    def matches(self, mapcount: np.ndarray) -> np.ndarray:
        """Which pages are of this type: ``PageBuddy()``, ``PageOffline()`` …"""
        bits = mapcount.view("<u4")
        return (bits & np.uint32(self.mask)) == np.uint32(self.value)


@dataclass(frozen=True)
class PageTypes:
    """
    The page types of a kernel, by their names in lower case.

    ``typed`` kernels have one type in the upper byte of ``page_type``, since Linux kernel
    commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12). Others clear
    one bit of it for each type. A page has a type if its ``_mapcount`` (an ``int``) is in
    ``[least, end)``.
    """

    typed: bool
    by_name: Mapping[str, PageType]
    least: int
    end: int

    def has(self, pages: Pages, name: str) -> np.ndarray:
        """Which pages are of a type: ``PageBuddy()`` and its like."""
        page_type = self.by_name.get(name)
        if page_type is None:
            return np.zeros(len(pages.words), bool)
        return page_type.matches(pages.mapcount)

    def has_any(self, pages: Pages) -> np.ndarray:
        """``page_has_type()``, or ``page_mapcount_is_type()``."""
        return pages.mapcount < self.end

    def of(self, pages: Pages) -> str | None:
        """The type of the first page, if it has one that is known."""
        return next((name for name in self.by_name if self.has(pages, name)[0]), None)


@takes_program_or_default
@once_per_program
def page_types(prog: Program) -> PageTypes:
    """
    Get the page types of this kernel.

    :raises LookupError: if the debugging information does not have what is needed
    """
    numbers = _enumerators(prog, "PGTY_buddy", _PREFIX)
    if numbers:
        numbers.pop(_UNDERFLOW, None)
        in_upper_byte = {n: PageType(_UPPER_BYTE, value << 24) for n, value in numbers.items()}
        # PGTY_mapcount_underflow << 24
        return PageTypes(True, in_upper_byte, -(1 << 31), -(1 << 24))
    exported = _exported_types(prog)
    # An enum since Linux kernel commit ff202303c398 ("mm: convert page type macros to enum")
    # (in v6.10). Its numbers changed in Linux kernel commit 8db00ad56461 ("mm: allow reuse of
    # the lower 16 bit of the page type with an actual type") (in v6.11).
    bits = _enumerators(prog, "PG_buddy", "PG_")
    wide = exported.get("buddy", PageType(0, 0)).value == _WIDE_BASE
    if wide or bits.get("buddy") == _WIDE_BITS["buddy"]:
        types = _clear_bits(bits or _WIDE_BITS, _WIDE_BASE)
        return PageTypes(False, types, -(1 << 31), _WIDE_RESERVE)
    known = {**_clear_bits(bits or _macros(prog), _BASE), **exported}
    return PageTypes(False, known, -(1 << 28), _RESERVE)


def _enumerators(prog: Program, name: str, prefix: str) -> dict[str, int]:
    try:
        enum = prog.constant(name).type_
    except LookupError:
        return {}
    return {
        str(n)[len(prefix) :]: int(v) for n, v in enum.enumerators or () if n.startswith(prefix)
    }


def _clear_bits(bits: Mapping[str, int], base: int) -> dict[str, PageType]:
    return {name: PageType(base | bit, base) for name, bit in bits.items()}


def _macros(prog: Program) -> dict[str, int]:
    # PG_kmemcg had 0x200 until Linux kernel commit 18b2db3b0385 ("mm: Convert
    # page kmemcg type to a page memcg flag") (in v5.11). struct page has memcg_data since
    # bcfe06bf2622 ("mm: memcontrol: Use helpers to read page's memcg data"), in the same release.
    newer = prog.type("struct page").has_member("memcg_data") or section_flags(prog).taint
    if newer:
        return {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
    return {"buddy": 0x80, "offline": 0x100, "kmemcg": 0x200, "table": 0x400, "guard": 0x800}


def _exported_types(prog: Program) -> dict[str, PageType]:
    # Bits were added and numbered anew up to v6.11, also in stable kernels, where they are
    # macros, but VMCOREINFO has what a page of some types holds.
    found = _EXPORTED.findall(prog["VMCOREINFO"].string_())
    return {name.decode().lower(): _exported_type(int(value)) for name, value in found}


def _exported_type(value: int) -> PageType:
    # All bits but that of the type are set.
    bit = ~value & _UINT
    base = _BASE if bit < 1 << 24 else _WIDE_BASE
    return PageType(base | bit, base)
