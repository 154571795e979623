# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which page people mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from drgn import Object, Program
from support.fakekernel import collision
from support.kernels import each_layout

from drgn_zonedev.explanation import resolve as module
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.explanation.resolve import Subject, resolve, resolve_pfn, resolve_range
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.resource import Resource, Resources
from drgn_zonedev.model import Case
from drgn_zonedev.report import check

VMCORES = Path(__file__).parents[2] / "vmcores"


@pytest.fixture
def prog() -> Program:
    return collision("6.1").program()


def test_number_is_a_pfn_if_there_is_memory(prog: Program) -> None:
    assert resolve_pfn(prog, 0x24000) == (0x24000, "PFN")


def test_number_without_memory_is_tried_as_physical_address(prog: Program) -> None:
    assert resolve_pfn(prog, 0x24000123) == (0x24000, "physical address")
    assert resolve(prog, "0x24000123").pfn == 0x24000


@pytest.mark.parametrize("number", ["0x40000", "0x100000", hex(16 * 0x40000 - 1)])
def test_number_that_can_be_either_is_refused(number: str) -> None:
    # The first PFN behind all memory is somebody's off-by-one, not 256 KiB.
    with StoredDump(VMCORES / "5.10-fsdax-collision").program() as prog:
        value = int(number, 0)
        both = f"PFN {number}, where there is no memory, .* of PFN {value >> 12:#x}: .*--as phys"
        with pytest.raises(ValueError, match=both):
            resolve(prog, number)
        assert resolve(prog, number, "pfn") == Subject(value, "PFN")
        assert resolve(prog, number, "phys") == Subject(value >> 12, "physical address")


def test_what_was_guessed_is_said() -> None:
    with StoredDump(VMCORES / "5.10-fsdax-collision").program() as prog:
        assert resolve(prog, hex(16 * 0x40000)) == Subject(
            0x400, "physical address", "0x400000 was taken for a physical address"
        )
        assert resolve(prog, "0x24000").note == ""


def test_program_means_a_pfn_when_it_says_a_number(prog: Program) -> None:
    assert resolve(prog, 0x80000).pfn == 0x80000
    assert resolve(prog, 0x24000123, "phys").pfn == 0x24000


def test_address_in_vmemmap_is_a_struct_page() -> None:
    kernel = collision("6.1")
    found = resolve_pfn(kernel.program(), kernel.page(0x24400) + 8)
    assert found == (0x24400, "struct page pointer")


def test_kind_leaves_nothing_to_guess(prog: Program) -> None:
    assert resolve_pfn(prog, 0x24000, "phys")[0] == 0x24
    assert resolve_pfn(prog, 0x24000000, "pfn")[0] == 0x24000000


@pytest.mark.parametrize(
    ("value", "kind"), [(1 << 40, "pfn"), (1 << 52, "phys"), (0x1000, "page"), (-1, "pfn")]
)
def test_number_that_no_machine_has_is_refused(prog: Program, value: int, kind: str) -> None:
    with pytest.raises(ValueError, match=r"is not a .* on this machine: give one from 0x"):
        resolve_pfn(prog, value, kind)


@each_layout
def test_objects_are_pages(layout: str) -> None:
    kernel = collision(layout)
    prog, address = kernel.program(), kernel.page(0x24400)
    page = Object(prog, "struct page *", address)
    assert explain(page).pfn == 0x24400
    assert explain(page[0]).pfn == 0x24400
    assert explain(Object(prog, "unsigned long", 0x24400)).pfn == 0x24400
    if layout != "5.10":
        assert explain(Object(prog, "struct folio *", address)).pfn == 0x24400


def test_results_are_their_first_pages(prog: Program) -> None:
    report = check(prog)
    assert [explain(prog, f).pfn for f in report.findings] == [f.start_pfn for f in report.findings]
    device = next(r for r in report.ranges if r.case is Case.DEVICE)
    assert explain(prog, device).pfn == 0x24400
    assert report.findings


def test_what_names_no_page_is_a_clear_error(prog: Program) -> None:
    with pytest.raises(TypeError, match=r"expected a PFN, .* got Report"):
        explain(prog, check(prog))


def test_no_root_is_read_behind_the_last_section() -> None:
    # A small dump lacks it.
    with StoredDump(VMCORES / "7.3-init-in-flight").program() as prog:
        assert resolve_pfn(prog, 0x99999999) == (0x99999999, "PFN")
        assert resolve_pfn(prog, 0x24400123) == (0x24400, "physical address")


def test_other_objects_are_refused(prog: Program) -> None:
    section = Object(prog, "struct mem_section *", 0xFFFF888000000000)
    for what in (section, section[0]):
        with pytest.raises(ValueError, match=r"expected a struct page \*, .* got struct mem_s"):
            resolve(prog, what)
    value = Object(prog, "struct page *", collision("6.1").page(0x24400))[0].read_()
    with pytest.raises(ValueError, match="without an address"):
        resolve(prog, value)


MIB = 1 << 20


