# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Outcomes
--------

What happens to a walker that reads unpromised struct pages: derived from what they hold
and from what the walker does with them.
"""

from __future__ import annotations

import enum

import numpy as np

from drgn_zonedev.kernel.memmap import poisons_struct_pages
from drgn_zonedev.model import CASES, Case
from drgn_zonedev.pfn_walkers.memory import (
    CHARGED,
    CONTENTS,
    FALSE_NODE,
    FALSE_ZONE,
    FAULTING_ZONE,
    HELD,
    NEAR,
    ON_LRU,
    REFERENCED,
    TAIL,
    UNREADABLE,
    WILD,
    UnpromisedMemory,
)
from drgn_zonedev.verification.patterns import Contents

__all__ = ("FATAL", "Act", "WalkOutcome", "dropped", "outcomes")


class Act(enum.Enum):
    """What a walker does with a struct page; the value is the text."""

    LINK = "loads its compound link"
    FLAGS = "reads its flags"
    HEAD = "follows its compound link"
    COPY = "copies it, and the folio that its compound link leads to if that is near"
    GET = "takes a reference to its folio"
    REFERENCE = "takes and drops a reference to its folio"
    PAGE_REFERENCE = "takes and drops a reference to the page"
    MARK = "sets flags in it"
    MEMCG = "follows its memcg"
    ZONE = "changes the per-CPU pagesets of its zone"
    ZONE_LOCK = "takes the lock of its zone, unless it is on the LRU"
    NODE = "counts the error for its node"
    SCAN = "scans it for pointers"


class WalkOutcome(enum.Enum):
    """What happens, the worst first; the value is the text."""

    FAULT = "faults: there is no struct page"
    BUG = "runs into VM_BUG_ON_PGFLAGS(): the struct page is poisoned"
    WILD_POINTER = "follows a wild pointer, which it takes for a compound link"
    WILD_MEMCG = "follows a wild pointer, which it takes for a memcg"
    WILD_ZONE = "follows a wild pointer in what it takes for its zone, past the end of node_zones[]"
    WILD_NODE = "follows NULL: NODE_DATA() of a node that does not exist"
    DANGLING_PGMAP = "follows a false pgmap: a freed one, or the page's own list head"
    FALSE_ZONE = "writes to what it takes for its zone, past the end of node_zones[]"
    CHANGES = "writes to a struct page without an owner"
    GARBAGE = "takes old contents of the memory for a struct page"
    STALE = "takes a stale struct page for a current one"
    MISCOUNTS = "counts the error for an arbitrary node"
    UNREADABLE = "reads a struct page that could not be read here"
    DROPPED = "loads a word or two of it, but does not use them"
    HARMLESS = "sees a struct page that is initialised"


OUTCOMES = tuple(WalkOutcome)

FATAL = (
    WalkOutcome.FAULT,
    WalkOutcome.BUG,
    WalkOutcome.WILD_POINTER,
    WalkOutcome.WILD_MEMCG,
    WalkOutcome.WILD_ZONE,
    WalkOutcome.WILD_NODE,
)
"""What ends in an oops, or may."""

_GARBAGE = (
    Contents.ZERO,
    Contents.POISON,
    Contents.UNUSED,
    Contents.MEDIA,
    Contents.OTHER,
)
_FALSE_PGMAP = (Contents.METADATA, Contents.DANGLING_PGMAP)
_INITIALIZED = (Contents.METADATA, Contents.INITIALIZED)


def _drops_by_pgmap(memory: UnpromisedMemory) -> bool:
    # While struct page had the member pgmap, put_page() read page->pgmap->type of every
    # ZONE_DEVICE page.
    return not memory.layout.pgmap_in_folio


def outcomes(memory: UnpromisedMemory, acts: frozenset[Act]) -> np.ndarray:
    """Get what would happen at each run, as an index into ``OUTCOMES``."""
    runs = memory.runs
    contents = runs.contents()

    def holds(*kinds: Contents) -> np.ndarray:
        return np.array([kind in kinds for kind in CONTENTS])[contents]

    def of(case: Case) -> np.ndarray:
        return runs.case == CASES.index(case)

    takes_folio = runs.has(HELD) & bool(acts & {Act.GET, Act.REFERENCE})
    takes_page = runs.has(REFERENCED) & (Act.PAGE_REFERENCE in acts)
    # put_page() drops the folio's reference.
    drops = (runs.has(HELD) & (Act.REFERENCE in acts)) | takes_page
    follows = bool(acts & {Act.HEAD, Act.GET, Act.REFERENCE}) | takes_page
    follows = follows | (runs.has(NEAR) & (Act.COPY in acts))
    # A walker that follows the compound link of a tail reads the memcg of its folio instead.
    memcg = runs.has(CHARGED) & ~(runs.has(TAIL) & (Act.HEAD in acts)) & (Act.MEMCG in acts)
    locks = ~runs.has(ON_LRU) & (Act.ZONE_LOCK in acts)
    # page_to_nid() has PF_POISONED_CHECK(), too. It needs CONFIG_DEBUG_VM_PGFLAGS, which the
    # debugging information does not show; that depends on CONFIG_DEBUG_VM.
    checks = poisons_struct_pages(memory.prog) & bool(acts & {Act.FLAGS, Act.NODE})
    counts = Act.NODE in acts
    # Initialised, but for its zone or node.
    in_use = of(Case.ONLINE) & holds(Contents.MISPLACED)
    # init_unavailable_range() initialises the struct pages of holes as holes. Those that a
    # removed device left behind are initialised, but for the device.
    harmless = (holds(*_INITIALIZED) & ~of(Case.GHOST)) | (
        of(Case.PARTIAL) & holds(Contents.BOOT_PAGE)
    )
    conditions = {
        WalkOutcome.FAULT: ~runs.mapped,
        WalkOutcome.UNREADABLE: runs.has(UNREADABLE),
        WalkOutcome.BUG: holds(Contents.POISON) & checks,
        WalkOutcome.WILD_POINTER: runs.has(WILD) & follows,
        WalkOutcome.WILD_MEMCG: memcg & holds(*_GARBAGE),
        WalkOutcome.WILD_ZONE: runs.has(FAULTING_ZONE) & (Act.ZONE in acts),
        WalkOutcome.WILD_NODE: runs.has(FALSE_NODE) & counts,
        WalkOutcome.DANGLING_PGMAP: holds(*_FALSE_PGMAP) & drops & _drops_by_pgmap(memory),
        WalkOutcome.FALSE_ZONE: runs.has(FALSE_ZONE) & (locks | (Act.ZONE in acts)),
        WalkOutcome.CHANGES: (takes_folio | takes_page | (Act.MARK in acts)) & ~in_use,
        WalkOutcome.HARMLESS: harmless | in_use,
        WalkOutcome.MISCOUNTS: np.full(len(runs), counts),
        WalkOutcome.GARBAGE: holds(*_GARBAGE),
        WalkOutcome.STALE: np.ones(len(runs), bool),
    }
    codes = np.array([OUTCOMES.index(outcome) for outcome in conditions])
    matrix = np.stack([np.broadcast_to(c, len(runs)) for c in conditions.values()])
    return codes[np.argmax(matrix, axis=0)]


def dropped(outcome: np.ndarray) -> np.ndarray:
    """Get the outcome of runs whose struct pages are dropped: nothing of them is used."""
    unused = (outcome == OUTCOMES.index(WalkOutcome.GARBAGE)) | (
        outcome == OUTCOMES.index(WalkOutcome.STALE)
    )
    return np.where(unused, OUTCOMES.index(WalkOutcome.DROPPED), outcome)
