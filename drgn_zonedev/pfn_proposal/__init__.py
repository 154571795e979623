# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Proposal
------------

Ways to build ``pfn_zone_device()``, which says that a struct page is ``ZONE_DEVICE`` and
may be touched: those that were proposed, and some more, tried on a program's memory.

``variants.py`` holds the variants as data, ``marks.py`` builds the flags and bitmaps that
a kernel would keep for them, ``calls.py`` and ``cost.py`` count what a lookup executes and
what the bits cost, ``carried.py`` reads the bitmaps of a kernel that has some, and
``trial.py`` compares each variant's answers with the truth.
"""

from __future__ import annotations

from drgn_zonedev.pfn_proposal.carried import Carried, Difference
from drgn_zonedev.pfn_proposal.cost import Lookup, LookupWork, MemoryCost
from drgn_zonedev.pfn_proposal.trial import ProposalReport, Verdict, Wrong, proposal, try_variants
from drgn_zonedev.pfn_proposal.variants import VARIANTS, Variant

__all__ = (
    "VARIANTS",
    "Carried",
    "Difference",
    "Lookup",
    "LookupWork",
    "MemoryCost",
    "ProposalReport",
    "Variant",
    "Verdict",
    "Wrong",
    "proposal",
    "try_variants",
)
