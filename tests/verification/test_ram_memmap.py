# SPDX-License-Identifier: LGPL-2.1-or-later

"""Pages that store the memmap of their memory block: their struct pages are those of RAM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program
from support.fakekernel import FakeKernel
from support.fakekernel.ram import COUNTS, FLAGS, LINK, UNMAPPED

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.model import Case, PageCounts
from drgn_zonedev.report import check

START, HEAD, PAGES = 0x200000, 512, 0x8000
each_that_stores = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])


def with_block(layout: str, *, online: bool = True) -> FakeKernel:
    """RAM from boot, and a hotplugged block as mhp_init_memmap_on_memory() leaves it."""
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, PAGES)
    kernel.memory_block(0)
    kernel.section(START // PAGES, online=online)
    kernel.ram_pages(START, START + PAGES, "ZONE_NORMAL")
    state = "MEM_ONLINE" if online else "MEM_OFFLINE"
    kernel.memory_block(START // PAGES, state, zone="ZONE_NORMAL", memmap_pages=HEAD)
    self_hosted = 1 << kernel.layout.constant("PG_owner_priv_1")
    # Reserved as well until v6.11.
    reserved = 0 if layout == "7.2" else 1 << kernel.layout.constant("PG_reserved")
    for pfn in range(START, START + HEAD):
        flags = kernel.page_word(pfn, FLAGS) | self_hosted | reserved
        kernel.poke_page_word(pfn, FLAGS, flags)
    kernel.set_variable("max_pfn", START + PAGES)
    return kernel


def node(kernel: FakeKernel, pfn: int) -> None:
    kernel.poke_page_word(pfn, FLAGS, kernel.page_word(pfn, FLAGS) | 37 << kernel.node_shift)


def device(kernel: FakeKernel, pfn: int) -> None:
    zone = kernel.layout.constant("ZONE_DEVICE") << kernel.zone_shift
    low = kernel.page_word(pfn, FLAGS) % (1 << kernel.zone_shift)
    kernel.poke_page_word(pfn, FLAGS, low | zone)


def zone(kernel: FakeKernel, pfn: int) -> None:
    beyond = kernel.layout.constant("__MAX_NR_ZONES") << kernel.zone_shift
    low = kernel.page_word(pfn, FLAGS) % (1 << kernel.zone_shift)
    kernel.poke_page_word(pfn, FLAGS, low | beyond)


def wipe(kernel: FakeKernel, pfn: int) -> None:
    kernel.fill_pages(pfn, pfn + 1, 0xFF)


def link(kernel: FakeKernel, pfn: int) -> None:
    kernel.poke_page_word(pfn, LINK, kernel.page_word(pfn, LINK) | 1)


def references(kernel: FakeKernel, pfn: int) -> None:
    kernel.poke_page_word(pfn, COUNTS, -3 % (1 << 32) << 32 | UNMAPPED)


Spoil = Callable[[FakeKernel, int], None]
_WORDS: tuple[tuple[Spoil, str], ...] = (
    (node, "ram-page-node"),
    (device, "ram-page-device"),
    (wipe, "ram-page-uninitialized"),
    (link, "ram-stray-tail"),
    (references, "ram-page-refcount"),
)


def found(prog: Program, pfns: tuple[int, int] | None = None) -> list[tuple[str, int, int]]:
    report = check(prog, pfns=pfns) if pfns else check(prog)
    assert report.unjudged == ()
    return [(f.slug, f.start_pfn, f.end_pfn) for f in report.findings]


@each_that_stores
def test_healthy_pages_that_store_the_memmap_are_verified(layout: str) -> None:
    report = check(with_block(layout).program())
    assert report.findings == ()
    assert report.coverage.by_case[Case.METADATA] == PageCounts(verified=HEAD)


@each_that_stores
@pytest.mark.parametrize(("spoil", "slug"), _WORDS, ids=lambda each: getattr(each, "__name__", ""))
def test_damaged_page_that_stores_the_memmap_is_found(layout: str, spoil: Spoil, slug: str) -> None:
    for pfn in (START, START + 77, START + HEAD - 1):
        kernel = with_block(layout)
        spoil(kernel, pfn)
        prog = kernel.program()
        assert found(prog) == [(slug, pfn, pfn + 1)]
        assert found(prog, (pfn, pfn + 1)) == [(slug, pfn, pfn + 1)]
        assert found(prog, (pfn + 1, pfn + 9)) == []
        explanation = explain(prog, pfn)
        assert [f.slug for f in explanation.findings] == [slug]
        assert f"promise is broken: {slug}" in explanation.verdict


@each_that_stores
def test_zone_that_does_not_exist_is_found_where_the_memmap_is_stored(layout: str) -> None:
    # Before v6.11, the pages are reserved.
    slug = "ram-page-zone" if layout == "7.2" else "ram-hole-zone"
    kernel = with_block(layout)
    zone(kernel, START + 5)
    assert found(kernel.program()) == [(slug, START + 5, START + 6)]


@each_that_stores
def test_memmap_of_an_offline_block_is_promised_nothing(layout: str) -> None:
    kernel = with_block(layout, online=False)
    for pfn, (spoil, _) in enumerate(_WORDS, START):
        spoil(kernel, pfn)
    assert found(kernel.program()) == []


@each_that_stores
def test_walkers_that_ask_for_the_zone_meet_pages_that_store_the_memmap(layout: str) -> None:
    kernel = with_block(layout)
    for pfn in (START + 5, START + HEAD + 5):
        zone(kernel, pfn)
    prog = kernel.program()
    stored, others = (
        {walker.name: walker for walker in explain(prog, START + first).walkers}
        for first in (5, HEAD + 5)
    )
    assert stored["memory-failure"] == others["memory-failure"]
    assert explain(prog, START + 6).walkers == ()
