# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Debugging information that lacks something: each name that the tool looks up is hidden
in turn. What does not need it still works, and it is named once.
"""

from __future__ import annotations

import functools
import json
from collections import Counter

import pytest
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout
from support.opening import open_instead

from drgn_zonedev.classification.missing_debuginfo import debug_info, what_is_missing
from drgn_zonedev.model import Report
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

# Without these, nobody can tell what any PFN is.
ESSENTIAL = {
    "SECTION_HAS_MEM_MAP_BIT",
    "SECTION_IS_EARLY_BIT",
    "SECTION_IS_ONLINE_BIT",
    "SECTION_MAP_LAST_BIT",
    "SECTION_MARKED_PRESENT_BIT",
    "SECTION_TAINT_ZONE_DEVICE_BIT",
    "__highest_present_section_nr",
    "mem_section",
    "pgmap_array",
    "struct dev_pagemap",
    "struct mem_section",
    "struct xa_node",
    "struct xarray",
    # The head of every xarray's definition.
    "gfp_t",
    "spinlock_t",
}


def scene(layout: str) -> FakeKernel:
    """RAM with a device among it, and RAM that is offline."""
    kernel = collision(layout)
    kernel.section(20, early=True)
    kernel.memory_block(20, "MEM_OFFLINE")
    return kernel


@functools.cache
def whole(layout: str) -> tuple[Report, tuple[str, ...]]:
    kernel = scene(layout)
    report = check(kernel.program())
    return report, tuple(sorted(kernel.names.found))


def cases(report: Report) -> dict[int, str]:
    """The case of the first PFN of each subsection."""
    return {
        pfn: r.case.value
        for r in report.ranges
        for pfn in range(-(-r.start_pfn // 512) * 512, r.end_pfn, 512)
    }


def essence(report: Report) -> tuple[object, ...]:
    # References are counted, and devices named, for people only.
    pgmaps = [(p.address, p.type, p.ranges, p.altmap, p.ref.state) for p in report.pgmaps]
    findings = [(f.slug, f.start_pfn, f.end_pfn, f.evidence) for f in report.findings]
    return pgmaps, findings, cases(report), report.coverage


@each_layout
def test_whatever_is_hidden_the_rest_is_told(layout: str) -> None:
    expected, names = whole(layout)
    assert {"struct page", "memory_blocks", "struct percpu_ref", "pgmap_array"} <= set(names)
    for name in names:
        program = scene(layout).program(hidden=frozenset([name]))
        try:
            with debug_info():
                found = check(program)
        except LookupError as e:
            refusal = what_is_missing(e)
        else:
            assert_no_worse(found, expected, name)
            continue
        assert name in ESSENTIAL, name
        assert name in refusal


def assert_no_worse(found: Report, expected: Report, name: str) -> None:
    truth = cases(expected)
    wrong = {pfn for pfn, case in cases(found).items() if case not in (truth[pfn], "unknown")}
    assert wrong == set(), name
    assert cases(found).keys() == truth.keys(), name
    known = {(f.slug, f.start_pfn) for f in expected.findings}
    assert {(f.slug, f.start_pfn) for f in found.findings if f.severity.value == "error"} <= known
    told = Counter(
        u.reason.partition("debugging information does not have ")[2].partition(",")[0]
        for u in found.unjudged
        if u.start_pfn == u.end_pfn
    )
    assert set(told.values()) <= {1}, name
    if essence(found) != essence(expected) and name not in ("enum memory_type",):
        assert told, f"{name}: {[u.reason for u in found.unjudged]}"


@each_layout
def test_ranges_do_not_need_struct_page(layout: str) -> None:
    expected, _ = whole(layout)
    for name in ("struct page", "PG_head", "__MAX_NR_ZONES", "struct list_head", "node_data"):
        found = check(scene(layout).program(hidden=frozenset([name])))
        assert cases(found) == cases(expected), name
        assert found.coverage.pages_verified == 0
        assert found.coverage.pages_unreadable > 0


@each_layout
@pytest.mark.parametrize("name", ["memory_blocks", "sections_per_block", "struct memory_block"])
def test_without_memory_blocks_what_is_not_online_is_unknown(layout: str, name: str) -> None:
    found = cases(check(scene(layout).program(hidden=frozenset([name]))))
    assert {found[pfn] for pfn in range(0xA0000, 0xA8000, 512)} == {"unknown"}
    assert found[0x10000] == "online"
    assert found[0x28000] == "device"


@each_layout
@pytest.mark.parametrize("name", ["__PERCPU_REF_DEAD", "struct percpu_ref"])
def test_without_references_devices_are_unknown(layout: str, name: str) -> None:
    report = check(scene(layout).program(hidden=frozenset([name])))
    found = cases(report)
    assert {found[pfn] for pfn in range(0x24000, 0x30000, 512)} == {"unknown"}
    assert found[0x10000] == "online"
    assert sum(name in u.reason for u in report.unjudged) == 1


@pytest.mark.parametrize(
    ("name", "option"), [("pgmap_array", "CONFIG_ZONE_DEVICE"), ("mem_section", "CONFIG_SPARSEMEM")]
)
def test_what_nothing_works_without_is_status_3_and_one_line(
    name: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, lambda: scene("6.1").program(hidden=frozenset([name])))
    assert cli.main(["check"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.count(name) == 1
    assert option in line


def test_unverified_is_status_3_with_the_ranges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, lambda: scene("6.1").program(hidden=frozenset(["struct page"])))
    assert cli.main(["check", "--format", "json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert {r["case"] for r in document["ranges"]} == set(cases(whole("6.1")[0]).values())
    reasons = [u["reason"] for u in document["unjudged"]]
    assert sum("struct page," in reason for reason in reasons) == 1


def test_mistakes_of_ours_are_not_taken_for_something_lacking() -> None:
    with pytest.raises(AttributeError), debug_info():
        raise AttributeError("'NoneType' object has no attribute 'x'")
