# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``zonedev kernel`` knows of rules: those of devices, and those of RAM."""

from __future__ import annotations

import pytest
from support.fakekernel import LAYOUTS
from support.layoutmachine import layout_machine

from drgn_zonedev.render.kernel_knowledge import kernel_knowledge_text
from drgn_zonedev.verification.device_rules import DEVICE_RULES
from drgn_zonedev.verification.kernel_knowledge import kernel_knowledge
from drgn_zonedev.verification.ram_rules import RAM_RULES

WITHOUT_ZONE_DEVICE = "x86-64-6.19-no-zone-device"
RAM = {rule.finding for rule in RAM_RULES}
NO_DEVICES = "none about device memory: there is none"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rules_are_those_of_ram_and_of_devices(layout: str) -> None:
    known = kernel_knowledge(layout_machine(layout).kernel.program())
    # page->memcg_data came in v5.11.
    absent = {"ram-free-memcg"} if layout == "5.10" else set()
    assert {rule.finding for rule in known.rules if rule.memory == "RAM"} == RAM - absent
    others = {rule.finding for rule in known.rules if rule.memory != "RAM"}
    assert others
    assert others <= {rule.finding for rule in DEVICE_RULES}
    assert NO_DEVICES not in kernel_knowledge_text(known)


def test_rules_of_a_kernel_without_zone_device_are_those_of_ram() -> None:
    # It has no memory controller for pages either.
    known = kernel_knowledge(layout_machine(WITHOUT_ZONE_DEVICE).kernel.program())
    assert {(rule.memory, rule.finding) for rule in known.rules} == {
        ("RAM", finding) for finding in RAM - {"ram-free-memcg"}
    }
    assert NO_DEVICES in kernel_knowledge_text(known)
