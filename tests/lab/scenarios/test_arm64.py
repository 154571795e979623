# SPDX-License-Identifier: LGPL-2.1-or-later

"""The scenarios of arm64 make sense with pages of either size."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, load_kernel
from drgn_zonedev.lab.scenarios.arithmetic import MIB
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.verdict.proofs import PROOFS

PAGES = (4096, 16384)
EACH = [(page, name) for page in PAGES for name in arm64_scenarios(page)]


def test_names_do_not_depend_on_the_size_of_pages() -> None:
    assert list(arm64_scenarios(4096)) == list(arm64_scenarios(16384))


@pytest.mark.parametrize(("page", "name"), EACH)
def test_a_scenario_makes_sense(page: int, name: str) -> None:
    scenario = arm64_scenarios(page)[name]
    assert scenario.name == name
    assert set(scenario.impossible) <= set(ARM64_KERNELS)
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


def test_neighbours_share_a_page_of_vmemmap_with_pages_of_16k() -> None:
    first, second = arm64_scenarios(16384)["neighbours"].device_tree
    assert first.end == second.start
    # A page of vmemmap has the struct pages of 256 pages of 16 KiB.
    assert first.end % (256 * 16384) == 2 * MIB


@pytest.mark.parametrize("name", ARM64_KERNELS)
def test_the_size_of_pages_is_that_of_the_flavour(name: str, tmp_path: Path) -> None:
    (tmp_path / "kernel.json").write_text('{"release": "6.12.0", "version": "1"}')
    kernel = load_kernel(name, tmp_path)
    assert kernel is not None
    assert kernel.architecture == "arm64"
    assert kernel.page_size == (16384 if name.endswith("-16k") else 4096)
