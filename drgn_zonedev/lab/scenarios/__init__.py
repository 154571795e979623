# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What guests are made to do with their ZONE_DEVICE memory: one declaration per scenario.

``catalogue.py`` holds the declarations, ``layout.py`` the arithmetic that says what must come of
them, ``hardware.py`` and ``steps.py`` what they are made of, ``scenario.py`` what one is.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import Expected
from drgn_zonedev.lab.scenarios.catalogue import SCENARIOS
from drgn_zonedev.lab.scenarios.scenario import GuestCommand, QmpCommand, Scenario

__all__ = ("SCENARIOS", "Expected", "GuestCommand", "QmpCommand", "Scenario")
