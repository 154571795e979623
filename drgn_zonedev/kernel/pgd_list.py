# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Tables of Tasks
--------------------

The ``drgn_zonedev.kernel.pgd_list`` module finds the top of the page tables of every task. On
x86-64, each has a copy of the kernel's own entries, which ``sync_global_pgds()`` and
``arch_sync_kernel_mappings()`` keep up to date. :linux:`arch/x86/mm/pgtable.c` keeps all of them
on a list.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.lists import list_nodes
from drgn_zonedev.kernel.memmap import page_layout

__all__ = ("copies_kernel_entries", "task_page_tables")


@takes_program_or_default
def copies_kernel_entries(prog: Program) -> bool:
    """Return whether each task's page tables have a copy of the kernel's top-level entries."""
    return "pgd_list" in prog


@takes_program_or_default
def task_page_tables(prog: Program) -> Iterator[int]:
    """
    Iterate over the PFNs of the tops of page tables that are on ``pgd_list``: ``pgd_t *`` of
    every ``struct mm_struct``.

    :raises FaultError: at an entry that cannot be read
    :raises LookupError: if the architecture has no such list
    """
    layout = page_layout(prog)
    # page->lru, or ptdesc->pt_list, which struct ptdesc has in the same place.
    for node in list_nodes(prog, prog["pgd_list"].address_of_()):
        pfn, misplaced = divmod(node - layout.lru_offset - layout.vmemmap, layout.size)
        if misplaced or pfn < 0:
            # The list does not continue with struct pages.
            return
        yield pfn