@pytest.fixture
def iomem(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = [
        (0x1000, 0x9FC00, "System RAM"),
        (576 * MIB, 768 * MIB, "Persistent Memory (legacy)"),
        (576 * MIB + 0x800, 768 * MIB, "namespace0.0"),
        (768 * MIB, 1024 * MIB, "System RAM"),
        (0xFEC00000, 0xFEC00400, "IOAPIC \x1b[2J"),
    ]
    resources = tuple(Resource(a, b, name, 0, is_ram=False) for a, b, name in tree)
    monkeypatch.setattr(module, "iomem_resources", lambda prog: Resources(resources))


@pytest.mark.usefixtures("iomem")
def test_resource_is_its_first_whole_page(prog: Program) -> None:
    found = resolve(prog, "Persistent Memory (legacy)")
    assert (found.pfn, found.kind) == (0x24000, "resource")
    assert "49152 pages" in found.note
    # This one starts in mid-page.
    assert resolve(prog, "namespace0.0").pfn == 0x24001


@pytest.mark.usefixtures("iomem")
def test_part_of_a_name_is_enough_if_it_is_the_only_one(prog: Program) -> None:
    assert resolve(prog, "persistent").pfn == 0x24000


@pytest.mark.usefixtures("iomem")
def test_resources_of_one_name_are_counted(prog: Program) -> None:
    found = resolve(prog, "System RAM")
    assert found.pfn == 1
    assert "the first of 2 resources of that name" in found.note
    assert "[0x30000000, 0x40000000)" in found.note


@pytest.mark.usefixtures("iomem")
@pytest.mark.parametrize("text", ["System RAM", "0..System RAM"])
def test_range_says_that_there_are_more_resources_of_its_name(
    prog: Program, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    resolve_range(prog, text)
    (record,) = caplog.records
    assert "the first of 2 resources of that name" in record.getMessage()
    assert "the others: [0x30000000, 0x40000000)" in record.getMessage()


@pytest.mark.usefixtures("iomem")
def test_ambiguous_name_lists_the_choices(prog: Program) -> None:
    with pytest.raises(ValueError, match="choose one of") as e:
        resolve(prog, "em")
    for name in ("System RAM", "Persistent Memory (legacy)"):
        assert repr(name) in str(e.value)
    assert "namespace" not in str(e.value)


@pytest.mark.usefixtures("iomem")
def test_unknown_name_lists_what_there_is(prog: Program) -> None:
    with pytest.raises(ValueError, match="there is no resource 'pmem9'") as e:
        resolve(prog, "pmem9")
    assert "namespace0.0" in str(e.value)
    # Names come from the dump.
    assert "\x1b" not in str(e.value)


@pytest.mark.usefixtures("iomem")
def test_resource_without_a_whole_page_is_refused(prog: Program) -> None:
    with pytest.raises(ValueError, match="smaller than a page"):
        resolve(prog, "IOAPIC")


def test_tree_that_cannot_be_read_leaves_numbers() -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    kernel.hide(prog["iomem_resource"].child.value_(), 64)
    with pytest.raises(ValueError, match="give a PFN"):
        resolve(prog, "System RAM")


@pytest.mark.parametrize(
    ("text", "others"), [("010", "0x10 or 10"), ("24000f", "0x24000f"), ("0024", "0x24 or 24")]
)
def test_what_looks_like_a_number_is_no_name(prog: Program, text: str, others: str) -> None:
    with pytest.raises(ValueError, match=f"{text!r} is not a number in .*: give {others}$"):
        resolve(prog, text)


def test_ends_of_a_range_are_of_one_kind(prog: Program) -> None:
    vmemmap = 0xFFFFEA0000000000
    first, last = vmemmap + 64 * 0x24001, vmemmap + 64 * 0x24003
    for text in (
        "0x24001..0x24003",
        "147457..0x24003",
        "0x24001000..0x24003000",
        "0x24001fff..0x24002001",
        f"{first:#x}..{last:#x}",
        f"{first:x}..{last:x}",
        f"{first:x}..{last - 8:x}",
    ):
        assert resolve_range(prog, text) == (0x24001, 0x24003), text
    assert resolve_range(prog, "0x24001") == (0x24001, 0x24002)
    # There need not be memory at the end, nor a PFN.
    assert resolve_range(prog, "0x3fff0..0x40000") == (0x3FFF0, 0x40000)
    limit = 1 << 46 - 12
    assert resolve_range(prog, f"0x3fff0..{limit:#x}") == (0x3FFF0, limit)
    with pytest.raises(ValueError, match=f"^{limit + 1:#x} is not a PFN"):
        resolve_range(prog, f"0x3fff0..{limit + 1:#x}")


def test_kind_of_a_range_can_be_given(prog: Program) -> None:
    with pytest.raises(ValueError, match="choose with --as"):
        resolve_range(prog, "0x100000..0x102000")
    assert resolve_range(prog, "0x100000..0x102000", "phys") == (0x100, 0x102)
    assert resolve_range(prog, "0x100000..0x102000", "pfn") == (0x100000, 0x102000)
    assert resolve_range(prog, "0x100000", "phys") == (0x100, 0x101)


@pytest.mark.parametrize("text", ["0x24001..0x24001", "0x24001..0x24000", "0..0"])
def test_range_that_is_empty_or_reversed_is_refused(prog: Program, text: str) -> None:
    with pytest.raises(ValueError, match="END, which is not included"):
        resolve_range(prog, text)


@pytest.mark.parametrize("text", ["", "..", "0x24001..", "..0x24001", "nonsense..0x5"])
def test_range_without_an_end_is_refused(prog: Program, text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|no resource|cannot be read"):
        resolve_range(prog, text)


def test_resource_is_a_range() -> None:
    with StoredDump(VMCORES / "6.1-fsdax-collision").program() as prog:
        whole = resolve_range(prog, "Persistent Memory")
        assert whole == (0x24000, 0x30000)
        assert resolve_range(prog, "Persistent Memory..Persistent Memory") == whole
