# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Struct pages in words. What must be marked follows from the defect: the field that
holds the word which was changed, and no other.
"""

from __future__ import annotations

import itertools
import random

import pytest
from drgn import Program
from support.defects import Defect, Injector, Overlay
from support.fakekernel import collision, partial
from support.kernels import each_layout, since_compounds
from support.littlemachine import DATA, DEVDAX, FSDAX, areas, little_machine, places

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.explanation.struct_page import PageField

ZONE, NODE = "page_zonenum()", "page_to_nid()"


def _fields(prog: Program, pfn: int) -> dict[str, PageField]:
    page = explain(prog, pfn).page
    assert page is not None
    return {f.name: f for f in page.fields}


@each_layout
def test_healthy_pages_do_not_differ(layout: str) -> None:
    prog = little_machine(layout).program()
    for pages in areas(layout):
        for pfn in places(pages, random.Random(layout), 2):
            fields = _fields(prog, pfn).values()
            assert not [f.name for f in fields if f.differs]
            # Zone, node, flags, the way to the pgmap, and the references, at least.
            assert sum(f.expected is not None for f in fields) >= 5


@each_layout
def test_field_that_was_changed_is_marked_and_no_other(layout: str) -> None:
    rng = random.Random(layout)
    prog = little_machine(layout).program()
    injector, overlay = Injector(prog, layout), Overlay(prog)
    seen = set()
    for pages in areas(layout):
        for pfn in places(pages, rng, 1):
            for defect in injector.page_defects(pages, pfn, rng):
                ((slug, *_),) = defect.expected
                (change,) = defect.changes
                with overlay.injected(defect):
                    fields = _fields(prog, pfn)
                marked = [f for f in fields.values() if f.differs]
                assert len(marked) == 1, (defect.what, marked)
                offset = change.address - injector.page(pfn, 0)
                assert marked[0].offset & ~7 == offset, defect.what
                seen.add((slug, marked[0].name))
    by_slug = dict(seen)
    assert by_slug["device-page-zone"] == ZONE
    assert by_slug["device-page-node"] == NODE
    assert by_slug["device-page-reserved"] == "page->flags"
    assert by_slug["device-page-refcount"] == "page->_refcount"
    assert by_slug["device-page-mapcount"] == "page->_mapcount"
    assert by_slug["metadata-page-refcount"] == "page->_refcount"
    if layout != "5.10":
        assert by_slug["device-compound-order"] == "compound_order()"
        assert by_slug["device-tail-mapping"] == "page->mapping"


@each_layout
def test_every_field_that_was_changed_is_marked(layout: str) -> None:
    # One broken promise hides none of the others.
    rng = random.Random(layout)
    prog = little_machine(layout).program()
    injector, overlay = Injector(prog, layout), Overlay(prog)
    for pages in areas(layout):
        for pfn in places(pages, rng, 1):
            defects = list(injector.page_defects(pages, pfn, rng))
            pairs = [
                (a, b)
                for a, b in itertools.combinations(defects, 2)
                if a.changes[0].address != b.changes[0].address
            ]
            for a, b in rng.sample(pairs, 4):
                changes = a.changes + b.changes
                with overlay.injected(Defect("two", changes, frozenset())):
                    fields = _fields(prog, pfn).values()
                marked = {f.offset & ~7 for f in fields if f.differs}
                offsets = {c.address - injector.page(pfn, 0) for c in changes}
                assert marked == offsets, (a.what, b.what)


# Of an all-zero page: no zone or flag is right, and no link; a device page that is idle
# at 1 has lost a reference. The node is 0, and a _mapcount of 0 is legal.
ZONE_AND_FLAGS = {"page->flags", ZONE}


@each_layout
@pytest.mark.parametrize("pfn", [FSDAX + 2, DATA, DEVDAX, DEVDAX + 1, DEVDAX + 9])
def test_page_that_nobody_wrote_differs_wherever_zeros_are_wrong(layout: str, pfn: int) -> None:
    prog = little_machine(layout).program()
    overlay, injector = Overlay(prog), Injector(prog, layout)
    with overlay.injected(injector.unwritten_page(pfn, 0, "")):
        fields = _fields(prog, pfn).values()
    marked = {f.name for f in fields if f.differs and f.offset not in (8, 16)}
    tail = layout != "5.10" and pfn > DEVDAX
    wanted = set(ZONE_AND_FLAGS)
    if not tail and (pfn != DATA or layout != "7.2"):
        wanted.add("page->_refcount")
    if tail and pfn == DEVDAX + 9:
        wanted.add("page->mapping")
    if tail and pfn == DEVDAX + 1:
        wanted.add("compound_order()")
    assert marked == wanted
    links = {f.offset for f in fields if f.differs and f.offset in (8, 16)}
    assert links == ({8, 16} if pfn == FSDAX + 2 else {8})


@each_layout
def test_fields_cover_the_struct_page(layout: str) -> None:
    prog = little_machine(layout).program()
    for pfn in (FSDAX, FSDAX + 2, DATA, DEVDAX, DEVDAX + 1, 0x40000):
        covered: set[int] = set()
        for f in _fields(prog, pfn).values():
            covered.update(range(f.offset, f.offset + f.size))
        assert covered == set(range(64))


@each_layout
def test_words_are_called_what_the_kernel_calls_them(layout: str) -> None:
    prog = little_machine(layout).program()
    base, ram = _fields(prog, DATA), _fields(prog, 0x40000)
    assert ("folio->pgmap" if layout == "7.2" else "page->pgmap") in base
    assert "page->zone_device_data" in base
    assert ram["page->lru.next"].meaning == "itself: an empty list"
    if layout != "5.10":
        tail = _fields(prog, DEVDAX + 513)
        name = "page->compound_info" if layout == "7.2" else "page->compound_head"
        assert f"of PFN {DEVDAX + 512:#x}" in tail[name].meaning
        assert f"of PFN {DEVDAX + 512:#x}" in str(tail[name].expected)


def test_dangling_pgmap_is_said_to_be_none() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25000, 1, 0xFFFF888000001000)
    assert "not in pgmap_array" in _fields(kernel.program(), 0x25000)["page->pgmap"].meaning
    assert _fields(kernel.program(), 0x25001)["page->pgmap"].meaning == "a pgmap"


def test_nothing_is_promised_for_pages_of_no_promise() -> None:
    fields = _fields(partial("6.1").program(), 0x100000)
    assert all(f.expected is None for f in fields.values())


def test_counts_are_in_words() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x24400, 6, 3 << 32 | 1)
    fields = _fields(kernel.program(), 0x24400)
    assert fields["page->_refcount"].meaning == "3 references"
    assert fields["page->_mapcount"].meaning == "mapped 2 times"


LRU_NEXT, LRU_PREV, MAPPING = "page->lru.next", "page->lru.prev", "page->mapping"


@each_layout
def test_poisoned_pointers_are_named(layout: str) -> None:
    kernel = little_machine(layout)
    # POISON_POINTER_DELTA of x86-64, and the constants of include/linux/poison.h.
    kernel.poke_page_word(0x40000, 1, 0xDEAD000000000100)
    kernel.poke_page_word(0x40000, 2, 0xDEAD000000000122)
    kernel.poke_page_word(0x40000, 3, 0xDEAD000000000400)
    fields = _fields(kernel.program(), 0x40000)
    assert fields[LRU_NEXT].meaning.startswith("LIST_POISON1")
    assert fields[LRU_PREV].meaning.startswith("LIST_POISON2")
    assert fields[MAPPING].meaning == "TAIL_MAPPING"


@each_layout
@pytest.mark.parametrize(
    ("byte", "name"), [(0xFF, "PAGE_POISON_PATTERN"), (0xFD, "PAGE_UNUSED"), (0xAA, "PAGE_POISON")]
)
def test_memory_that_was_filled_is_said_to_be(layout: str, byte: int, name: str) -> None:
    kernel = little_machine(layout)
    kernel.fill_pages(0x40000, 0x40001, byte)
    fields = _fields(kernel.program(), 0x40000)
    assert fields["page->flags"].meaning.endswith(f"as {name}")
    assert fields["page->_refcount"].meaning.endswith(f"as {name}")
    assert fields[MAPPING].meaning.endswith(f"as {name}")
    assert next(f for f in fields.values() if f.offset == 8).meaning.endswith(f"as {name}")


@since_compounds
def test_minus_one_in_two_counts_of_a_folio_is_no_poison(layout: str) -> None:
    kernel = little_machine(layout)
    kernel.poke_page_word(DEVDAX + 1, 2, (1 << 64) - 1)
    meanings = [f.meaning for f in _fields(kernel.program(), DEVDAX + 1).values()]
    assert not [m for m in meanings if "POISON" in m]


def test_fewer_references_than_none_are_no_count() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x24400, 6, 0xFFFFFFF9_FFFFFFF9)
    fields = _fields(kernel.program(), 0x24400)
    assert fields["page->_refcount"].meaning == "-7, not a valid count"
    assert fields["page->_mapcount"].meaning == "-7, not a valid count"


@since_compounds
def test_order_in_the_flags_of_a_first_tail_has_its_own_field(layout: str) -> None:
    fields = _fields(little_machine(layout).program(), DEVDAX + 1)
    assert fields["compound_order()"].meaning == "order 9"
    assert fields["page->flags"].meaning == "PG_reserved"
    assert fields["page->flags"].value & 0xFF == 0
