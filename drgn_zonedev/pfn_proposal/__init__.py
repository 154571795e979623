# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Proposal
------------

The ways that were proposed, and some more, to tell a PFN walker that a struct page is
``ZONE_DEVICE`` and may be touched, tried on the memory at hand.

``marks.py`` builds the flags and bitmaps that a kernel would keep, ``variants.py``
holds the ways as data, ``calls.py`` and ``cost.py`` count what a lookup executes and
what the bits cost,
``carried.py`` reads the bits of a kernel that has them, ``trial.py`` compares.
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
