# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Types
----------

The ``drgn_zonedev.kernel.page_types`` module tells what pages without mappings are
used for: :linux:`include/linux/page-flags.h` keeps it in ``_mapcount``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.mmzone import section_flags

__all__ = ("PageTypes", "page_types")

_PREFIX, _UNDERFLOW = "PGTY_", "mapcount_underflow"
# PAGE_TYPE_BASE; a type is the bit that is clear.
_BASE = 0xF0000000
# PAGE_MAPCOUNT_RESERVE
_RESERVE = -128


@dataclass(frozen=True)
class PageTypes:
    """
    The page types of a kernel, by their names in lower case.

    ``typed`` kernels have one type in the upper byte of ``page_type``, since Linux kernel
    commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12). Others clear
    one bit of it for each type.
    """

    typed: bool
    values: Mapping[str, int]

    def has(self, pages: Pages, name: str) -> np.ndarray:
        """Which pages are of a type: ``PageBuddy()`` and its like."""
        value = self.values.get(name)
        if value is None:
            return np.zeros(len(pages.words), bool)
        page_type = pages.mapcount.view("<u4")
        if self.typed:
            return (page_type >> np.uint32(24)) == np.uint32(value)
        return (page_type & np.uint32(_BASE | value)) == np.uint32(_BASE)

    def has_any(self, pages: Pages) -> np.ndarray:
        """``page_has_type()``, or ``page_mapcount_is_type()``."""
        # PGTY_mapcount_underflow << 24
        limit = -(1 << 24) if self.typed else _RESERVE
        return pages.mapcount < limit

    def of(self, pages: Pages) -> str | None:
        """The type of the first page, if it has one that is known."""
        return next((name for name in self.values if self.has(pages, name)[0]), None)


@takes_program_or_default
def page_types(prog: Program) -> PageTypes:
    """
    Get the page types of this kernel.

    :raises LookupError: if the debugging information lacks what is needed
    """
    try:
        return prog.cache["zonedev_page_types"]
    except KeyError:
        return prog.cache.setdefault("zonedev_page_types", _page_types(prog))


def _page_types(prog: Program) -> PageTypes:
    try:
        enum = prog.constant("PGTY_buddy").type_
    except LookupError:
        return PageTypes(False, _bits(prog))
    found = {
        str(name)[len(_PREFIX) :]: int(value)
        for name, value in enum.enumerators or ()
        if name.startswith(_PREFIX)
    }
    found.pop(_UNDERFLOW, None)
    return PageTypes(True, found)


def _bits(prog: Program) -> dict[str, int]:
    # Macros. PG_kmemcg had 0x200 until Linux kernel commit 18b2db3b0385 ("mm: Convert
    # page kmemcg type to a page memcg flag") (in v5.11), which also gave struct page the
    # member memcg_data.
    newer = prog.type("struct page").has_member("memcg_data") or section_flags(prog).taint
    if newer:
        return {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
    return {"buddy": 0x80, "offline": 0x100, "kmemcg": 0x200, "table": 0x400, "guard": 0x800}
