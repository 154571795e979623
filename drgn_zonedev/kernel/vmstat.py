# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Counters of Memory
------------------

The ``drgn_zonedev.kernel.vmstat`` module reads how many pages the kernel counts as memory of
struct pages, as ``/proc/vmstat`` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from drgn import FaultError, Program, TypeKind
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.vmcore.reads import read_memory

__all__ = ("counts_page_ext", "nr_memmap", "shared_tail_pages")

_COUNTERS = ("nr_memmap_pages", "nr_memmap_boot_pages")


@takes_program_or_default
def nr_memmap(prog: Program) -> int | None:
    """
    Get ``nr_memmap_pages`` plus ``nr_memmap_boot_pages``: pages of struct pages that have memory
    of their own, wherever it is, and of page_ext. Boot is counted apart only until hugetlb
    replaces pages.

    :return: ``None`` in a kernel before Linux kernel commit 9d8573111024 ("mm: don't account
        memmap per-node") (in v6.11), or if they cannot be read
    """
    if not all(name in prog for name in _COUNTERS):
        return None
    try:
        return sum(int(prog[name].counter.value_()) for name in _COUNTERS)
    except (AttributeError, FaultError):
        return None


@takes_program_or_default
def counts_page_ext(prog: Program) -> bool:
    """Return whether there may be page_ext, which :func:`nr_memmap()` has as well."""
    return bool(prog.type("struct mem_section").has_member("page_ext"))


@takes_program_or_default
def shared_tail_pages(prog: Program, zones: Iterable[int]) -> int:
    """
    Count the pages that all optimised hugetlb pages of a zone and an order share, which
    :func:`nr_memmap()` does not have: ``zone->vmemmap_tails``, since v7.1.

    :param zones: Addresses of each ``struct zone``.
    :raises FaultError: if they cannot be read
    """
    zone_type = prog.type("struct zone")
    if not zone_type.has_member("vmemmap_tails"):
        return 0
    member = zone_type.member("vmemmap_tails")
    if member.type.kind != TypeKind.ARRAY:
        return 0
    size = 8 * (member.type.length or 0)
    raw = b"".join(read_memory(prog, zone + member.offset, size) for zone in zones)
    return int(np.count_nonzero(np.frombuffer(raw, "<u8")))
