# SPDX-License-Identifier: LGPL-2.1-or-later

"""
drgn_zonedev
------------

Which kind of memory is each page frame, is its struct page initialised, and which
PFN walkers of the kernel would misread it?

``from drgn_zonedev import *`` adds everything below to a drgn session. drgn
imports this package at the start of every session, so each name is imported when
it is first used (:pep:`562`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from drgn_zonedev.util.rendering import rendered_by

if TYPE_CHECKING:
    from drgn_zonedev.census.listing import for_each_page_of_kind, page_kinds
    from drgn_zonedev.census.total import page_census
    from drgn_zonedev.classification.classify import classify, classify_pfn
    from drgn_zonedev.explanation.explain import explain
    from drgn_zonedev.kernel.kallsyms import symbol_name
    from drgn_zonedev.kernel.memmap import page_layout, page_pgmap, read_pages
    from drgn_zonedev.kernel.memory_blocks import (
        mem_hotplug_in_progress,
        memory_block_states,
        section_memory_block,
    )
    from drgn_zonedev.kernel.memremap import (
        dev_pagemap_info,
        dev_pagemap_ranges,
        dev_pagemap_type,
        find_dev_pagemap,
        for_each_dev_pagemap,
        get_dev_pagemap,
        percpu_ref_state,
        pgmap_altmap,
        pgmap_is_alive,
        pgmap_pfn_first,
        pgmap_pfn_valid,
        pgmap_vmemmap_shift,
        vmem_altmap_offset,
    )
    from drgn_zonedev.kernel.mmzone import (
        for_each_subsection,
        online_device_section,
        pfn_section_valid,
        pfn_to_online_page,
        pfn_valid,
        section_flags,
        section_subsection_map,
        section_vmemmap_preinit,
        sparsemem_geometry,
        subsection_map_index,
    )
    from drgn_zonedev.kernel.sections import sections
    from drgn_zonedev.kernel.zone_device import pfn_zone_device, pfn_zone_device_reserved
    from drgn_zonedev.kernel.zones import zone_device_spans
    from drgn_zonedev.page_users.find_pins import find_pins
    from drgn_zonedev.pfn_proposal import proposal
    from drgn_zonedev.pfn_walkers import walkers
    from drgn_zonedev.pfn_walkers.kpageflags import kpage_prediction
    from drgn_zonedev.render.results import to_json
    from drgn_zonedev.report import check, for_each_finding
    from drgn_zonedev.verification.verify import verify

# The renderers are imported when the first result is printed.
rendered_by(f"{__name__}.render.results")

_HOME = {
    "check": "report",
    "classify": "classification.classify",
    "classify_pfn": "classification.classify",
    "dev_pagemap_info": "kernel.memremap",
    "dev_pagemap_ranges": "kernel.memremap",
    "dev_pagemap_type": "kernel.memremap",
    "explain": "explanation.explain",
    "find_dev_pagemap": "kernel.memremap",
    "find_pins": "page_users.find_pins",
    "for_each_dev_pagemap": "kernel.memremap",
    "for_each_finding": "report",
    "for_each_page_of_kind": "census.listing",
    "for_each_subsection": "kernel.mmzone",
    "get_dev_pagemap": "kernel.memremap",
    "kpage_prediction": "pfn_walkers.kpageflags",
    "mem_hotplug_in_progress": "kernel.memory_blocks",
    "memory_block_states": "kernel.memory_blocks",
    "online_device_section": "kernel.mmzone",
    "page_census": "census.total",
    "page_kinds": "census.listing",
    "page_layout": "kernel.memmap",
    "page_pgmap": "kernel.memmap",
    "percpu_ref_state": "kernel.memremap",
    "pfn_section_valid": "kernel.mmzone",
    "pfn_to_online_page": "kernel.mmzone",
    "pfn_valid": "kernel.mmzone",
    "pfn_zone_device": "kernel.zone_device",
    "pfn_zone_device_reserved": "kernel.zone_device",
    "pgmap_altmap": "kernel.memremap",
    "pgmap_is_alive": "kernel.memremap",
    "pgmap_pfn_first": "kernel.memremap",
    "pgmap_pfn_valid": "kernel.memremap",
    "pgmap_vmemmap_shift": "kernel.memremap",
    "proposal": "pfn_proposal",
    "read_pages": "kernel.memmap",
    "section_flags": "kernel.mmzone",
    "section_memory_block": "kernel.memory_blocks",
    "section_subsection_map": "kernel.mmzone",
    "section_vmemmap_preinit": "kernel.mmzone",
    "sections": "kernel.sections",
    "sparsemem_geometry": "kernel.mmzone",
    "subsection_map_index": "kernel.mmzone",
    "symbol_name": "kernel.kallsyms",
    "to_json": "render.results",
    "verify": "verification.verify",
    "vmem_altmap_offset": "kernel.memremap",
    "walkers": "pfn_walkers",
    "zone_device_spans": "kernel.zones",
}

__all__ = (
    "check",
    "classify",
    "classify_pfn",
    "dev_pagemap_info",
    "dev_pagemap_ranges",
    "dev_pagemap_type",
    "explain",
    "find_dev_pagemap",
    "find_pins",
    "for_each_dev_pagemap",
    "for_each_finding",
    "for_each_page_of_kind",
    "for_each_subsection",
    "get_dev_pagemap",
    "kpage_prediction",
    "mem_hotplug_in_progress",
    "memory_block_states",
    "online_device_section",
    "page_census",
    "page_kinds",
    "page_layout",
    "page_pgmap",
    "percpu_ref_state",
    "pfn_section_valid",
    "pfn_to_online_page",
    "pfn_valid",
    "pfn_zone_device",
    "pfn_zone_device_reserved",
    "pgmap_altmap",
    "pgmap_is_alive",
    "pgmap_pfn_first",
    "pgmap_pfn_valid",
    "pgmap_vmemmap_shift",
    "proposal",
    "read_pages",
    "section_flags",
    "section_memory_block",
    "section_subsection_map",
    "section_vmemmap_preinit",
    "sections",
    "sparsemem_geometry",
    "subsection_map_index",
    "symbol_name",
    "to_json",
    "verify",
    "vmem_altmap_offset",
    "walkers",
    "zone_device_spans",
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
