# SPDX-License-Identifier: LGPL-2.1-or-later

"""For each bug that findings show: with the state, without it, and on a fixed kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.defects import ZONE_SHIFT, Change, Defect, Overlay
from support.exports import open_export
from support.fakekernel import busy_ram

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.findings import KINDS, make_finding
from drgn_zonedev.known_bugs.bugs import BUGS
from drgn_zonedev.known_bugs.in_findings import SIGNATURES, with_known_bugs
from drgn_zonedev.model import Case, Evidence, Finding, KernelFacts, Pgmap, PgmapRange, RefState
from drgn_zonedev.render.as_json import finding_document
from drgn_zonedev.report import check

VMCORES = Path(__file__).parents[2] / "vmcores"
KERNEL = KernelFacts("6.1.176", "x86_64", False, 4096, 1 << 27, 1 << 21, 64, 0, 7, {})
PGMAP = Pgmap(
    address=0xFFFF888000001000,
    type="MEMORY_DEVICE_GENERIC",
    nr_range=1,
    ranges=(PgmapRange(0x24200, 0x28000),),
    in_progress=False,
    vmemmap_shift=9,
    flags=0,
    altmap=None,
    ref=RefState("live", "percpu", 1),
    ops=None,
    ops_address=0,
    owner=None,
    owner_address=0,
)


def uninitialized(start_pfn: int) -> Finding:
    return make_finding(
        "device-page-uninitialized", Case.DEVICE, start_pfn, 0x24400, pgmap=PGMAP.address
    )


def named(finding: Finding, kernel: KernelFacts = KERNEL, pgmap: Pgmap = PGMAP) -> tuple[str, ...]:
    return with_known_bugs([finding], [pgmap], kernel)[0].known_bugs


def test_tails_behind_the_second_page_of_vmemmap_were_skipped() -> None:
    assert named(uninitialized(0x24280)) == ("devdax-tails-uninitialized",)
    # Before it, they are written; and base pages have no tails.
    assert named(uninitialized(0x24200)) == named(uninitialized(0x2427F)) == ()
    assert named(uninitialized(0x24280), pgmap=replace(PGMAP, vmemmap_shift=0)) == ()
    assert named(uninitialized(0x24280), replace(KERNEL, release="6.1.192")) == ()
    assert named(uninitialized(0x24280), replace(KERNEL, release="5.10.1")) == ()


ARM64_16K = replace(KERNEL, release="6.12.117", architecture="AARCH64", page_size=1 << 14)


def test_struct_pages_that_a_neighbour_took_along() -> None:
    unmapped = make_finding("vmemmap-unmapped", Case.DEVICE, 0x24200, 0x24280)
    assert named(unmapped, ARM64_16K) == ("shared-vmemmap-page",)
    assert named(unmapped, replace(ARM64_16K, page_size=1 << 16)) == ("shared-vmemmap-page",)
    # A page of 4K holds struct pages of one subsection, but an entry above it maps a section.
    arm64_4k = replace(ARM64_16K, page_size=1 << 12)
    assert named(unmapped, arm64_4k) == ("shared-vmemmap-block",)
    assert named(unmapped, replace(arm64_4k, release="6.15.1")) == ()
    assert named(unmapped) == ()
    # Before memory hot-remove.
    assert named(unmapped, replace(ARM64_16K, release="5.6.19")) == ()


@pytest.mark.parametrize(
    ("slug", "bug"),
    [
        ("collision-untainted", "collision-untainted"),
        ("orphan-section", "sections-left-behind"),
    ],
)
def test_findings_that_only_a_bug_leaves(slug: str, bug: str) -> None:
    finding = make_finding(slug, Case.DEVICE, 0x24200, 0x24400)
    old = replace(KERNEL, release="5.10.1")
    assert named(finding, old) == (bug,)
    assert finding_document(with_known_bugs([finding], [], old)[0])["known_bugs"]
    other = make_finding("device-page-node", Case.DEVICE, 0x24200, 0x24400)
    assert named(other, old) == ()
    assert "known_bugs" not in finding_document(other)


def in_zone(page_zone: int) -> Finding:
    evidence = (Evidence("page_zone() of PFN 0x3ffdf", value=page_zone),)
    return make_finding("ram-hole-zone", Case.ONLINE, 0x3FFDF, 0x3FFE3, evidence=evidence)


@pytest.mark.parametrize(
    ("max_nr_zones", "bug", "others"),
    [
        # ZONES_WIDTH is 3: the zone is __MAX_NR_ZONES, of any node.
        (5, (5, 1 << 3 | 5), (6, 7, 4, 1 << 3 | 1)),
        # As many zones as fit into 2 bits: it looks like zone 0.
        (4, (0, 1 << 2), (1, 2, 3, 1 << 2 | 1)),
        (0, (), (0, 5)),
    ],
)
def test_only_the_zone_that_the_loop_ends_with_is_the_bug(
    max_nr_zones: int, bug: tuple[int, ...], others: tuple[int, ...]
) -> None:
    kernel = replace(KERNEL, max_nr_zones=max_nr_zones)
    assert {named(in_zone(zone), kernel) for zone in bug} <= {("zone-of-reserved-hole",)}
    assert {named(in_zone(zone), kernel) for zone in others} == {()}
    old = replace(kernel, release="5.4.1")
    assert {named(in_zone(zone), old) for zone in (*bug, *others)} == {()}


@pytest.mark.parametrize("layout", ["5.10", "7.2"])
def test_reserved_pages_have_the_bug_until_their_zone_is_mended(layout: str) -> None:
    # The hole at the end of the section, and the zone that is in front of it.
    hole, zone = 0x47FF0, 1
    kernel = busy_ram(layout)
    flags = kernel.page_word(hole, 0) & ~(7 << ZONE_SHIFT)
    for number, known in ((5, [("zone-of-reserved-hole",)]), (6, [()]), (zone, [])):
        kernel.poke_page_word(hole, 0, flags | number << ZONE_SHIFT)
        found = check(kernel.program(), pfns=(hole, hole + 1)).findings
        assert [f.known_bugs for f in found] == known


def test_pages_of_a_real_kernel_have_the_bug_until_their_zone_is_mended() -> None:
    with StoredDump(VMCORES / "7.3-acpi-hole").program() as prog:
        (finding,) = check(prog).findings
        (explained,) = explain(prog, finding.start_pfn + 1).findings
        assert (finding.start_pfn, finding.end_pfn) == (0x3FFDF, 0x3FFE3)
        assert finding.known_bugs == explained.known_bugs == ("zone-of-reserved-hole",)
        # What a mended kernel writes: the zone of the page in front. And another wrong one.
        page = prog["vmemmap"].value_() + 64 * finding.start_pfn
        before = prog.read_u64(page - 64) & 7 << ZONE_SHIFT
        for zone, bugs in ((before >> ZONE_SHIFT, []), (6, [()])):
            words = [prog.read_u64(page + 64 * row) & ~(7 << ZONE_SHIFT) for row in range(4)]
            changes = tuple(
                Change(page + 64 * row, word | zone << ZONE_SHIFT) for row, word in enumerate(words)
            )
            with Overlay(prog).injected(Defect("zone", changes, frozenset())):
                assert [f.known_bugs for f in check(prog).findings] == bugs


def referenced(value: int, count: int) -> Finding:
    evidence = (Evidence("page->_refcount of PFN 0x140040", value=value),)
    return make_finding(
        "ram-free-refcount", Case.ONLINE, 0x140040, 0x180000, count=count, evidence=evidence
    )


def test_free_pages_with_a_reference_are_the_bug_by_the_page_of_vmemmap() -> None:
    kernel = replace(KERNEL, release="7.3.4", features={"compound_info_is_mask": True})
    assert named(referenced(1, 64), kernel) == ("hugetlb-references-restored",)
    assert named(referenced(1, 0x3FFC0), kernel) == ("hugetlb-references-restored",)
    # Another count, fewer pages than are copied at once, and kernels that share no tails so.
    assert named(referenced(2, 64), kernel) == named(referenced(1, 63), kernel) == ()
    assert named(referenced(1, 64), replace(kernel, features={})) == ()
    assert named(referenced(1, 64), replace(kernel, release="6.12.117")) == ()


def test_a_kernel_with_the_fix_is_not_suspected() -> None:
    finding = make_finding("collision-untainted", Case.DEVICE, 0x24200, 0x24400)
    assert named(finding) == ()


def test_slugs_are_those_of_findings_and_bugs() -> None:
    assert {signature.finding for signature in SIGNATURES} <= set(KINDS)
    assert {signature.bug for signature in SIGNATURES} <= set(BUGS)


@pytest.mark.parametrize(
    ("architecture", "release", "bugs"),
    [
        ("aarch64", "5.10.223", ("max-pfn-lowered-arm64",)),
        ("aarch64", "6.15.0", ()),
        ("riscv64", "7.3.4", ("max-pfn-lowered-riscv",)),
        ("riscv64", "6.1.192", ()),
        ("x86_64", "7.3.4", ()),
    ],
)
def test_max_pfn_below_ram_is_the_bug_of_two_architectures(
    architecture: str, release: str, bugs: tuple[str, ...]
) -> None:
    finding = make_finding("ram-beyond-max-pfn", Case.ONLINE, 0x100000, 0x108000)
    assert named(finding, replace(KERNEL, architecture=architecture, release=release)) == bugs


def test_check_and_pfn_name_the_bug_that_a_real_kernel_has() -> None:
    with StoredDump(VMCORES / "5.10-orphan").files() as directory:
        prog = open_export(directory)
        (finding,) = [f for f in check(prog).findings if f.slug == "orphan-section"]
        (explained,) = explain(prog, finding.start_pfn).findings
    assert finding.known_bugs == explained.known_bugs == ("sections-left-behind",)
