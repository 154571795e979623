# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which logs show which known bugs: by the function, the poison, and how it came there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drgn_zonedev.known_bugs.bugs import BUGS, affected
from drgn_zonedev.oops_log.answer import AddressKind, Boot, LoggedAddress, OopsLog
from drgn_zonedev.oops_log.events import Event, EventKind
from drgn_zonedev.oops_log.mentions import Said
from drgn_zonedev.oops_log.poison import Pattern

__all__ = ("known_bugs_of_log",)

_FAULTS = (EventKind.FAULT, EventKind.GENERAL_PROTECTION)
_PROC_PAGE = frozenset({"stable_page_flags", "kpageflags_read", "kpagecount_read"})
_PROC_PAGE_CGROUP = frozenset({"kpagecgroup_read", "page_cgroup_ino"})
_PCP = frozenset({"zone_pcp_disable", "__zone_set_pageset_high_and_batch", "drain_all_pages"})
_HWPOISON = frozenset({"get_hwpoison_page", "memory_failure", "soft_offline_page"})
_COUNTED = frozenset({"update_per_node_mf_stats", "action_result", "memory_failure_dev_pagemap"})
# mf_stats is at the end of pglist_data, which has some 170 KiB.
_MAX_PGLIST_DATA = 1 << 20
_PFN_VALID = frozenset({"pfn_valid", "pfn_section_valid", "pfn_to_online_page"})
_INIT_DEVICE = frozenset({"memmap_init_zone_device", "__init_zone_device_page"})


def known_bugs_of_log(log: OopsLog) -> tuple[str, ...]:
    """Get the slugs of the known bugs that a log shows, and that its kernels can have."""
    found = (slug for boot in log.boots for slug in _of_boot(boot))
    return tuple(dict.fromkeys(found))


def _of_boot(boot: Boot) -> Iterator[str]:
    for event in boot.events:
        faults = [
            a
            for a in boot.addresses
            if event.line <= a.line <= event.last_line and a.role in (Said.FAULT, Said.FAULT_PAGE)
        ]
        for slug, shows in _SIGNATURES.items():
            if (
                shows(boot, event, faults)
                and affected(BUGS[slug], boot.kernel.release) is not False
            ):
                yield slug


Signature = Callable[[Boot, Event, list[LoggedAddress]], bool]


def _path(event: Event) -> frozenset[str]:
    return frozenset((*((event.function,) if event.function else ()), *event.trace[:8]))


def _kpageflags(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    ones = any(a.pattern is Pattern.ALL_ONES for a in faults)
    poisoned = "PagePoisoned" in (event.condition or "") or any(
        p.pattern is Pattern.ALL_ONES and abs(p.line - event.line) < 12 for p in boot.pages
    )
    walks = bool(_path(event) & (_PROC_PAGE | _PROC_PAGE_CGROUP))
    return walks and (ones or (event.kind is EventKind.BUG and poisoned))


def _zone(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    return event.kind in _FAULTS and event.function in _PCP and bool(_path(event) & _HWPOISON)


def _node_of_error(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    if event.function not in _COUNTED or "memory_failure" not in _path(event):
        return False
    poisoned = event.kind is EventKind.BUG and "PagePoisoned" in (event.condition or "")
    no_node = any(4096 <= a.address < _MAX_PGLIST_DATA for a in faults)
    return poisoned or (event.kind is EventKind.FAULT and no_node)


def _not_synchronised(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    if boot.architecture != "x86-64" or event.kind is not EventKind.FAULT:
        return False
    # What initialises struct pages can meet others that are not there.
    kinds = (AddressKind.STRUCT_PAGE, AddressKind.VMEMMAP)
    return any(a.kind in kinds for a in faults) and not _path(event) & (_PROC_PAGE | _PFN_VALID)


def _page_table_check(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    inside = (event.function or "").lstrip("_").startswith("page_table_check")
    return inside and event.kind in (*_FAULTS, EventKind.BUG)


def _ppc64_devdax(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    path = _path(event)
    devdax = any("dax" in name for name in event.trace) or "memremap_pages" in path
    return (
        boot.architecture == "ppc64"
        and event.kind is EventKind.FAULT
        and event.function in _INIT_DEVICE
        and devdax
        and any(a.kind is AddressKind.STRUCT_PAGE for a in faults)
    )


def _usage_race(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    low = any(a.address < 4096 for a in faults)
    return event.kind is EventKind.FAULT and low and event.function in _PFN_VALID


def _copied_references(boot: Boot, event: Event, faults: list[LoggedAddress]) -> bool:
    hugetlb = any("hugetlb" in name or "hugepages" in name for name in event.trace)
    reason = "nonzero _refcount" in (event.condition or "")
    return event.kind is EventKind.BAD_PAGE and reason and hugetlb


_SIGNATURES: dict[str, Signature] = {
    "kpageflags-reads-reserve": _kpageflags,
    "zone-of-reserved-hole": _zone,
    "memory-failure-node": _node_of_error,
    "hugetlb-references-restored": _copied_references,
    "vmemmap-not-synchronised": _not_synchronised,
    "page-table-check-of-device-pages": _page_table_check,
    "ppc64-devdax-optimisation": _ppc64_devdax,
    "section-usage-race": _usage_race,
}
