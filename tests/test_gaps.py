# SPDX-License-Identifier: LGPL-2.1-or-later

"""Arrays that cannot be read: what depends on them is unknown, and nothing else."""

from __future__ import annotations

from support.fakekernel import FakeKernel, collision, partial
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.model import Case, Range
from drgn_zonedev.report import check


def head(kernel: FakeKernel, address: int) -> int:
    return int.from_bytes(kernel.memory.read(address + 8, 8), "little") - 2


def cases(kernel: FakeKernel) -> list[tuple[int, int, Case]]:
    return [(r.start_pfn, r.end_pfn, r.case) for r in classify(kernel.program())]


def reasons(ranges: list[Range]) -> set[str]:
    return {r.reason for r in ranges if r.case is Case.UNKNOWN}


@each_layout
def test_without_pgmap_array_only_plain_ram_is_known(layout: str) -> None:
    kernel = collision(layout)
    root = head(kernel, kernel.pgmap_array.address)
    kernel.hide(root, 576)
    online = Case.ONLINE
    if layout == "5.10":
        # It has no taint, so that any section may be shared with a device.
        online = Case.UNKNOWN
        assert cases(kernel) == [(0, 0x40000, Case.UNKNOWN)]
    else:
        assert cases(kernel) == [
            (0, 0x20000, online),
            (0x20000, 0x30000, Case.UNKNOWN),
            (0x30000, 0x40000, online),
        ]
    assert {r[:22] for r in reasons(classify(kernel.program()))} == {"pgmap_array cannot be "}


@each_layout
def test_report_says_which_node_of_pgmap_array_failed(layout: str) -> None:
    kernel = collision(layout)
    root = head(kernel, kernel.pgmap_array.address)
    kernel.hide(root, 576)
    report = check(kernel.program())
    gap = [u for u in report.unjudged if "pgmap_array" in u.reason]
    assert [(u.start_pfn, u.end_pfn) for u in gap] == [(0, 1 << 34)]
    assert f"{root:#x}" in gap[0].reason
    assert report.pgmaps == ()
    # Nothing is held against memory that nobody could judge.
    assert [f for f in report.findings if f.severity.name == "ERROR"] == []


@each_layout
def test_damaged_part_of_pgmap_array_leaves_the_rest_judged(layout: str) -> None:
    kernel = partial(layout)
    before = cases(kernel)
    other = kernel.pgmap((0x200000, 0x200040), type="MEMORY_DEVICE_GENERIC")
    root = head(kernel, kernel.pgmap_array.address)
    # The slot of the root with the other one's PFNs leads nowhere.
    shift = kernel.memory.read(root, 1)[0]
    slot = root + 40 + 8 * (0x200000 >> shift)
    assert kernel.memory.read(slot, 8) != bytes(8)
    kernel.poke(slot, (0xDEAD000000000102).to_bytes(8, "little"))
    assert cases(kernel) == before
    snapshot = take_snapshot(kernel.program())
    assert other not in {p.address for p in snapshot.pgmaps}
    assert snapshot.pgmap_array_gaps == ((0x200000, 0x200000 + (1 << shift)),)


@each_layout
def test_pgmap_that_is_found_elsewhere_still_covers_a_gap(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), (0x80000, 0x88000), type="MEMORY_DEVICE_GENERIC")
    kernel.section(8)
    kernel.section(16)
    kernel.device_pages(0x40000, 0x48000, pgmap)
    kernel.device_pages(0x80000, 0x88000, pgmap)
    expected = [(0x40000, 0x48000, Case.DEVICE), (0x80000, 0x88000, Case.DEVICE)]
    assert cases(kernel) == expected
    root = head(kernel, kernel.pgmap_array.address)
    assert kernel.memory.read(root, 1)[0] == 18
    # 0x80000 is at slot 2 of the root.
    kernel.poke(root + 40 + 16, (0xDEAD000000000102).to_bytes(8, "little"))
    assert cases(kernel) == expected
    slugs = {f.slug for f in check(kernel.program()).findings}
    assert "pgmap-array-missing" not in slugs


@each_layout
def test_without_memory_blocks_only_what_is_not_online_is_unknown(layout: str) -> None:
    kernel = collision(layout)
    kernel.section(8)
    kernel.memory_block(8, "MEM_OFFLINE")
    before = cases(kernel)
    assert before[-1] == (0x40000, 0x48000, Case.OFFLINE)
    kernel.hide(kernel.memory_blocks.address, 16)
    assert cases(kernel) == [*before[:-1], (0x40000, 0x48000, Case.UNKNOWN)]
    unjudged = check(kernel.program()).unjudged
    assert [(u.start_pfn, u.end_pfn) for u in unjudged if "memory_blocks" in u.reason] == [
        (0, 1 << 34)
    ]


@each_layout
def test_gap_in_memory_blocks_is_in_sections_of_blocks(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.set_variable("sections_per_block", 2)
    for nr in (0, 1, 128, 129):
        kernel.section(nr)
    for block in (0, 64):
        kernel.memory_block(block, "MEM_OFFLINE")
    root = head(kernel, kernel.memory_blocks.address)
    kernel.poke(root + 40 + 8, (0xDEAD000000000102).to_bytes(8, "little"))
    per_section = 0x8000
    assert cases(kernel) == [
        (0, 2 * per_section, Case.OFFLINE),
        (128 * per_section, 130 * per_section, Case.UNKNOWN),
    ]
    assert take_snapshot(kernel.program()).memory_block_gaps == (
        (128 * per_section, 256 * per_section),
    )


@each_layout
def test_explanations_survive_an_array_that_leads_nowhere(layout: str) -> None:
    # A node that is its own child keeps drgn's xa_for_each() going for ever.
    kernel = collision(layout)
    root = head(kernel, kernel.pgmap_array.address)
    for offset in range(64):
        kernel.poke(root + 40 + 8 * offset, (root + 2).to_bytes(8, "little"))
    assert check(kernel.program()).pgmaps == ()
