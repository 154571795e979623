# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zero Pages
----------

The ``drgn_zonedev.kernel.zero_pages`` module looks up the pages that stand for all memory
that holds nothing but zeros.
"""

from __future__ import annotations

from drgn import FaultError, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_pfn

__all__ = ("hpage_pmd_order", "huge_zero_pfn", "zero_pfn")


@takes_program_or_default
def zero_pfn(prog: Program) -> int | None:
    """Get the PFN of ``ZERO_PAGE(0)``; ``None`` if it is not known."""
    try:
        return int(prog.variable("zero_pfn").value_())
    except (LookupError, FaultError):
        pass
    try:
        page = prog.variable("empty_zero_page").address_of_()
        return int(follow_pfn(prog["init_mm"].address_of_(), page).value_())
    except (LookupError, FaultError, NotImplementedError, ValueError):
        return None


@takes_program_or_default
def hpage_pmd_order(prog: Program) -> int:
    """
    Get ``HPAGE_PMD_ORDER``, that of a transparent huge page: as many pages as a page table, which
    is a page, has entries of 8 bytes.
    """
    return int(prog["PAGE_SHIFT"].value_()) - 3


@takes_program_or_default
def huge_zero_pfn(prog: Program) -> int | None:
    """
    Get the first PFN of the huge zero page, which may never be allocated: then it is all ones.

    :return: ``None`` if it is not known.
    """
    try:
        return int(prog.variable("huge_zero_pfn").value_())
    except (LookupError, FaultError):
        return None
