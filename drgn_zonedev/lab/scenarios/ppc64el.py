# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The scenarios of ppc64el, whose kernels have no driver of persistent memory: RAM alone.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.scenario import Scenario

__all__ = ("PPC64EL_SCENARIOS",)

PPC64EL_SCENARIOS: dict[str, Scenario] = {
    "empty": Scenario(
        name="empty",
        summary="no ZONE_DEVICE memory at all",
        machine="pseries",
        proofs=("no_pgmap",),
    ),
}
