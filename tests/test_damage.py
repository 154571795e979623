# SPDX-License-Identifier: LGPL-2.1-or-later

"""
One structure is garbage: what depends on it is unknown or a finding, and says
why; everything else is judged as if nothing had happened.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import pytest
from drgn import sizeof
from support import kernels
from support.fakekernel import FakeKernel
from support.kernels import Device, each_layout

from drgn_zonedev.classification import reading
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.model import Case, Range, Report
from drgn_zonedev.render import as_json, as_text
from drgn_zonedev.report import check

# The device of collision(), and two more in sections of their own: the second
# root of the section array has the last one.
FIRST, SECOND, THIRD = (0x24000, 0x30000), (0x100000, 0x110000), (0x800000, 0x808000)
USER = 0x7FFC12345678
CANONICAL = 0x0123456789ABCDE0


# The device of collision(), two more, and RAM that was never onlined.
machine = functools.partial(
    kernels.machine, devices=(Device(*SECOND), Device(*THIRD)), offline=0x40
)


def pgmap_at(kernel: FakeKernel, pfn: int) -> int:
    report = check(kernel.program())
    address = next(r.pgmap for r in report.ranges if r.start_pfn <= pfn < r.end_pfn)
    assert address is not None
    return address


def outside(ranges: tuple[Range, ...], span: tuple[int, int]) -> list[tuple[int, int, Case, str]]:
    return [
        (r.start_pfn, r.end_pfn, r.case, r.reason)
        for r in ranges
        if r.end_pfn <= span[0] or span[1] <= r.start_pfn
    ]


def inside(report: Report, span: tuple[int, int]) -> set[Case]:
    return {r.case for r in report.ranges if r.start_pfn < span[1] and span[0] < r.end_pfn}


def spoken_of(report: Report, span: tuple[int, int]) -> bool:
    """Whether a finding that is an error, or a remark, is about PFNs of a span."""
    errors = [f for f in report.findings if f.severity.value == "error"]
    said = [(f.start_pfn, f.end_pfn) for f in errors]
    said += [(u.start_pfn, u.end_pfn) for u in report.unjudged]
    return any(start < span[1] and span[0] < end for start, end in said)


def assert_contained(kernel: FakeKernel, damage: Callable[[], None], span: tuple[int, int]) -> None:
    before = check(kernel.program())
    damage()
    after = check(kernel.program())
    assert outside(after.ranges, span) == outside(before.ranges, span)
    assert spoken_of(after, span)
    errors = {(f.slug, f.start_pfn) for f in before.findings if f.severity.value == "error"}
    for finding in after.findings:
        if finding.severity.value == "error" and (finding.slug, finding.start_pfn) not in errors:
            assert finding.start_pfn < span[1]
            assert span[0] < finding.end_pfn
    as_json.render(as_json.report_document(after))
    as_text.report_text(after, verbose=True)


PGMAP_DAMAGES = {
    "nr_range": [-1, 5000, 1 << 30],
    "vmemmap_shift": [27, 64, (1 << 64) - 1],
    "ref": [USER, CANONICAL],
}


@each_layout
@pytest.mark.parametrize(
    ("member", "value"), [(m, v) for m, values in PGMAP_DAMAGES.items() for v in values]
)
def test_one_damaged_pgmap(layout: str, member: str, value: int) -> None:
    kernel = machine(layout)
    pgmap = pgmap_at(kernel, SECOND[0])
    type_ = kernel.program().type("struct dev_pagemap")
    if not type_.has_member(member):
        pytest.skip(f"no {member}")
    if member == "ref" and layout != "5.10":
        pytest.skip("the reference is in the pgmap")
    size = sizeof(type_.member(member).type)

    def damage() -> None:
        kernel.poke_member("dev_pagemap", pgmap, member, value % (1 << 8 * size))

    assert_contained(kernel, damage, SECOND)


@each_layout
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (SECOND[1], SECOND[0]),  # backwards
        (0, (1 << 64) - 1),  # everything
        (SECOND[0], (1 << 52) - 1),
        (0, 0),
        ((1 << 64) - 4096, (1 << 64) - 1),
    ],
)
def test_one_damaged_range(layout: str, start: int, end: int) -> None:
    # The range says one thing and pgmap_array another: nothing else is wrong.
    kernel = machine(layout)
    pgmap = pgmap_at(kernel, SECOND[0])
    before = check(kernel.program())
    kernel.poke_member("dev_pagemap", pgmap, "range.start", start)
    kernel.poke_member("dev_pagemap", pgmap, "range.end", end)
    after = check(kernel.program())
    assert spoken_of(after, SECOND)
    others = {p.address: p for p in before.pgmaps if p.address != pgmap}
    assert {p.address: p for p in after.pgmaps if p.address != pgmap} == others
    as_json.render(as_json.report_document(after))


@each_layout
def test_one_section_root_that_cannot_be_read(layout: str) -> None:
    kernel = machine(layout)
    root = int(sections(kernel.program()).address[-1]) & ~0xFFF
    assert_contained(kernel, lambda: kernel.hide(root, 4096), (0x800000, 0x1000000))


@each_layout
def test_root_that_comes_twice_is_no_root(layout: str) -> None:
    kernel = machine(layout)
    prog = kernel.program()
    base = prog["mem_section"].value_()
    first = prog.read(base, 8)
    assert_contained(kernel, lambda: kernel.poke(base + 8, first), (0x800000, 0x1000000))


@each_layout
def test_section_array_that_cannot_be_read(layout: str) -> None:
    kernel = machine(layout)
    base = kernel.program()["mem_section"].value_()
    kernel.hide(base, 4096)
    kernel.add_variable("vmemmap_base", "unsigned long", kernel.vmemmap)
    report = check(kernel.program())
    assert {r.case for r in report.ranges} == {Case.UNKNOWN}
    assert len(report.pgmaps) == 3
    assert not [f for f in report.findings if f.severity.value == "error"]


@each_layout
@pytest.mark.parametrize("usage", [USER, CANONICAL, (1 << 64) - 8])
def test_one_usage_that_points_nowhere(layout: str, usage: int) -> None:
    kernel = machine(layout)
    row = sections(kernel.program())
    address = next(int(a) for nr, a in zip(row.nr, row.address) if nr == 0x20)

    def damage() -> None:
        kernel.poke_member("mem_section", address, "usage", usage)

    before = check(kernel.program())
    damage()
    after = check(kernel.program())
    span = (SECOND[0], SECOND[0] + 0x8000)
    assert outside(after.ranges, SECOND) == outside(before.ranges, SECOND)
    # The pgmap still says whose it is.
    assert inside(after, span) == {Case.DEVICE}
    errors = [(f.slug, f.start_pfn) for f in after.findings if f.severity.value == "error"]
    # Of an address of the kernel, page tables would have to say that nothing is there.
    assert errors == ([("section-usage-dead", span[0])] if usage in (USER, CANONICAL) else [])


@each_layout
@pytest.mark.parametrize("count", [0, 3, 1 << 31])
def test_size_of_memory_blocks_that_makes_no_sense(layout: str, count: int) -> None:
    kernel = machine(layout)
    span = (0x40 * 0x8000, 0x41 * 0x8000)
    assert inside(check(kernel.program()), span) == {Case.OFFLINE}
    kernel.set_variable("sections_per_block", count)
    report = check(kernel.program())
    assert inside(report, span) == {Case.UNKNOWN}
    assert inside(report, SECOND) == {Case.DEVICE}
    assert spoken_of(report, span)


@each_layout
def test_zones_that_cannot_be_read_are_held_against_nobody(layout: str) -> None:
    kernel = machine(layout)
    before = check(kernel.program())
    prog = kernel.program()
    kernel.poke(prog["node_data"].address_of_().value_(), USER.to_bytes(8, "little"))
    after = check(kernel.program())
    assert outside(after.ranges, (0, 0)) == outside(before.ranges, (0, 0))
    assert not [f for f in after.findings if f.severity.value == "error"]
    assert any("zones of node 0" in u.reason for u in after.unjudged)


@each_layout
@pytest.mark.parametrize("start", [0, 1 << 63, (1 << 64) - 1])
def test_zone_beyond_all_memory(layout: str, start: int) -> None:
    kernel = machine(layout)
    zone = kernel.program()["node_data"][0].node_zones[4]
    kernel.poke(zone.zone_start_pfn.address_, start.to_bytes(8, "little"))
    kernel.poke(zone.spanned_pages.address_, ((1 << 64) - 1).to_bytes(8, "little"))
    report = check(kernel.program())
    assert inside(report, SECOND) == {Case.DEVICE}


def test_kernel_that_cuts_memory_as_none_does() -> None:
    import drgn

    kernel = machine("6.1")
    prog = kernel.program()
    info = prog["VMCOREINFO"].string_().replace(b"SIZE_BITS)=27", b"SIZE_BITS)=7")
    other = drgn.Program(prog.platform)
    other.set_linux_kernel_custom(info, False)
    with pytest.raises(drgn.BadDataError):
        sparsemem_geometry(other)


@each_layout
@pytest.mark.parametrize("member", ["reserve", "free", "align", "alloc"])
@pytest.mark.parametrize("value", [(1 << 64) - 1, 1 << 63, 1 << 40])
def test_altmap_larger_than_its_range(layout: str, member: str, value: int) -> None:
    kernel = machine(layout)
    pgmap = pgmap_at(kernel, FIRST[0])
    assert_contained(
        kernel,
        lambda: kernel.poke_member("dev_pagemap", pgmap, f"altmap.{member}", value),
        FIRST,
    )


# More than any machine has.


def fill_pgmap_array(kernel: FakeKernel, entries: np.ndarray) -> None:
    """Store an entry for each PFN from 0 on, in nodes that are full."""
    levels: list[tuple[int, np.ndarray]] = []
    while len(entries) > 1:
        number = np.arange(-(-len(entries) // 64), dtype=np.uint64)
        nodes = np.zeros((len(number), 72), np.uint64)
        start = kernel.allocate(nodes.nbytes)
        address = np.uint64(start) + number * np.uint64(576)
        # shift, offset
        nodes[:, 0] = np.uint64(6 * len(levels)) | number % np.uint64(64) << np.uint64(8)
        nodes[:, 5:69].flat[: len(entries)] = entries
        if levels:
            below = levels[-1][1]
            below[:, 1] = np.repeat(address, 64)[: len(below)]
        levels.append((start, nodes))
        entries = address + np.uint64(2)
    for start, nodes in levels:
        kernel.poke(start, nodes.tobytes())
    kernel.poke(kernel.variables["pgmap_array"][1] + 8, int(entries[0]).to_bytes(8, "little"))


@pytest.mark.parametrize(
    "different", [pytest.param(2, marks=pytest.mark.long("1 << 20 is in every run")), 1 << 20]
)
def test_another_pgmap_for_each_of_a_million_pfns(different: int) -> None:
    # Without a bound, several gigabytes and minutes.
    kernel = machine("6.1")
    second = pgmap_at(kernel, SECOND[0])
    number = np.arange(1 << 20, dtype=np.uint64)
    fill_pgmap_array(kernel, np.uint64(second) + number % np.uint64(different) * np.uint64(8))
    start = time.process_time()
    report = check(kernel.program())
    assert time.process_time() - start < 60
    (gap,) = (u for u in report.unjudged if "more than on any machine" in u.reason)
    assert (gap.start_pfn, gap.end_pfn) == (1 << 14, 1 << 20)
    assert len(report.ranges) < 1 << 15


def test_more_ranges_than_any_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MAX_RANGES", 1)
    kernel = machine("6.1")
    report = check(kernel.program())
    assert [p.ranges[0].start_pfn for p in report.pgmaps] == [FIRST[0], SECOND[0]]
    assert inside(report, THIRD) == {Case.UNKNOWN}
    assert any(
        (u.start_pfn, u.end_pfn) == THIRD and "have more ranges than on any machine" in u.reason
        for u in report.unjudged
    )


def test_pgmaps_that_all_claim_everything() -> None:
    kernel = machine("6.1")
    for nr in range(256, 356):
        kernel.section(nr)
    for i in range(100):
        extra = kernel.pgmap((THIRD[1] + 512 * i, THIRD[1] + 512 * (i + 1)))
        kernel.poke_member("dev_pagemap", extra, "range.start", 0)
        kernel.poke_member("dev_pagemap", extra, "range.end", (1 << 46) - 1)
    report = check(kernel.program())
    assert any("too many pgmaps claim the same sections" in u.reason for u in report.unjudged)
