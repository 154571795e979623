# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Check that a guest is in the state of its scenario. If not, agreement with it proves nothing.

Each proof checks the kernel, or facts in the report that the ranges do not show, and returns
what is wrong, or an empty string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.scenarios.arithmetic import GIB, MIB, PAGE

if TYPE_CHECKING:
    from drgn import Program

    from drgn_zonedev.lab.machine.boot import Guest
    from drgn_zonedev.lab.scenarios import Scenario
    from drgn_zonedev.model import Finding, Report

__all__ = ("PROOFS", "failed_proofs")


@dataclass(frozen=True)
class _Case:
    scenario: Scenario
    prog: Program
    report: Report


def failed_proofs(guest: Guest, prog: Program, report: Report) -> Iterator[str]:
    """
    Say which proofs of the guest's scenario fail.

    :raises NotPossible: if a proof shows that this kernel does not support the scenario
    """
    case = _Case(guest.scenario, prog, report)
    yield from filter(None, (PROOFS[name](case) for name in guest.scenario.proofs))


def _compound(order: int, case: _Case) -> str:
    # Compound devmaps exist since v5.17.
    if not case.report.kernel.features["vmemmap_shift"]:
        return ""
    orders = [pgmap.vmemmap_shift for pgmap in case.report.pgmaps]
    return "" if orders == [order] else f"vmemmap_shift is {orders}, not [{order}]"


def _pgmaps(count: int, case: _Case) -> str:
    found = len(case.report.pgmaps)
    return "" if found == count else f"{found} pgmaps, not {count}"


def _findings(case: _Case, slug: str) -> list[Finding]:
    return [finding for finding in case.report.findings if finding.slug == slug]


