# SPDX-License-Identifier: LGPL-2.1-or-later

"""For each bug that logs show: a log that does, one that does not, and one of a fixed kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drgn_zonedev.known_bugs.bugs import BUGS
from drgn_zonedev.known_bugs.in_findings import SIGNATURES
from drgn_zonedev.known_bugs.in_logs import known_bugs_of_log
from drgn_zonedev.oops_log.answer import read_log

PAGE = "ffffea0000900000"


def x86(fault: str, function: str, *trace: str, release: str) -> str:
    calls = "\n".join(f" {name}+0x10/0x20" for name in trace)
    return (
        f"{fault}\nOops: 0000 [#1] SMP KASAN\n"
        f"CPU: 1 PID: 7 Comm: cat Not tainted {release} #1\n"
        f"RIP: 0010:{function}+0x27/0x3c0\nRAX: 0000000000000001 RBX: 0000000000000002\n"
        f"Call Trace:\n{calls}\n---[ end trace 0000000000000000 ]---\n"
    )


def ppc64(function: str, *trace: str, release: str) -> str:
    calls = "\n".join(f"[c000000012f37700] [c000000000410000] {name}+0x84/0x1f0" for name in trace)
    return (
        "BUG: Unable to handle kernel data access on write at 0xc00c000000400030\n"
        "LE PAGE_SIZE=64K MMU=Hash SMP NR_CPUS=2048 NUMA pSeries\n"
        f"CPU: 3 PID: 18 Comm: ndctl Not tainted {release} #1\n"
        "NIP:  c00000000046a7c8 LR: c00000000046b0a4 CTR: c0000000004a1d20\n"
        "DAR: c00c000000400030 DSISR: 40000000 IRQMASK: 0\n"
        f"NIP [c00000000046a7c8] {function}+0xe8/0x220\nCall Trace:\n{calls}\n"
    )


def bad_page(reason: str, *trace: str, release: str) -> str:
    calls = "\n".join(f" {name}+0x10/0x20" for name in trace)
    return (
        "BUG: Bad page state in process sh  pfn:140040\n"
        "page: refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x140040\n"
        f"page dumped because: {reason}\n"
        f"CPU: 0 UID: 0 PID: 1 Comm: sh Not tainted {release} #1\n"
        f"Call Trace:\n <TASK>\n{calls}\n </TASK>\n"
    )


FAULT = f"BUG: unable to handle page fault for address: {PAGE}"
ONES = "BUG: unable to handle page fault for address: fffffffffffffffe"
NULL = "BUG: kernel NULL pointer dereference, address: 0000000000000010"
OTHER = "BUG: unable to handle page fault for address: ffffffffb1f3c0d8"
# mf_stats of 7.3 is at 0x2b078 of pglist_data, and failed at 0x10 of that.
NO_NODE = "BUG: unable to handle page fault for address: 000000000002b088"
BUG_ON = "kernel BUG at mm/page_table_check.c:141!"

Log = Callable[[str], str]

# A log that shows the bug, one that looks alike, and releases with and without it.
LOGS: dict[str, tuple[Log, Log, tuple[str, str]]] = {
    "kpageflags-reads-reserve": (
        lambda release: x86(ONES, "stable_page_flags", "kpageflags_read", release=release),
        lambda release: x86(ONES, "isolate_migratepages_block", "compact_zone", release=release),
        ("5.2.0", "5.4.0"),
    ),
    "zone-of-reserved-hole": (
        lambda release: x86(
            OTHER,
            *("__zone_set_pageset_high_and_batch", "zone_pcp_disable"),
            *("get_hwpoison_page", "memory_failure"),
            release=release,
        ),
        lambda release: x86(
            OTHER, "__zone_set_pageset_high_and_batch", "offline_pages", release=release
        ),
        ("7.3.4", "5.4.1"),
    ),
    "memory-failure-node": (
        lambda release: x86(NO_NODE, "action_result", "memory_failure", release=release),
        lambda release: x86(OTHER, "action_result", "memory_failure", release=release),
        ("7.3.4", "6.1.192"),
    ),
    "hugetlb-references-restored": (
        lambda release: bad_page(
            "nonzero _refcount",
            *("bad_page", "__free_frozen_pages", "__update_and_free_hugetlb_folio"),
            *("update_and_free_pages_bulk", "__nr_hugepages_store_common"),
            release=release,
        ),
        lambda release: bad_page(
            "nonzero _refcount", "bad_page", "__free_frozen_pages", "put_page", release=release
        ),
        ("7.3.4", "6.18.3"),
    ),
    "vmemmap-not-synchronised": (
        lambda release: x86(FAULT, "folio_add_lru", "do_anonymous_page", release=release),
        lambda release: x86(OTHER, "folio_add_lru", "do_anonymous_page", release=release),
        ("6.1.150", "6.1.151"),
    ),
    "page-table-check-of-device-pages": (
        lambda release: x86(BUG_ON, "page_table_check_set", "insert_pfn", release=release),
        lambda release: x86(BUG_ON, "insert_pfn", "dax_iomap_fault", release=release),
        ("6.1.95", "6.1.96"),
    ),
    "ppc64-devdax-optimisation": (
        lambda release: ppc64(
            "memmap_init_zone_device", "memremap_pages", "dev_dax_probe", release=release
        ),
        lambda release: ppc64("memmap_init_range", "memremap_pages", release=release),
        ("6.1.183", "6.1.184"),
    ),
    "section-usage-race": (
        lambda release: x86(NULL, "pfn_section_valid", "isolate_freepages", release=release),
        lambda release: x86(NULL, "kmem_cache_alloc", "isolate_freepages", release=release),
        ("6.1.75", "6.1.76"),
    ),
}


def found(log: str) -> tuple[str, ...]:
    return known_bugs_of_log(read_log(log.encode()))


@pytest.mark.parametrize("slug", LOGS)
def test_a_log_that_shows_it(slug: str) -> None:
    shows, _, (release, _) = LOGS[slug]
    assert slug in found(shows(release))


@pytest.mark.parametrize("slug", LOGS)
def test_a_log_that_looks_alike(slug: str) -> None:
    _, alike, (release, _) = LOGS[slug]
    assert slug not in found(alike(release))


@pytest.mark.parametrize("slug", LOGS)
def test_a_log_of_a_kernel_that_does_not_have_it(slug: str) -> None:
    shows, _, (_, fixed) = LOGS[slug]
    assert slug not in found(shows(fixed))


def test_every_bug_has_a_signature() -> None:
    assert {*LOGS, *(signature.bug for signature in SIGNATURES)} == set(BUGS)
