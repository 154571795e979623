# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Findings
-----------------

Every slug that a finding can have. Slugs are stable: scripts name them in
``--fail-on``.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Severity

__all__ = ("KINDS", "Kind")


@dataclass(frozen=True)
class Kind:
    """What all findings with one slug have in common."""

    slug: str
    severity: Severity
    message: str


_ERRORS = {
    "device-page-uninitialized": "memmap_init_zone_device() never wrote these struct pages, "
    "although nr_range says that it was through",
    "device-page-zone": "the pgmap claims these pages, but they are not in ZONE_DEVICE",
    "device-page-node": "these device pages belong to a node whose ZONE_DEVICE is elsewhere",
    "device-page-pgmap": "these device pages do not lead to the pgmap that pgmap_array holds",
    "device-head-flag": "the heads of compound device pages lack PG_head",
    "device-tail-link": "tails of compound device pages do not link to their head",
    "metadata-page-uninitialized": "memmap_init_range() never wrote these struct pages",
    "metadata-page-zone": "pages of the altmap are not in ZONE_DEVICE",
    "metadata-page-link": "pages of the altmap are on a list, or hold a pgmap",
}

_WARNINGS = {
    "case3-partial": "not covered by the device that has the rest of the section",
    "case4-initializing": "claimed by a pgmap whose memmap is not initialised yet",
    "case5-reserved": "reserved for the driver in front of the altmap: no kernel ever "
    "initialises these struct pages",
    "collision-untainted": "device memory in an online section without "
    "SECTION_TAINT_ZONE_DEVICE: pfn_to_online_page() takes it for RAM",
    "ghost-pages": "struct pages of a device that is gone: valid PFNs with dangling pgmaps",
    "orphan-section": "left behind by a memremap_pages() that failed: valid PFNs that nobody "
    "initialises",
    "teardown": "the pgmap is dying: get_dev_pagemap() fails, but the sections may still be there",
}

KINDS = {
    slug: Kind(slug, severity, message)
    for severity, messages in ((Severity.ERROR, _ERRORS), (Severity.WARNING, _WARNINGS))
    for slug, message in messages.items()
}
"""All kinds of findings by slug."""
