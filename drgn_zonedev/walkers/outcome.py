# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Outcomes
--------

What happens to a walker that uses struct pages which nobody promises, told from what
they hold and from what the walker does with them.
"""

from __future__ import annotations

import enum

import numpy as np
from drgn import Program

from drgn_zonedev.contents import Contents
from drgn_zonedev.model import CASES, Case
from drgn_zonedev.walkers.ground import CHARGED, CONTENTS, REFERENCED, UNREAD, WILD, Ground

__all__ = ("Act", "Outcome", "outcomes")


class Act(enum.Enum):
    """What a walker does with a struct page that passed its guard; the value is for people."""

    FLAGS = "reads its flags"
    HEAD = "follows its compound link"
    REFERENCE = "takes and drops a reference"
    MARK = "sets flags in it"
    MEMCG = "follows its memcg"
    SCAN = "scans it for pointers"


class Outcome(enum.Enum):
    """What comes of it, the worst first; the value is for people."""

    FAULT = "faults: there is no struct page"
    BUG = "runs into VM_BUG_ON_PGFLAGS(): the struct page is poisoned"
    WILD_POINTER = "follows a wild pointer: what it takes for a compound link"
    WILD_MEMCG = "follows a wild pointer: what it takes for a memcg"
    DANGLING_PGMAP = "follows a pgmap that is none: a freed one, or the page's own list head"
    CHANGES = "writes to a struct page that nobody owns"
    GARBAGE = "takes what the memory held before for a struct page"
    STALE = "takes a struct page of another time for this one"
    UNREADABLE = "reads a struct page that could not be read here"
    HARMLESS = "sees a struct page that is initialised"


OUTCOMES = tuple(Outcome)

_GARBAGE = (Contents.ZERO, Contents.POISON, Contents.MEDIA, Contents.OTHER)
_FALSE_PGMAP = (Contents.METADATA, Contents.DANGLING_PGMAP)
_INITIALIZED = (Contents.METADATA, Contents.INITIALIZED)


def _checks_poison(prog: Program) -> bool:
    # PF_POISONED_CHECK() needs CONFIG_DEBUG_VM_PGFLAGS, which leaves no trace. Struct
    # pages are only ever poisoned with CONFIG_DEBUG_VM, which has this variable since
    # Linux kernel commit f682a97a0059 ("mm: provide kernel parameter to allow
    # disabling page init poisoning") (in v4.20).
    return "page_init_poisoning" in prog


def _drops_by_pgmap(ground: Ground) -> bool:
    # put_page() looked at page->pgmap->type of every ZONE_DEVICE page for as long as
    # struct page had that member.
    return not ground.layout.pgmap_in_folio


def outcomes(ground: Ground, acts: frozenset[Act]) -> np.ndarray:
    """Tell what would come of each run, as an index into ``OUTCOMES``."""
    runs = ground.runs
    contents = runs.contents()

    def holds(*kinds: Contents) -> np.ndarray:
        return np.isin(contents, [CONTENTS.index(kind) for kind in kinds])

    # init_unavailable_range() has initialised them for what they are.
    hole = runs.case == CASES.index(Case.PARTIAL)
    referenced = runs.has(REFERENCED)
    poison = holds(Contents.POISON) & _checks_poison(ground.prog)
    head = bool(acts & {Act.HEAD, Act.REFERENCE, Act.MARK, Act.MEMCG})
    takes = referenced & (Act.REFERENCE in acts)
    conditions = {
        Outcome.FAULT: ~runs.mapped,
        Outcome.UNREADABLE: runs.has(UNREAD),
        Outcome.BUG: poison,
        Outcome.WILD_POINTER: runs.has(WILD) & head,
        Outcome.WILD_MEMCG: runs.has(CHARGED) & holds(*_GARBAGE) & (Act.MEMCG in acts),
        Outcome.DANGLING_PGMAP: holds(*_FALSE_PGMAP) & takes & _drops_by_pgmap(ground),
        Outcome.CHANGES: takes | (Act.MARK in acts),
        Outcome.HARMLESS: holds(*_INITIALIZED) | (hole & holds(Contents.BOOT_PAGE)),
        Outcome.GARBAGE: holds(*_GARBAGE),
        Outcome.STALE: np.ones(len(runs), bool),
    }
    codes = np.array([OUTCOMES.index(outcome) for outcome in conditions])
    matrix = np.stack([np.broadcast_to(c, len(runs)) for c in conditions.values()])
    return codes[np.argmax(matrix, axis=0)]
