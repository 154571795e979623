# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Rules
-----

What the kernel promises of a ``struct page``, one word at a time, as a table.

:mod:`.fastpath` and :mod:`.deviations` compare struct pages with the table, ``pfn``
shows each field next to the rule about it, and ``docs/findings.md`` prints it.
"""

from __future__ import annotations

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.device_rules import DEVICE_RULES
from drgn_zonedev.verification.promises import (
    Area,
    DevicePages,
    MetadataPages,
    Promise,
    RamPages,
    periodic_areas,
)
from drgn_zonedev.verification.ram_rules import RAM_RULES
from drgn_zonedev.verification.ram_window import RAM_AREAS
from drgn_zonedev.verification.rule import Rule

__all__ = ("NEVER_WRITTEN", "RULES", "rules_about", "rules_among")

RULES: tuple[Rule, ...] = DEVICE_RULES + RAM_RULES
"""Every promise, in the order in which they count."""

NEVER_WRITTEN: dict[type[Promise], str] = {
    DevicePages: "device-page-uninitialized",
    MetadataPages: "metadata-page-uninitialized",
    RamPages: "ram-page-uninitialized",
}
"""
What is found where a page breaks rules of both ``Role.ORIGIN`` and ``Role.LINK``; in RAM,
where it holds nothing but a pattern.
"""


def rules_about(layout: PageLayout, promise: Promise) -> tuple[Rule, ...]:
    """Get the rules that hold for the pages of a promise, in the order in which they count."""
    return rules_among(RULES, layout, promise)


def rules_among(table: tuple[Rule, ...], layout: PageLayout, promise: Promise) -> tuple[Rule, ...]:
    """Like :func:`rules_about()`, of any table."""
    areas = _areas(layout, promise)
    return tuple(
        rule
        for rule in table
        if not areas.isdisjoint(rule.areas)
        and rule.word.offset(layout, promise) is not None
        and (rule.condition is None or rule.condition.holds(layout, promise))
    )


def _areas(layout: PageLayout, promise: Promise) -> frozenset[Area]:
    if isinstance(promise, RamPages):
        return frozenset(RAM_AREAS)
    _, areas = periodic_areas(layout, promise)
    return frozenset(areas)
