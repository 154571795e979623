# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the answers of kernels that have another variant of pfn_zone_device() with its model.

``pfn_proposal/variants.py`` computes what each variant would answer. ``patches/`` has kernels that
really have some of them; each is known by a function that only it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences
from drgn_zonedev.model import Range
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_proposal.variants import VARIANTS, Asked

__all__ = ("Models", "answers_of", "model_disagreements", "models_of")


@dataclass(frozen=True)
class Models:
    """Which variant each function of a kernel is."""

    zone_device: str
    """``pfn_zone_device()``"""
    claimed: str
    """``pfn_zone_device_claimed()``"""
    shown: str = ""
    """What /proc/kpage* show besides what is online; empty: nothing."""
    bitmap: str = ""
    """Its bit for each subsection, as of ``late-bit``."""
    flag: bool = False
    """Whether the section's word says that device memory was added, as of ``section-flag``."""


_MODELS = {
    "subsections_mark_device": Models(
        "late-bit", "late-bit+reserve", "late-bit+reserve", bitmap="subsection_dev_map"
    ),
    "section_mark_device": Models("section-flag+pgmap", "section-flag", flag=True),
    "pfn_zone_device_by_taint": Models("taint+pgmap", "pgmap+range"),
}


def models_of(prog: Program) -> Models | None:
    """Return the models of a kernel; None: it has no other variant."""
    return next((models for name, models in _MODELS.items() if name in prog), None)


def model_disagreements(
    models: Models,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    pfn: np.ndarray,
    zone_device: np.ndarray,
    claimed: np.ndarray,
) -> Iterator[Disagreement]:
    """
    Yield where a kernel's answers are not those of the models.

    :param zone_device: what ``pfn_zone_device()`` answered for each PFN
    :param claimed: what ``pfn_zone_device_claimed()`` did
    """
    for model, theirs in ((models.zone_device, zone_device), (models.claimed, claimed)):
        ours = answers_of(model, snapshot, ranges, pfn)
        yield from differences(f"the kernel's own {model}", pfn, ours, theirs)


def answers_of(
    model: str, snapshot: Snapshot, ranges: Sequence[Range], pfn: np.ndarray
) -> np.ndarray:
    """Return what a variant would answer for PFNs."""
    asked = Asked(snapshot, Marks(snapshot, ranges), snapshot.predicates(pfn))
    return next(variant for variant in VARIANTS if variant.name == model).lookup(asked)
