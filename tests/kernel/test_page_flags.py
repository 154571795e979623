# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Names of page flags. What each bit means follows from what the test made the page:
include/linux/page-flags.h says for which pages a flag is defined.
"""

from __future__ import annotations

import pytest
from drgn.helpers.linux.mm import decode_page_flags_value
from support.fakekernel import FakeKernel
from support.kernels import Device, device, each_layout

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.explanation.struct_page import PageWords

PFN = 0x40000
POINTER = 0xFFFF888004000100
LAYOUTS = ("5.10", "6.1", "6.12", "7.2")
# struct page: words of 8 bytes.
LINK, MAPPING, COUNTS = 1, 3, 6
TYPED = {
    "buddy": 0xF0,
    "offline": 0xF1,
    "table": 0xF2,
    "guard": 0xF3,
    "hugetlb": 0xF4,
    "slab": 0xF5,
}
BITS = {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
BITS_5_10 = {"buddy": 0x80, "offline": 0x100, "table": 0x400, "guard": 0x800}


class Machine:
    """A section of RAM."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.kernel = kernel = FakeKernel(layout)
        kernel.section(8, online=True, early=True)
        kernel.memory_block(8)
        kernel.map_memmap(PFN, 0x48000)
        kernel.ram_pages(PFN, 0x48000)

    def set_flags(self, pfn: int, *names: str) -> None:
        word = self.kernel.page_word(pfn, 0)
        for name in names:
            word |= 1 << self.kernel.layout.constant(f"PG_{name}")
        self.kernel.poke_page_word(pfn, 0, word)

    def set_type(self, pfn: int, name: str) -> None:
        """Unless this kernel has a flag for it."""
        if self.layout in ("6.12", "7.2"):
            word = TYPED[name] << 24
        elif name in ("slab", "hugetlb"):
            self.set_flags(pfn, *(["slab"] if name == "slab" else []))
            return
        else:
            word = 0xFFFFFFFF & ~(BITS_5_10 if self.layout == "5.10" else BITS)[name]
        self.kernel.poke_page_word(pfn, COUNTS, word)

    def compound(self, pfn: int, order: int) -> None:
        """A folio, as prep_compound_page() leaves it."""
        self.set_flags(pfn, "head")
        for tail in range(pfn + 1, pfn + (1 << order)):
            self.kernel.poke_page_word(tail, LINK, self.kernel.compound_link(pfn, order))
            self.kernel.poke_page_word(tail, MAPPING, 0xDEAD000000000400)
        if self.layout in ("6.12", "7.2"):
            self.kernel.poke_page_word(pfn + 1, 0, self.kernel.page_word(pfn + 1, 0) | order)
        else:
            self.kernel.poke_page_word(pfn + 1, 2, order << 8)

    def page(self, pfn: int = PFN) -> PageWords:
        page = explain(self.kernel.program(), pfn).page
        assert page is not None
        return page

    def meaning(self, pfn: int, name: str) -> str:
        return next(f.meaning for f in self.page(pfn).fields if f.name == name)


@each_layout
def test_flag_that_shares_no_bit_has_the_name_that_drgn_gives_it(layout: str) -> None:
    names = ("locked", "referenced", "lru", "reserved", "swapbacked", "unevictable", "hwpoison")
    for name in names:
        machine = Machine(layout)
        machine.set_flags(PFN, name)
        bit = 1 << machine.kernel.layout.constant(f"PG_{name}")
        assert "|".join(machine.page().flags) == decode_page_flags_value(
            machine.kernel.program(), bit
        )


ANON, FILE = POINTER | 1, POINTER
PAGES = [
    # Anonymous pages, and shared memory: PageSwapCache() asks PG_swapbacked.
    ("swapcache", {"mapping": ANON, "also": ("swapbacked",)}, LAYOUTS),
    ("swapcache", {"mapping": FILE, "also": ("swapbacked",)}, LAYOUTS),
    ("swapcache", {"also": ("swapbacked",)}, LAYOUTS),
    ("anon_exclusive", {"mapping": ANON, "also": ("swapbacked",)}, LAYOUTS[1:]),
    ("reclaim", {"mapping": FILE, "also": ("swapbacked", "dirty")}, LAYOUTS),
    ("reclaim", {"mapping": ANON, "also": ("swapbacked", "writeback")}, LAYOUTS),
    # Files.
    ("checked", {"mapping": FILE}, LAYOUTS),
    ("mappedtodisk", {"mapping": FILE}, LAYOUTS),
    ("readahead", {"mapping": FILE}, LAYOUTS[1:]),
    ("reclaim", {"mapping": FILE}, LAYOUTS[:1]),
    ("reclaim", {"mapping": FILE, "also": ("writeback",)}, LAYOUTS),
    ("reclaim", {"mapping": FILE, "also": ("dirty",)}, LAYOUTS),
    ("dirty", {"mapping": FILE}, LAYOUTS),
    ("uptodate", {"mapping": FILE}, LAYOUTS),
    ("private_2", {"mapping": FILE}, LAYOUTS),
    # By type.
    ("reported", {"type": "buddy"}, LAYOUTS),
    ("pinned", {"type": "table"}, LAYOUTS),
    ("savepinned", {"type": "table"}, LAYOUTS),
    ("movable_ops", {"type": "offline"}, LAYOUTS[3:]),
    ("movable_ops_isolated", {"type": "offline"}, LAYOUTS[3:]),
    ("isolated", {"mapping": POINTER | 2}, LAYOUTS[:3]),
    ("slob_free", {"type": "slab"}, LAYOUTS[:2]),
    ("workingset", {"type": "slab"}, LAYOUTS),
    ("anon_exclusive", {"type": "hugetlb", "mapping": ANON}, LAYOUTS[1:]),
    ("owner_priv_1", {"type": "guard"}, LAYOUTS),
    # Pages of nothing: of the memmap of hotplugged RAM.
    ("vmemmap_self_hosted", {}, LAYOUTS[1:]),
    ("owner_priv_1", {}, LAYOUTS[:1]),
    ("private", {}, LAYOUTS),
]


