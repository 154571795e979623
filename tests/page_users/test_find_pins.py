# SPDX-License-Identifier: LGPL-2.1-or-later

"""Pages of a synthetic kernel, and the users that it was built with: these, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drgn import Object
from support.fakekernel import FakeKernel, Users
from support.usedpages import END, FIRST, START, Machine, machine, mapped_file

from drgn_zonedev.export.store import unpacked
from drgn_zonedev.kernel.folio_counts import FolioCounts
from drgn_zonedev.kernel.page_holders import HolderKind
from drgn_zonedev.kernel.rmap import MappingKind, Vma
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.page_users.find_pins import find_pins
from drgn_zonedev.page_users.pins import Awaited, Pins, Searched, UsedPages
from drgn_zonedev.page_users.vma_search import VmaSearch
from drgn_zonedev.vmcore.pagetables import mapped_frames

VMCORES = Path(__file__).parents[2] / "vmcores"
# Those in which something changed, besides names.
LAYOUTS = ("5.10", "6.1", "6.12", "7.2")
PIN = 1024
_MAPPING, _INDEX = 3, 4


def mapped_by(use: UsedPages) -> dict[str, int | None]:
    return {process.name: user.pages for user in use.mapped_by for process in user.processes}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_idle_pages_have_no_user(layout: str) -> None:
    made = machine(layout)
    found = made.pins()
    (pgmap,) = found.pgmaps
    assert pgmap.references is not None
    assert pgmap.references.found == pgmap.references.expected == 1 + END - START
    assert (pgmap.pages, pgmap.uses, found.gaps) == (END - START, (), ())
    assert not found.is_kept


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_of_a_file_are_of_all_that_map_them(layout: str) -> None:
    made = machine(layout)
    made.users.own(made.file, FIRST, 8, index=16)
    made.set_used(FIRST, mapped=2, pages=4)
    made.set_used(FIRST + 4, mapped=1, pages=4)
    made.users.map(made.first, made.file, range(FIRST, FIRST + 8), index=16)
    made.users.map(made.second, made.file, range(FIRST, FIRST + 4), index=16)
    shared, own = made.used()
    assert (shared.start_pfn, shared.end_pfn, own.end_pfn) == (FIRST, FIRST + 4, FIRST + 8)
    assert mapped_by(shared) == {"first": 4, "second": 4}
    assert mapped_by(own) == {"first": 4}
    assert shared.owner.kind is MappingKind.FILE
    assert (shared.owner.path, shared.index, own.index) == ("/mnt/file", 16, 20)
    assert not shared.has_unknown_user
    assert not own.has_unknown_user


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vma_that_covers_pages_but_does_not_map_them_is_no_user(layout: str) -> None:
    made = machine(layout)
    made.users.own(made.file, FIRST, 2)
    made.set_used(FIRST, mapped=1)
    made.users.map(made.first, made.file, [FIRST, None])
    made.users.map(made.second, made.file, [None, None])
    (use,) = made.used()
    assert mapped_by(use) == {"first": 1}
    assert use.pages == 1


def test_a_vma_is_asked_only_about_the_folios_that_it_can_map() -> None:
    made = machine("7.2")
    prog, none = made.kernel.program(), np.zeros(5, np.int64)
    # Not in the order of their indices; the third one has 8 pages, and may be mapped where the 8
    # pages before it belong; the last one is garbage.
    index = np.array([9, 2, 16, 3, (1 << 64) - 1], np.uint64)
    order = np.array([0, 0, 3, 0, 0])
    folios = FolioCounts(
        np.arange(5) * 8 + FIRST, order, none, none, none, none, index, none.astype(bool)
    )
    mm, page = made.first.mm, 4096

    def near(pgoff: int, pages: int) -> list[list[int]]:
        vma = Vma(0, mm, 0x10000, 0x10000 + pages * page, pgoff, 0)
        found = VmaSearch(prog).near(folios, np.arange(5), [vma])
        return [rows.tolist() for _, rows in found]

    assert near(0, 2) == near(4, 4) == near(24, 100) == near(5, -1) == []
    assert near(2, 6) == [[1, 3]]
    assert near(2, 8) == [[0, 1, 2, 3]]
    assert near(23, 1) == near(16, 1) == near(10, 6) == near(8, 1) == [[2]]
    assert near(0, 100) == [[0, 1, 2, 3]]
    assert near((1 << 64) - 1, 1) == []


def without_access(pfn: int, more: int = 0) -> int:
    """Of x86-64, as mprotect(PROT_NONE) leaves it: _PAGE_PROTNONE, and the PFN is inverted."""
    return ~(pfn << 12) & (1 << 52) - (1 << 12) | 1 << 8 | more


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_without_access_is_mapped(layout: str) -> None:
    made = machine(layout)
    made.users.own(made.file, FIRST, 2)
    made.set_used(FIRST, mapped=1, pages=2)
    start = made.first.next_address
    made.users.map(made.first, made.file, [FIRST, None])
    made.users.set_entry(made.first, start + 4096, without_access(FIRST + 1))
    (use,) = made.used()
    assert (use.pages, mapped_by(use), use.has_unknown_user) == (2, {"first": 2}, False)


@pytest.mark.parametrize("entry", [without_access(FIRST + 1), without_access(FIRST) ^ 1 << 8])
def test_memory_without_access_is_mapped_where_its_entry_says(entry: int) -> None:
    made = machine("7.2")
    made.users.own(made.file, FIRST, 1)
    made.set_used(FIRST, mapped=1)
    start = made.first.next_address
    made.users.map(made.first, made.file, [None])
    made.users.set_entry(made.first, start, entry)
    (use,) = made.used()
    assert (mapped_by(use), use.unknown_mappings) == ({}, 1)


def test_a_huge_page_without_access_is_mapped() -> None:
    made = machine("7.2")
    made.users.own(made.file, FIRST, 1)
    made.set_used(FIRST, mapped=1)
    made.users.map_huge(made.first, made.file, FIRST)
    start = made.first.next_address - 2 * 512 * 4096
    made.users.set_entry(made.first, start, without_access(FIRST, 1 << 7), level=1)
    (use,) = made.used()
    assert mapped_by(use) == {"first": 1}


# PAGE_NONE: PTE_AF, PTE_NG, PTE_PXN, PTE_UXN, PTE_RDONLY, and PTE_PROT_NONE up to v6.9.
ARM64_NONE = 1 << 10 | 1 << 11 | 1 << 53 | 1 << 54 | 1 << 7


@pytest.mark.parametrize("flags", [ARM64_NONE | 2, ARM64_NONE | 2 | 1 << 58])
def test_memory_of_arm64_without_access_is_mapped(flags: int) -> None:
    made = machine("arm64-5.16")
    made.users.own(made.file, FIRST, 1)
    start = made.first.next_address
    made.users.map(made.first, made.file, [None])
    made.users.set_entry(made.first, start, FIRST << 12 | flags)
    (use,) = made.used()
    assert mapped_by(use) == {"first": 1}


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_a_thread_may_have_a_pipe_of_its_own(layout: str) -> None:
    made = machine(layout)
    made.users.pipe(made.first, [FIRST])
    made.users.take_files(made.first, made.users.thread(made.first))
    made.set_used(FIRST, others=1)
    (use,) = made.used()
    (held,) = use.held_by
    assert [opened.process.name for opened in held.opened_by] == ["first"]
    assert not use.has_unknown_user


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_page_that_only_belongs_to_a_file_is_not_used(layout: str) -> None:
    # A DAX entry without a mapping, or a devdax page that was unmapped.
    made = machine(layout)
    made.users.own(made.file, FIRST, 2)
    made.users.map(made.first, made.file, [None, None])
    assert made.used() == []


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_pages_of_a_file_that_nothing_maps_have_its_path(layout: str) -> None:
    made = machine(layout)
    made.users.own(made.file, FIRST, 1, index=3)
    made.set_used(FIRST, others=1)
    (use,) = made.used()
    assert (use.owner.path, use.mapped_by, use.unknown_references) == ("/mnt/file", (), 1)


@pytest.mark.parametrize("kind", ["pipefifo_fops", "pipeanon_fops"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_in_a_pipe(layout: str, kind: str) -> None:
    made = machine(layout)
    made.set_used(FIRST, others=1, pages=3)
    made.users.pipe(made.first, range(FIRST, FIRST + 3), kind)
    (use,) = made.used()
    (holder,) = use.held_by
    assert (holder.holder.kind, holder.references) == (HolderKind.PIPE, 3)
    assert [(o.process.name, o.fd) for o in holder.opened_by] == [("first", 3)]
    assert not use.has_unknown_user


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_registered_buffer_has_pins(layout: str) -> None:
    made = machine(layout)
    made.set_used(FIRST, others=PIN, pages=2)
    made.users.ring(made.second, [FIRST, FIRST + 1])
    (use,) = made.used()
    (holder,) = use.held_by
    assert (use.pins, holder.holder.kind, holder.references) == (1, HolderKind.IO_URING, 2)
    assert [o.process.name for o in holder.opened_by] == ["second"]
    assert not use.has_unknown_user


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_has_no_user_is_said_to_have_none(layout: str) -> None:
    made = machine(layout)
    made.users.own(made.file, FIRST, 4)
    made.set_used(FIRST, mapped=1, others=2 + 3 * PIN, pages=4)
    made.users.map(made.first, made.file, range(FIRST, FIRST + 4))
    (use,) = made.used()
    assert mapped_by(use) == {"first": 4}
    assert use.pins == 3
    assert (use.unknown_references, use.unknown_pins) == (4 * 2, 4 * 3)


def test_a_mapping_without_a_vma_is_unknown() -> None:
    made = machine("7.2")
    made.users.own(made.file, FIRST, 4)
    made.set_used(FIRST, mapped=3, pages=4)
    made.users.map(made.first, made.file, range(FIRST, FIRST + 4))
    (use,) = made.used()
    assert use.unknown_mappings == 4 * 2


# Large folios.


def set_folio(made: Machine, pfn: int, references: int, pins: int, mappings: int) -> None:
    kernel = made.kernel
    made.users.count(pfn, references)
    layout, page = kernel.layout, kernel.page(pfn)
    if layout.has_member("page", "compound_pincount"):
        kernel.poke_member("page", page + 64, "compound_pincount", pins)
    else:
        kernel.poke_member("folio", page, "_pincount", pins)
    if layout.has_member("folio", "_large_mapcount"):
        kernel.poke_member("folio", page, "_large_mapcount", mappings - 1)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_large_folio_counts_its_pins(layout: str) -> None:
    made = machine(layout, "MEMORY_DEVICE_GENERIC", shift=9)
    pfn = START + 512
    made.kernel.poke_page_word(pfn, _MAPPING, made.file.mapping)
    counted = int(made.counts_mappings)
    set_folio(made, pfn, 1 + counted + 3 + 2, 3, counted)
    made.users.map_huge(made.first, made.file, pfn)
    # By any of its pages.
    made.users.ring(made.second, [pfn, pfn + 5, pfn + 511])
    made.users.pipe(made.first, [pfn + 7, pfn + 7])
    (use,) = made.used()
    assert (use.start_pfn, use.end_pfn, use.order) == (pfn, pfn + 512, 9)
    assert (use.pins, use.mappings, mapped_by(use)) == (3, counted, {"first": 512})
    assert {holder.holder.kind: holder.references for holder in use.held_by} == {
        HolderKind.IO_URING: 3,
        HolderKind.PIPE: 2,
    }
    assert not use.has_unknown_user


@pytest.mark.parametrize("index", [0, 512])
def test_a_folio_of_a_device_may_have_the_index_of_the_next_one(index: int) -> None:
    # From v5.17 to v6.12, unless the first page of it was touched first.
    made = machine("6.1", "MEMORY_DEVICE_GENERIC", shift=9)
    pfn = START + 512
    made.users.own(made.file, pfn, 1, index=index)
    made.users.map_huge(made.first, made.file, pfn)
    (use,) = made.used()
    assert mapped_by(use) == {"first": 512}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_folios_of_one_kind_are_one_use(layout: str) -> None:
    made = machine(layout, "MEMORY_DEVICE_GENERIC", shift=9)
    for pfn in range(START, START + 4 * 512, 512):
        set_folio(made, pfn, 2, 1, 0)
    (use,) = made.used()
    assert (use.folios, use.pages, use.unknown_pins) == (4, 4 * 512, 4)


def test_a_tail_is_used_as_its_folio_is() -> None:
    made = machine("7.2", "MEMORY_DEVICE_GENERIC", shift=9)
    set_folio(made, START + 512, 3, 0, 0)
    ((use,),) = (pgmap.uses for pgmap in made.pins(START + 512 + 77).pgmaps)
    assert (use.start_pfn, use.end_pfn, use.unknown_references) == (START + 512, START + 1024, 2)


# Pages that do not say what they belong to.


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_pages_that_files_share_are_found_in_all_of_these(layout: str) -> None:
    made = machine(layout)
    other = made.users.file(made.file_system, "other")
    if made.counts_mappings:
        # folio->share
        made.kernel.poke_page_word(FIRST, _INDEX, 2)
    else:
        made.kernel.poke_page_word(FIRST, _MAPPING, 1)
        made.kernel.poke_page_word(FIRST, _INDEX, 2)
    made.set_used(FIRST, mapped=2)
    made.users.map(made.first, made.file, [None, FIRST])
    made.users.map(made.second, other, [FIRST])
    found = named(made)
    (use,) = found.pgmaps[0].uses
    assert use.owner.kind is MappingKind.SHARED
    assert {(p.name, u.path) for u in use.mapped_by for p in u.processes} == {
        ("first", "/mnt/file"),
        ("second", "/mnt/other"),
    }
    assert not use.has_unknown_user


def named(made: Machine) -> Pins:
    """As if the device tree of the machine said that its disk is pmem0."""
    import dataclasses

    from drgn_zonedev.classification.reading import take_snapshot
    from drgn_zonedev.model import PgmapDevice
    from drgn_zonedev.page_users import find_pins as module

    prog = made.kernel.program()
    snapshot = take_snapshot(prog)
    device = PgmapDevice("namespace0.0", "nd", 0, "pmem0")
    (pgmap,) = snapshot.pgmaps
    subject = module._Subject((dataclasses.replace(pgmap, device=device),), None)
    search = module._PinSearch(prog, snapshot, subject)
    pgmaps = tuple(search.of_pgmap(p) for p in subject.pgmaps)
    assert search.gaps == ()
    return Pins(None, None, pgmaps, ())  # type: ignore[arg-type]


def test_pages_of_a_pci_device_are_found_by_way_of_sysfs() -> None:
    for layout in ("6.12", "7.2"):
        made = machine(layout, "MEMORY_DEVICE_PCI_P2PDMA")
        sysfs = made.users.file_system("/sys", kind="sysfs")
        allocate = made.users.file(sysfs, "allocate")
        made.users.count(FIRST, 1, 1, pages=2)
        made.users.map(made.first, allocate, [FIRST, FIRST + 1])
        (use,) = made.used()
        assert use.owner.kind is MappingKind.NONE
        assert mapped_by(use) == {"first": 2}
        assert [user.path for user in use.mapped_by] == ["/sys/allocate"]
        assert not use.has_unknown_user


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_anonymous_memory_on_a_device(layout: str) -> None:
    made = machine(layout, "MEMORY_DEVICE_COHERENT")
    anon = made.users.anon_vma(made.first, [FIRST, FIRST + 1, None], index=7)
    for i in range(2):
        made.kernel.poke_page_word(FIRST + i, _MAPPING, anon | 1)
        made.kernel.poke_page_word(FIRST + i, _INDEX, 7 + i)
    made.users.count(FIRST, 1, 1, pages=2)
    (use,) = made.used()
    assert use.owner.kind is MappingKind.ANON
    assert mapped_by(use) == {"first": 2}
    assert not use.has_unknown_user


def swap_entry(offset: int, kind: int = 29) -> int:
    """As __swp_entry() of x86-64: five bits of type, and the offset inverted from bit 9 on."""
    return kind << 59 | (~offset & (1 << 50) - 1) << 9


def arm64_entry(offset: int, kind: int = 29) -> int:
    """As __swp_entry() of arm64 since v6.10: the type from bit 6 on, and the offset from bit 12."""
    return kind << 6 | offset << 12


def older_arm64_entry(offset: int, kind: int = 29) -> int:
    """As it was before: from bit 3 and from bit 8 on."""
    return kind << 3 | offset << 8


def private(layout: str) -> tuple[Machine, int]:
    """A private page that a VMA may map, and the address where it does."""
    made = machine(layout, "MEMORY_DEVICE_PRIVATE")
    start = made.first.next_address
    anon = made.users.anon_vma(made.first, [None] * 3, index=7)
    made.kernel.poke_page_word(FIRST, _MAPPING, anon | 1)
    made.kernel.poke_page_word(FIRST, _INDEX, 8)
    made.users.count(FIRST, 1, 1)
    return made, start + 4096


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_swap_entries_say_who_maps_private_memory(layout: str) -> None:
    made, address = private(layout)
    made.users.set_entry(made.first, address, swap_entry(FIRST))
    (use,) = made.used()
    assert mapped_by(use) == {"first": 1}
    assert not use.has_unknown_user


@pytest.mark.parametrize(
    "entry",
    [0, swap_entry(FIRST + 1), swap_entry(FIRST ^ 1 << 30), swap_entry(FIRST) | 1 << 8],
    ids=["none", "another page", "far away", "PROT_NONE"],
)
def test_other_entries_do_not_map_private_memory(entry: int) -> None:
    made, address = private("7.2")
    made.users.set_entry(made.first, address, entry)
    # Of the page behind it.
    made.users.set_entry(made.first, address + 4096, swap_entry(FIRST + 2))
    (use,) = made.used()
    assert mapped_by(use) == {}
    assert use.unknown_mappings == 1


def test_one_swap_entry_maps_a_large_folio() -> None:
    made = machine("7.2", "MEMORY_DEVICE_PRIVATE")
    address = 0x7F0000000000
    made.users.set_entry(made.first, address, swap_entry(FIRST), level=1)
    mm = Object(made.kernel.program(), "struct mm_struct *", made.first.mm)
    page = address >> 12
    ((at, frames),) = mapped_frames(mm, page + 5, page + 9, 8, swapped=True)
    assert (at, frames.tolist()) == (page + 5, [FIRST + i for i in range(5, 9)])
    assert list(mapped_frames(mm, page, page + 9, 8)) == []


@pytest.mark.parametrize("kind", range(27, 32))
@pytest.mark.parametrize("encoded", [arm64_entry, older_arm64_entry])
def test_swap_entries_of_arm64_say_how_they_are_encoded(
    encoded: Callable[[int, int], int], kind: int
) -> None:
    made, address = private("arm64-5.16")
    made.users.set_entry(made.first, address, encoded(FIRST, kind))
    (use,) = made.used()
    assert mapped_by(use) == {"first": 1}
    assert not use.has_unknown_user


@pytest.mark.parametrize(
    "entry",
    [
        0,
        arm64_entry(FIRST + 1),
        older_arm64_entry(FIRST + 1),
        # PTE_PRESENT_INVALID, and PTE_PROT_NONE before that.
        arm64_entry(FIRST) | 1 << 11,
        older_arm64_entry(FIRST) | 1 << 58,
        # Of a swap file.
        arm64_entry(FIRST, 1),
        older_arm64_entry(FIRST, 1),
    ],
)
def test_other_entries_of_arm64_do_not_map_private_memory(entry: int) -> None:
    made, address = private("arm64-5.16")
    made.users.set_entry(made.first, address, entry)
    (use,) = made.used()
    assert mapped_by(use) == {}
    assert use.unknown_mappings == 1


def test_a_vma_may_map_private_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of an architecture whose page tables are not known.
    monkeypatch.setattr(VmaSearch, "knows_swap_entries", False)
    made, _ = private("7.2")
    (use,) = made.used()
    assert mapped_by(use) == {"first": None}


# Sums.


@pytest.mark.parametrize(
    ("layout", "type", "expected"),
    [
        ("6.1", "MEMORY_DEVICE_PRIVATE", 1 + 3),
        ("7.2", "MEMORY_DEVICE_PRIVATE", 1 + 3),
        ("6.1", "MEMORY_DEVICE_COHERENT", 1 + 3),
        ("7.2", "MEMORY_DEVICE_PCI_P2PDMA", 1 + END - START + 3),
        ("5.10", "MEMORY_DEVICE_PRIVATE", 1 + END - START),
        ("7.2", "MEMORY_DEVICE_FS_DAX", 1 + END - START),
    ],
)
def test_pages_account_for_the_references_to_their_pgmap(
    layout: str, type: str, expected: int
) -> None:
    made = machine(layout, type)
    made.users.count(FIRST, made.idle + 1, pages=3)
    (pgmap,) = made.pins().pgmaps
    assert pgmap.used_pages == 3
    assert pgmap.references is not None
    assert pgmap.references.expected == expected


def test_before_5_18_each_page_keeps_a_pgmap_that_is_removed() -> None:
    made = machine("5.10", "MEMORY_DEVICE_GENERIC", ref="dead")
    made.users.count(START, 0, pages=END - START)
    made.users.count(FIRST, PIN)
    made.users.ring(made.first, [FIRST])
    (pgmap,) = made.pins().pgmaps
    assert pgmap.references is not None
    assert (pgmap.references.expected, pgmap.references.found) == (1, 1)
    (use,) = pgmap.uses
    assert (use.start_pfn, use.pages, use.idle, use.pins) == (FIRST, 1, 0, 1)


# Who waits.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tasks_that_wait(layout: str) -> None:
    made = machine(layout)
    offset = 0 if made.counts_mappings else 52
    made.users.wait_for_removal(made.first, made.pgmap)
    made.users.wait_for_page(made.second, FIRST, offset)
    # Not of this device.
    made.users.wait_for_page(made.first, END + 5)
    (pgmap,) = made.pins().pgmaps
    assert [(w.process.name, w.awaited, w.pfn) for w in pgmap.waiters] == [
        ("first", Awaited.REMOVAL, None),
        ("second", Awaited.PAGE, FIRST),
    ]
    assert pgmap.is_kept


# Which pages are meant.


def test_what_can_be_asked_about() -> None:
    made = machine("7.2")
    made.set_used(FIRST, others=1, pages=2)
    page = made.kernel.page(FIRST + 1)
    for what in (made.pgmap, hex(made.pgmap), f"{made.pgmap:x}", None):
        ((use,),) = (pgmap.uses for pgmap in made.pins(what).pgmaps)
        assert use.pages == 2
    for what in (FIRST + 1, hex(FIRST + 1), page, hex(page)):
        found = made.pins(what)
        ((use,),) = (pgmap.uses for pgmap in found.pgmaps)
        assert (found.pfn, use.start_pfn, use.pages) == (FIRST + 1, FIRST + 1, 1)
        assert found.pgmaps[0].references is None
    assert made.pins(FIRST + 2).pgmaps[0].uses == ()


def test_a_device_is_meant_whatever_kind_numbers_are_of() -> None:
    with unpacked(VMCORES / "6.1-two-in-one") as files:
        prog = open_dump(files / "vmcore", files / "vmlinux")
        (pgmap,) = find_pins(prog, "pmem0").pgmaps
        for what in ("pmem0", "/dev/pmem0", pgmap.pgmap):
            assert find_pins(prog, what, "pfn").pgmaps == (pgmap,)
        # This number is no PFN.
        with pytest.raises(ValueError, match="is not a PFN"):
            find_pins(prog, hex(pgmap.pgmap.address), "pfn")


@pytest.mark.parametrize("what", [END + 7, "no-such-device", "0x12"])
def test_what_is_no_device_is_an_error(what: int | str) -> None:
    with pytest.raises(ValueError, match=r"not device memory|no device"):
        machine("7.2").pins(what)


# Damage: no loop without an end, and a word about what is missing.


def damaged(made: Machine, searched: Searched) -> UsedPages:
    found = made.pins()
    assert searched in {gap.searched for gap in found.gaps}
    ((use,),) = (pgmap.uses for pgmap in found.pgmaps)
    return use


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_a_tree_of_vmas_that_has_a_cycle_ends(layout: str) -> None:
    made = mapped_file(layout)
    node = made.users.at("vm_area_struct", made.file.vmas[0], "shared.rb")
    made.kernel.poke_member("rb_node", node, "rb_right", node)
    assert mapped_by(damaged(made, Searched.VMAS)) == {"first": 1}


def test_an_inode_that_was_freed_has_no_path() -> None:
    made = mapped_file("7.2")
    made.kernel.poke_member("address_space", made.file.mapping, "host", made.first.task)
    use = damaged(made, Searched.OWNER)
    assert (use.owner.address, use.owner.path) == (made.file.mapping, None)


def test_a_mapping_that_is_garbage_is_no_file() -> None:
    made = mapped_file("7.2")
    made.kernel.poke_page_word(FIRST, _MAPPING, 0xDEAD << 48)
    use = damaged(made, Searched.OWNER)
    assert (use.owner.path, use.mapped_by, use.unknown_mappings) == (None, (), 1)


def test_directories_that_form_a_cycle_have_no_path() -> None:
    made = mapped_file("6.1")
    above = made.kernel.member("dentry", made.file.dentry, "d_parent")
    made.kernel.poke_member("dentry", above, "d_parent", made.file.dentry)
    mount = made.kernel.member("file", made.file.file, "f_path.mnt")
    made.kernel.poke_member("vfsmount", mount, "mnt_root", 0)
    use = damaged(made, Searched.OWNER)
    assert use.owner.path is None
    assert mapped_by(use) == {"first": 1}


def test_page_tables_that_form_a_cycle_end() -> None:
    made = mapped_file("7.2")
    for frame, table in made.kernel.physical.items():
        entries = [frame << 12 | 1] * 512
        table[:] = b"".join(entry.to_bytes(8, "little") for entry in entries)
    vma = made.file.vmas[0]
    made.kernel.poke_member("vm_area_struct", vma, "vm_end", 1 << 47)
    made.kernel.poke_page_word(FIRST, _INDEX, 0)
    made.kernel.poke_page_word(FIRST + 1, _MAPPING, made.file.mapping)
    made.kernel.poke_page_word(FIRST + 1, _INDEX, 1 << 27)
    made.set_used(FIRST + 1, mapped=1)
    assert Searched.PAGE_TABLES in {gap.searched for gap in made.pins().gaps}


def test_a_page_table_that_cannot_be_read_is_named() -> None:
    made = mapped_file("7.2")
    made.kernel.hide(made.kernel.member("mm_struct", made.first.mm, "pgd"), 4096)
    assert damaged(made, Searched.PAGE_TABLES).unknown_mappings == 1


def test_a_list_of_tasks_that_is_torn_gives_those_before() -> None:
    made = mapped_file("6.1")
    made.users.pipe(made.first, [FIRST])
    tasks = made.users.at("task_struct", made.first.task, "tasks")
    made.kernel.poke_member("list_head", tasks, "next", 0xDEAD << 48)
    use = damaged(made, Searched.PROCESSES)
    assert mapped_by(use) == {"first": 1}
    assert not use.has_unknown_user


def test_a_vma_of_no_process_is_said_to_be_of_none() -> None:
    made = mapped_file("7.2")
    made.kernel.poke_member("task_struct", made.first.task, "mm", made.second.mm)
    (use,) = made.used()
    assert [user.processes for user in use.mapped_by] == [()]


def test_a_pipe_that_cannot_be_read_is_named() -> None:
    made = mapped_file("7.2")
    pipe = made.users.pipe(made.first, [FIRST])
    made.kernel.poke_member("pipe_inode_info", pipe, "bufs", 0xDEAD << 48)
    assert damaged(made, Searched.OPEN_FILES).unknown_references == 1


def test_a_wait_queue_that_is_torn_is_named() -> None:
    made = machine("7.2")
    entry = made.users.wait_for_page(made.first, FIRST)
    link = made.users.at("wait_bit_queue_entry", entry, "wq_entry.entry")
    made.kernel.poke_member("list_head", link, "next", 0xDEAD << 48)
    found = made.pins()
    assert [gap.searched for gap in found.gaps] == [Searched.WAITERS]
    assert [w.pfn for w in found.pgmaps[0].waiters] == [FIRST]


def test_struct_pages_that_cannot_be_read_are_named() -> None:
    made = machine("7.2")
    made.set_used(FIRST, others=1)
    made.kernel.unmap_memmap(FIRST + 64, FIRST + 128)
    use = damaged(made, Searched.STRUCT_PAGES)
    assert (use.start_pfn, use.pages) == (FIRST, 1)


@pytest.mark.parametrize(
    "name", ["struct vm_area_struct", "struct task_struct", "bit_wait_table", "struct file"]
)
def test_debugging_information_that_is_missing_is_named(name: str) -> None:
    made = mapped_file("7.2")
    found = find_pins(made.kernel.program(hidden=frozenset({name})))
    assert any(name in gap.reason for gap in found.gaps)
    ((use,),) = (pgmap.uses for pgmap in found.pgmaps)
    assert use.references == 2


def test_a_use_that_two_windows_divide_is_one() -> None:
    kernel = FakeKernel("7.2", users=True)
    end = START + (1 << 20)
    for nr in range(START // 0x8000, end // 0x8000):
        kernel.section(nr)
    pgmap = kernel.pgmap((START, end))
    border = START + (1 << 19)
    kernel.device_pages(border - 64, border + 64, pgmap)
    users = Users(kernel)
    users.count(border - 2, 1, pages=4)
    users.pipe(users.process(5, "keeps"), range(border - 2, border + 2))
    ((use,),) = (p.uses for p in find_pins(kernel.program()).pgmaps)
    assert (use.start_pfn, use.pages) == (border - 2, 4)
    assert [holder.references for holder in use.held_by] == [4]


def test_both_ends_of_a_pipe_are_one() -> None:
    made = machine("7.2")
    made.set_used(FIRST, others=1)
    pipe = made.users.pipe(made.first, [FIRST])
    made.users.open(made.first, "pipefifo_fops", pipe)
    made.users.open(made.second, "pipefifo_fops", pipe)
    (use,) = made.used()
    (holder,) = use.held_by
    assert holder.references == 1
    assert [(o.process.name, o.fd) for o in holder.opened_by] == [
        ("first", 3),
        ("first", 4),
        ("second", 3),
    ]


def test_who_maps_a_page_without_a_known_user_and_waits_for_io_is_named() -> None:
    made = mapped_file("7.2")
    assert made.used()[0].sleepers == ()
    made.kernel.poke_member("task_struct", made.first.task, "__state", 2)
    (use,) = made.used()
    assert [(s.process.name, s.stack) for s in use.sleepers] == [("first", ())]
    # Not if all users are known.
    made.users.pipe(made.first, [FIRST])
    assert made.used()[0].sleepers == ()


def test_pages_that_are_all_used_differently_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drgn_zonedev.page_users.find_pins._MOST_USES", 8)
    made = machine("7.2")
    for i in range(20):
        made.set_used(FIRST + i, others=1 + i)
    found = made.pins()
    (pgmap,) = found.pgmaps
    assert [use.start_pfn for use in pgmap.uses] == [FIRST + i for i in range(8)]
    assert pgmap.references is None
    ((searched, address),) = {(gap.searched, gap.address) for gap in found.gaps}
    assert (searched, address) == (Searched.STRUCT_PAGES, made.kernel.page(FIRST + 8))


def test_page_tables_of_arm64_say_who_maps_a_page() -> None:
    made = machine("arm64-5.16")
    made.users.own(made.file, FIRST, 2)
    made.users.map(made.first, made.file, [FIRST, FIRST + 1])
    made.users.map(made.second, made.file, [None, FIRST + 1])
    found = made.pins()
    assert found.gaps == ()
    first, both = found.pgmaps[0].uses
    assert (mapped_by(first), mapped_by(both)) == ({"first": 1}, {"first": 1, "second": 1})


@pytest.mark.parametrize("name", ["5.10-two-in-one", "6.1-fsdax-collision", "7.3-devdax-2m"])
def test_idle_devices_of_real_kernels_have_the_references_that_they_should(name: str) -> None:
    with unpacked(VMCORES / name) as files:
        found = find_pins(open_dump(files / "vmcore", files / "vmlinux"))
    for pgmap in found.pgmaps:
        assert pgmap.references is not None
        assert pgmap.references.found == pgmap.references.expected > 1
        assert pgmap.uses == ()
    # An export has no processes.
    assert {gap.searched for gap in found.gaps} == {Searched.DEBUGINFO}
