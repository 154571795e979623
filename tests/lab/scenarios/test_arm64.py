# SPDX-License-Identifier: LGPL-2.1-or-later

"""The scenarios of arm64 make sense with pages of each size."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, load_kernel
from drgn_zonedev.lab.scenarios.arithmetic import MIB
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.verdict.proofs import PROOFS

PAGES = (4096, 16384, 65536)
BUILT = "7.3-arm64-64k"
EACH = [(page, name) for page in PAGES for name in arm64_scenarios(page)]


def test_names_do_not_depend_on_the_size_of_pages() -> None:
    names = {tuple(arm64_scenarios(page)) for page in PAGES}
    assert len(names) == 1


@pytest.mark.parametrize(("page", "name"), EACH)
def test_a_scenario_makes_sense(page: int, name: str) -> None:
    scenario = arm64_scenarios(page)[name]
    assert scenario.name == name
    assert set(scenario.impossible) <= {*ARM64_KERNELS, BUILT}
    assert set(scenario.proofs) <= set(PROOFS)
    expected = scenario.expected
    assert all(start < end for start, end, _ in expected)
    assert all(a.end_pfn <= b.start_pfn for a, b in zip(expected, expected[1:]))
    # RAM ends at 448 MiB behind its beginning, and QEMU has a GiB of it.
    ram_end, memory_end = (1024 + 448) * MIB, 2048 * MIB
    for area in scenario.device_tree:
        assert ram_end <= area.start < area.end <= memory_end
    devices = [r for r in expected if r.case not in ("online", "partial")]
    places = [(a.start // page, a.end // page) for a in scenario.device_tree]
    # The others are no memory of the board's, or a driver takes what the kernel leaves alone.
    places = places or [(0x60000000 // page, 1 << 40)]
    assert all(any(s <= r.start_pfn and r.end_pfn <= e for s, e in places) for r in devices)


def test_neighbours_share_a_page_of_vmemmap_with_larger_pages() -> None:
    first, second = arm64_scenarios(16384)["neighbours"].device_tree
    assert first.end == second.start
    # A page of vmemmap has the struct pages of 256 pages of 16 KiB, or of 1024 of 64 KiB.
    assert first.end % (256 * 16384) == 2 * MIB
    assert first.end % (1024 * 65536) == 2 * MIB
    assert first.start % (1024 * 65536) == 0


@pytest.mark.parametrize(("page", "gone"), [(16384, 2 * MIB), (65536, 62 * MIB)])
def test_a_neighbour_takes_the_rest_of_that_page_along(page: int, gone: int) -> None:
    scenario = arm64_scenarios(page)["neighbour-gone"]
    _, second = scenario.device_tree
    ((start, end, _),) = scenario.unmapped
    assert (start * page, end * page) == (second.start, second.start + gone)


def test_sections_are_larger_with_pages_of_64k() -> None:
    # SECTION_SIZE_BITS is 29 then (arch/arm64/include/asm/sparsemem.h), otherwise 27.
    for page, size in ((4096, 128), (16384, 128), (65536, 512)):
        (head, *_, (_, end, _)) = arm64_scenarios(page)["fsdax-partial"].expected
        assert (end - head.start_pfn) * page == size * MIB


# With larger pages, no device of it is orphaned.
@pytest.mark.parametrize(("page", "name"), [each for each in EACH if each != (65536, "orphan")])
def test_each_section_of_a_device_is_expected_whole(page: int, name: str) -> None:
    scenario = arm64_scenarios(page)[name]
    pages = (512 if page == 65536 else 128) * MIB // page
    for expected in (scenario.expected, scenario.poisoned):
        for pfn in {pfn for start, end, _ in expected for pfn in (start, end - 1)}:
            first = pfn - pfn % pages
            parts = [range(max(s, first), min(e, first + pages)) for s, e, _ in expected]
            assert sum(map(len, parts)) == pages


@pytest.mark.parametrize("name", [*ARM64_KERNELS, BUILT])
def test_the_size_of_pages_is_that_of_the_flavour(name: str, tmp_path: Path) -> None:
    (tmp_path / "kernel.json").write_text('{"release": "6.12.0", "version": "1"}')
    kernel = load_kernel(name, tmp_path)
    assert kernel is not None
    assert kernel.architecture == "arm64"
    assert kernel.page_size == {"16k": 16384, "64k": 65536}.get(name.rpartition("-")[2], 4096)