def _dirty_reserve(case: _Case) -> str:
    from drgn import sizeof

    from drgn_zonedev.kernel.memmap import poisons_struct_pages

    notes = [e.note for f in _findings(case, "case5-reserved") for e in f.evidence]
    byte = "ff" if poisons_struct_pages(case.prog) else "a5"
    dirt = " ".join([byte * 8] * (sizeof(case.prog.type("struct page")) // 8))
    return "" if dirt in notes else f"the struct pages of the reserve do not read 0x{byte}"


def _preinit_section(case: _Case) -> str:
    from drgn_zonedev.kernel.mmzone import section_flags
    from drgn_zonedev.kernel.sections import sections

    flag = section_flags(case.prog).preinit
    if not flag:
        raise NotPossible("this kernel has no SECTION_IS_VMEMMAP_PREINIT")
    found = any(word & flag for word in sections(case.prog).word.tolist())
    return "" if found else "no section has SECTION_IS_VMEMMAP_PREINIT"


def _five_levels(case: _Case) -> str:
    if "__pgtable_l5_enabled" not in case.prog:
        raise NotPossible("this kernel was built without CONFIG_X86_5LEVEL")
    # With four levels, the kernel's half of the addresses begins at 0xffff800000000000.
    return "" if case.report.kernel.vmemmap < 0xFFFF << 48 else "the guest has four-level tables"


def _done(case: _Case) -> int:
    """Count the struct pages that memmap_init_zone_device() has initialised."""
    from drgn_zonedev.verification.hazards import counted_pages
    from drgn_zonedev.verification.patterns import Contents

    for finding in _findings(case, "case4-initializing"):
        counts = {e.what: e.value or 0 for e in finding.evidence}
        return counts.get(counted_pages(Contents.INITIALIZED, 0).what, 0)
    return -1


def _nothing_done(case: _Case) -> str:
    done = _done(case)
    return "" if done == 0 else f"{done} pages are initialised already"


def _done_up_to_watch(case: _Case) -> str:
    data = next(e for e in case.scenario.expected if e.case == "initializing")
    assert case.scenario.watch_pfn is not None
    wanted, done = case.scenario.watch_pfn - data.start_pfn, _done(case)
    return "" if done == wanted else f"{done} pages are initialised, not {wanted}"


def _pages_in_use(case: _Case) -> str:
    # Both kinds of DAX set page->mapping of a mapped page. In tails, it is a poison value
    # instead of an address.
    from drgn import offsetof

    from drgn_zonedev.kernel.memmap import Pages, read_pages

    column = offsetof(case.prog.type("struct page"), "mapping") // 8
    for pgmap in case.report.pgmaps:
        used = 0
        for start, end in ((r.start_pfn, r.end_pfn) for r in pgmap.ranges):
            for pages in read_pages(case.prog, start, end):
                if isinstance(pages, Pages):
                    used += int((pages.words[:, column] >= np.uint64(0xFF << 56)).sum())
        if not used:
            return f"no page of the {pgmap.type} pgmap is in use"
    return ""


def _reserved_without_zone(case: _Case) -> str:
    from drgn.helpers.linux.mmzone import NODE_DATA

    from drgn_zonedev.kernel.mmzone import pfn_to_online_page

    node = NODE_DATA(case.prog, 0)
    end = (node.node_start_pfn + node.node_spanned_pages).value_()
    if pfn_to_online_page(case.prog, end):
        return ""
    return f"PFN {end:#x}, the first that no zone spans, has no struct page"


def _require_numa(case: _Case) -> None:
    if "contig_page_data" in case.prog:
        raise NotPossible("this kernel is built without CONFIG_NUMA")


def _nodes(count: int, case: _Case) -> str:
    from drgn.helpers.linux.mmzone import for_each_online_pgdat

    _require_numa(case)
    found = sum(bool(node.node_present_pages) for node in for_each_online_pgdat(case.prog))
    return "" if found == count else f"{found} nodes have memory, not {count}"


def _efi(case: _Case) -> str:
    # EFI_BOOT is bit 0.
    return "" if case.prog["efi"].flags & 1 else "the kernel was not booted by EFI"


def _huge_pages(case: _Case) -> str:
    count = case.prog["hugetlb_max_hstate"].value_()
    empty = [h.order.value_() for h in case.prog["hstates"][:count] if not h.nr_huge_pages]
    if count != 2 or empty:
        return f"{count} sizes of hugepages, of which orders {empty} have no page"
    number = case.prog.constant("NR_ANON_THPS").value_()
    if case.prog["vm_node_stat"][number].counter.value_() > 0:
        return ""
    return "there is no transparent hugepage"


def _lost_hugepage(case: _Case) -> str:
    number = case.prog.constant("NR_FREE_PAGES").value_()
    free = case.prog["vm_zone_stat"][number].counter.value_()
    used = case.prog["_totalram_pages"].counter.value_() - free
    # Nothing else takes as much as the tails of a hugepage of 1 GiB.
    return "" if used > GIB // PAGE * 63 // 64 else f"only {used} pages are not free"


def _self_hosted(case: _Case) -> str:
    from drgn.helpers.linux.mm import pfn_to_page

    if "PG_vmemmap_self_hosted" not in case.prog:
        raise NotPossible("this kernel has no PG_vmemmap_self_hosted")
    page = pfn_to_page(case.prog, case.scenario.expected[0].start_pfn)
    flags = page.flags.f if hasattr(page.flags, "f") else page.flags
    if flags >> case.prog.constant("PG_vmemmap_self_hosted").value_() & 1:
        return ""
    return "the first page of the first block does not hold its memmap"


def _logically_offline(case: _Case) -> str:
    from drgn_zonedev.kernel.memmap import Pages, read_pages
    from drgn_zonedev.kernel.page_types import page_types

    types, found = page_types(case.prog), 0
    for area in (area for area in case.scenario.expected if area.case == "online"):
        for pages in read_pages(case.prog, area.start_pfn, area.end_pfn):
            if isinstance(pages, Pages):
                found += int(types.has(pages, "offline").sum())
    wanted = 64 * MIB // PAGE
    return "" if found == wanted else f"{found} pages are PageOffline(), not {wanted}"


def _handed_out(case: _Case) -> str:
    # The pgmap has a reference for each, and one of its own.
    wanted = 1
    for words in (step[1:] for step in case.scenario.steps):
        if words[:1] == ("take",):
            wanted += 1 << int(words[2])
        elif words[:1] == ("put",):
            wanted -= 1 << int(words[2])
    wanted += sum(int(step[2]) for step in case.scenario.steps if step[0] == "migrate")
    found = [pgmap.ref.count for pgmap in case.report.pgmaps]
    return "" if found == [wanted] else f"references of pgmaps are {found}, not [{wanted}]"


def _pages_held(case: _Case) -> str:
    held = sum(step[1:2] == ("hold",) for step in case.scenario.steps)
    (ref,) = (pgmap.ref for pgmap in case.report.pgmaps)
    # Until v5.17, each page in use has another reference.
    if ref.state == "dead" and ref.count in (held, 2 * held):
        return ""
    return f"the pgmap is {ref.state} with {ref.count} references, not dead with {held}"


def _p2pdma_in_use(case: _Case) -> str:
    (step,) = (step for step in case.scenario.steps if step[0] == "map_p2pmem")
    pages = sum(e.end_pfn - e.start_pfn for e in case.scenario.expected if e.case == "device")
    # The driver of the controller keeps a queue there.
    wanted = 1 + pages + int(step[1]) // int(case.prog["PAGE_SIZE"]) + 1
    found = [pgmap.ref.count for pgmap in case.report.pgmaps]
    return "" if found == [wanted] else f"references of pgmaps are {found}, not [{wanted}]"


def _device_on_node_1(case: _Case) -> str:
    from drgn_zonedev.classification.reading import take_snapshot

    _require_numa(case)
    nodes = sorted(take_snapshot(case.prog).zone_device_spans)
    return "" if nodes == [1] else f"ZONE_DEVICE is on the nodes {nodes}, not [1]"


def _fs_dax(case: _Case) -> str:
    types = [pgmap.type for pgmap in case.report.pgmaps]
    return "" if types == ["MEMORY_DEVICE_FS_DAX"] else f"pgmaps are of the types {types}"


def _poisoned(case: _Case) -> str:
    from drgn.helpers.linux.mm import pfn_to_page

    bit = case.prog.constant("PG_hwpoison").value_()
    (step,) = (step for step in case.scenario.steps if step[0] == "hard_offline")
    for pfn in (int(word, 16) for word in step[1:]):
        # For a page of 2 MiB, some kernels mark the head instead.
        pages = (pfn_to_page(case.prog, p) for p in (pfn, pfn & ~0x1FF))
        flags = [page.flags.f if hasattr(page.flags, "f") else page.flags for page in pages]
        if not any(word >> bit & 1 for word in flags):
            return f"PFN {pfn:#x} is not poisoned"
    return ""


PROOFS: dict[str, Callable[[_Case], str]] = {
    "compound_2m": partial(_compound, 9),
    "device_on_node_1": _device_on_node_1,
    "efi": _efi,
    "four_nodes": partial(_nodes, 4),
    "fs_dax": _fs_dax,
    "handed_out": _handed_out,
    "huge_pages": _huge_pages,
    "lost_hugepage": _lost_hugepage,
    "logically_offline": _logically_offline,
    "reserved_without_zone": _reserved_without_zone,
    "self_hosted": _self_hosted,
    "two_nodes": partial(_nodes, 2),
    "compound_1g": partial(_compound, 18),
    "dirty_reserve": _dirty_reserve,
    "done_up_to_watch": _done_up_to_watch,
    "five_levels": _five_levels,
    "four_pgmaps": partial(_pgmaps, 4),
    "no_pgmap": partial(_pgmaps, 0),
    "one_pgmap": partial(_pgmaps, 1),
    "p2pdma_in_use": _p2pdma_in_use,
    "pages_held": _pages_held,
    "pages_in_use": _pages_in_use,
    "poisoned": _poisoned,
    "nothing_done": _nothing_done,
    "preinit_section": _preinit_section,
}
