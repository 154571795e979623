# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The scenarios: what guests do with their ZONE_DEVICE memory.

``catalogue.py`` declares them with the parts in ``hardware.py`` and ``steps.py``, ``arithmetic.py``
computes the expected results, and ``scenario.py`` defines what a scenario is.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import Expected
from drgn_zonedev.lab.scenarios.catalogue import SCENARIOS
from drgn_zonedev.lab.scenarios.scenario import GuestCommand, QmpCommand, Scenario

__all__ = ("SCENARIOS", "Expected", "GuestCommand", "QmpCommand", "Scenario")
