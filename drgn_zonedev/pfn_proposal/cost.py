# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Cost
----

What a lookup of one PFN executes, counted on the structures of a program: loads of words,
each time that a word is loaded; the cache lines that these words are in; RCU read-side
critical sections, not counting nested ones; and changes of the pgmap's reference. No
variant takes a lock. Which lines are already in the cache is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drgn import FaultError, Program, offsetof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.pageblock import pageblock_layout
from drgn_zonedev.kernel.pgmap_array import walk_pgmap_array
from drgn_zonedev.pfn_proposal.calls import Question, called, loaded, read_side
from drgn_zonedev.pfn_proposal.variants import Variant

__all__ = ("Lookup", "LookupWork", "MemoryCost", "kmalloc_size", "lookup_cost", "memory_cost")

_LINE = 64
_TIB = 1 << 40

# KMALLOC_MIN_SIZE is 8 on x86-64; besides powers of two, there are caches of 96 and 192 bytes.
_KMALLOC = sorted([96, 192] + [1 << i for i in range(3, 14)])


@dataclass(frozen=True)
class LookupWork:
    """
    What is executed: ``loads`` of words in ``lines`` cache lines, with ``rcu`` read-side
    critical sections.

    The counter of the pgmap's reference is changed ``percpu`` times if it is in percpu mode,
    which takes no atomic operation, or ``atomics`` times if it is in atomic mode.
    """

    loads: int
    lines: int
    rcu: int
    percpu: int
    atomics: int


@dataclass(frozen=True)
class Lookup:
    """
    What a lookup costs: ``first``, and ``again`` for another PFN of the same range, if the
    walker keeps the pgmap and its reference.

    ``walks`` is how often ``pgmap_array`` is searched the first time, ``depth`` the number of
    nodes on the way, ``pfn`` the PFN for which it was counted.
    """

    pfn: int
    first: LookupWork
    again: LookupWork
    walks: int
    depth: int


@dataclass(frozen=True)
class MemoryCost:
    """
    What the bits cost, in bytes.

    ``sections`` is the number of present sections, ``usage`` the size of the ``struct
    mem_section_usage`` of one today, ``slab`` the bytes that the allocator uses for a
    hot-added one, before and after; ``None`` if that is not known.
    """

    per_section: int
    machine: int
    per_tib: int
    sections: int
    usage: int | None
    slab: tuple[int, int] | None


def kmalloc_size(size: int) -> int:
    """Get the bytes that ``kmalloc()`` uses for an object."""
    return next((s for s in _KMALLOC if s >= size), -(-size // 4096) * 4096)


def memory_cost(prog: Program, snapshot: Snapshot, variant: Variant) -> MemoryCost:
    """Count what the bits of a variant cost on this machine, and per TiB of memory."""
    geometry = snapshot.geometry
    # DECLARE_BITMAP() declares whole words.
    per_section = variant.bitmaps * (-(-geometry.subsections_per_section // 64) * 8)
    usage = _usage_size(prog, snapshot)
    slab = None
    if usage is not None:
        slab = kmalloc_size(usage), kmalloc_size(usage + per_section)
    return MemoryCost(
        per_section=per_section,
        machine=per_section * len(snapshot.sections),
        per_tib=per_section * (_TIB >> geometry.section_size_bits),
        sections=len(snapshot.sections),
        usage=usage,
        slab=slab,
    )


def _usage_size(prog: Program, snapshot: Snapshot) -> int | None:
    # sizeof(struct mem_section_usage) and usemap_size().
    try:
        type_ = prog.type("struct mem_section_usage")
        layout = pageblock_layout(prog, snapshot.sections)
        fixed = offsetof(type_, "pageblock_flags")
    except LookupError:
        return None
    if layout is None:
        return None
    blocks = sparsemem_geometry(prog).pages_per_section // layout.pages
    return int(fixed) + -(-blocks * layout.bits // 64) * 8


def lookup_cost(variant: Variant, questions: Iterable[Question]) -> Lookup | None:
    """
    Count what a lookup costs for the most expensive of some PFNs.

    :return: ``None`` if it cannot be counted for any PFN.
    """
    found: list[Lookup] = []
    for question in questions:
        try:
            found.append(_count(question, variant))
        except (FaultError, LookupError):
            continue
    return max(found, key=lambda cost: (cost.first.loads, cost.first.lines), default=None)


def _count(question: Question, variant: Variant) -> Lookup:
    first = list(called(question, variant.calls))
    walks = first.count("get_dev_pagemap")
    return Lookup(
        pfn=question.pfn,
        first=_work(question, first),
        again=_work(question, list(called(question, variant.again))),
        walks=walks,
        depth=walk_pgmap_array(question.prog, question.pfn).depth if walks else 0,
    )


def _work(question: Question, calls: Sequence[str]) -> LookupWork:
    loads = [address for call in calls for address in loaded(question, call)]
    mode, changes = None, 0
    if question.held:
        mode = question.held.ref.mode
        changes = sum(call in ("get_dev_pagemap", "put_dev_pagemap") for call in calls)
    return LookupWork(
        loads=len(loads),
        lines=len({address // _LINE for address in loads}),
        rcu=sum(read_side(question, call) for call in calls),
        percpu=0 if mode == "atomic" else changes,
        atomics=changes if mode == "atomic" else 0,
    )
