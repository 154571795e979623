# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the answers of kernels that have another variant of pfn_zone_device() with its model.

``pfn_proposal/variants.py`` computes what each variant would answer. ``patches/`` has kernels that
really have some of them; each is known by a function that only it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from drgn import Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences
from drgn_zonedev.model import Range
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_proposal.variants import VARIANTS, Asked, Variant

if TYPE_CHECKING:
    from drgn_zonedev.lab.verdict.agreement import Truth

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


_MODELS = {
    "subsections_mark_device": Models("late-bit", "late-bit+reserve", "late-bit+reserve"),
    "section_mark_device": Models("section-flag+pgmap", "section-flag"),
    "pfn_zone_device_by_taint": Models("taint+pgmap", "pgmap+range"),
}


def models_of(prog: Program) -> Models | None:
    """Return the models of a kernel; None: it has no other variant."""
    return next((models for name, models in _MODELS.items() if name in prog), None)


def model_disagreements(
    models: Models, snapshot: Snapshot, ranges: Sequence[Range], truth: Truth
) -> Iterator[Disagreement]:
    """Yield where a kernel's answers are not those of the models, for every PFN that was asked."""
    for function, model in (("zone_device", models.zone_device), ("claimed", models.claimed)):
        yield from differences(
            f"the kernel's own {model}",
            truth.pfn,
            answers_of(model, snapshot, ranges, truth.pfn),
            truth.yes(function),
        )


def answers_of(
    model: str, snapshot: Snapshot, ranges: Sequence[Range], pfn: np.ndarray
) -> np.ndarray:
    """Return what a variant would answer for PFNs."""
    asked = Asked(snapshot, Marks(snapshot, ranges), snapshot.predicates(pfn))
    return _variant(model).lookup(asked)


def _variant(name: str) -> Variant:
    return next(variant for variant in VARIANTS if variant.name == name)