@pytest.mark.parametrize(
    ("layout", "flag", "page"), [(layout, *case[:2]) for case in PAGES for layout in case[2]]
)
def test_flag_has_the_name_that_applies_to_the_page(
    layout: str, flag: str, page: dict[str, object]
) -> None:
    machine = Machine(layout)
    also = page.get("also", ())
    assert isinstance(also, tuple)
    if "type" in page:
        machine.set_type(PFN, str(page["type"]))
    machine.kernel.poke_page_word(PFN, MAPPING, int(str(page.get("mapping", 0))))
    machine.set_flags(PFN, flag, *also)
    own_flag = {"slab"} if page.get("type") == "slab" and layout in LAYOUTS[:2] else set()
    wanted = {f"PG_{name}" for name in (flag, *also, *own_flag)}
    assert set(machine.page().flags) == wanted


@each_layout
@pytest.mark.parametrize("order", [2, 9])
def test_order_of_a_folio_is_not_among_the_flags_of_its_first_tail(layout: str, order: int) -> None:
    machine = Machine(layout)
    machine.compound(PFN, order)
    machine.kernel.poke_page_word(PFN, MAPPING, ANON)
    page = machine.page(PFN + 1)
    assert page.flags == ()
    assert machine.meaning(PFN + 1, "compound_order()") == f"order {order}"
    assert machine.meaning(PFN + 1, "page->flags") == "no flags"
    # The second tail has none.
    assert "compound_order()" not in {f.name for f in machine.page(PFN + 2).fields}


@pytest.mark.parametrize(
    ("layout", "flag"),
    [
        ("5.10", "double_map"),
        ("6.1", "double_map"),
        ("6.1", "has_hwpoisoned"),
        ("6.12", "large_rmappable"),
        ("6.12", "has_hwpoisoned"),
        ("7.2", "large_rmappable"),
        ("7.2", "partially_mapped"),
    ],
)
def test_flags_of_a_first_tail_are_those_of_the_folio(layout: str, flag: str) -> None:
    machine = Machine(layout)
    machine.compound(PFN, 9)
    machine.set_flags(PFN + 1, flag)
    assert machine.page(PFN + 1).flags == (f"PG_{flag}",)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_flags_of_other_tails_depend_on_their_head(layout: str) -> None:
    machine = Machine(layout)
    machine.compound(PFN, 9)
    machine.kernel.poke_page_word(PFN, MAPPING, ANON)
    machine.set_flags(PFN + 5, "anon_exclusive", "hwpoison")
    assert set(machine.page(PFN + 5).flags) == {"PG_anon_exclusive", "PG_hwpoison"}


@each_layout
def test_flags_of_a_tail_that_leads_nowhere_have_their_first_names(layout: str) -> None:
    machine = Machine(layout)
    machine.kernel.poke_page_word(PFN, LINK, 0x1001)
    machine.set_flags(PFN, "swapcache")
    assert machine.page().flags == ("PG_owner_priv_1",)


@each_layout
def test_page_after_a_page_that_is_no_head_is_no_first_tail(layout: str) -> None:
    machine = Machine(layout)
    machine.kernel.poke_page_word(PFN + 1, LINK, machine.kernel.compound_link(PFN, 1))
    machine.set_flags(PFN + 1, "locked")
    assert machine.page(PFN + 1).flags == ("PG_locked",)


@each_layout
@pytest.mark.parametrize("name", ["buddy", "offline", "table", "guard"])
def test_page_type_is_named(layout: str, name: str) -> None:
    machine = Machine(layout)
    machine.set_type(PFN, name)
    assert machine.meaning(PFN, "page->_mapcount") == f"page type: {name}"


@pytest.mark.parametrize("order", [1, 4])
@pytest.mark.parametrize("kind", ["MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_FS_DAX"])
def test_order_of_a_folio_that_a_driver_built_is_not_among_its_flags(kind: str, order: int) -> None:
    # Of base pages, since v6.15.
    kernel = device("7.2", Device(PFN, 0x48000, kind))
    head, tail = PFN + 0x100, PFN + 0x101
    kernel.poke_page_word(
        head, 0, kernel.page_word(head, 0) | 1 << kernel.layout.constant("PG_head")
    )
    for pfn in range(tail, head + (1 << order)):
        kernel.poke_page_word(pfn, LINK, kernel.compound_link(head, order))
    kernel.poke_page_word(tail, 0, kernel.page_word(tail, 0) | order)
    page = explain(kernel.program(), tail).page
    assert page is not None
    assert page.flags == ("PG_reserved",)
    fields = {f.name: f for f in page.fields}
    assert fields["compound_order()"].meaning == f"order {order}"
    # Nothing is promised of the order, and what is promised of the flags is not about it.
    assert not [f.name for f in page.fields if f.differs]
