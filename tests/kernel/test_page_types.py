# SPDX-License-Identifier: LGPL-2.1-or-later

"""Page types: the words are what the macros of include/linux/page-flags.h make of them."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FindObjectFlags, Object, Program, TypeEnumerator
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.kernel.page_kinds import flag_mask
from drgn_zonedev.kernel.page_types import PageTypes, page_types

PFN = 0x40000
# enum pagetype, in the upper byte; before that, the bit of page_type that is clear.
TYPED = {"buddy": 0xF0, "offline": 0xF1, "table": 0xF2, "hugetlb": 0xF4, "slab": 0xF5}
BITS = {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
BITS_5_10 = {"buddy": 0x80, "offline": 0x100, "kmemcg": 0x200, "table": 0x400, "guard": 0x800}
WORDS = {
    "5.10": {name: 0xFFFFFFFF & ~bit for name, bit in BITS_5_10.items()},
    "6.1": {name: 0xFFFFFFFF & ~bit for name, bit in BITS.items()},
    "6.12": {name: value << 24 for name, value in TYPED.items()},
    "7.2": {name: value << 24 for name, value in TYPED.items()},
}


def _page(layout: str, mapcount: int) -> tuple[PageTypes, Pages]:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.map_memmap(PFN, PFN + 1)
    kernel.poke_page_word(PFN, 6, mapcount)
    prog = kernel.program()
    pages = next(read_pages(prog, PFN, PFN + 1))
    assert isinstance(pages, Pages)
    return page_types(prog), pages


@each_layout
def test_each_type_is_its_own_and_no_other(layout: str) -> None:
    for name, word in WORDS[layout].items():
        types, pages = _page(layout, word)
        assert types.of(pages) == name
        assert [n for n in types.by_name if types.has(pages, n)[0]] == [name]
        assert types.has_any(pages)[0]


@each_layout
@pytest.mark.parametrize("mapcount", [-1, 0, 7, -7])
def test_counts_are_no_types(layout: str, mapcount: int) -> None:
    types, pages = _page(layout, mapcount & 0xFFFFFFFF)
    assert types.of(pages) is None
    assert not types.has_any(pages)[0]
    assert not any(types.has(pages, name)[0] for name in [*types.by_name, "no such type"])


V6_10 = {"buddy": 0x80, "table": 0x200, "slab": 0x1000}
V6_11 = {"buddy": 0x40000000, "table": 0x10000000, "slab": 0x02000000}


@pytest.mark.parametrize(("names", "reserve"), [(V6_10, 0x7F), (V6_11, 0xFFFF)])
def test_types_of_v6_10_and_v6_11_are_enumerators_and_pg_slab_is_one_of_them(
    names: dict[str, int], reserve: int
) -> None:
    prog = FakeKernel("6.1").program()
    known = prog.enum_type(
        "pagetype",
        prog.type("unsigned int"),
        [TypeEnumerator(f"PG_{name}", value) for name, value in names.items()],
    )

    def find(
        prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        value = names.get(name[len("PG_") :])
        return None if value is None else Object(prog, known, value)

    prog.register_object_finder("enum", find, enable_index=0)
    types = page_types(prog)
    # PAGE_MAPCOUNT_RESERVE
    assert types.end == ~reserve
    words = np.array([0xFFFFFFFF & ~value for value in names.values()], "<u4")
    for row, name in enumerate(names):
        assert np.flatnonzero(types.by_name[name].matches(words)).tolist() == [row]
        assert types.least <= words.view("<i4")[row] < types.end
    assert flag_mask(prog, "PG_slab") == 0
    assert flag_mask(prog, "PG_head") == 1 << prog.constant("PG_head").value_()


def test_offset_below_the_type_does_not_change_it() -> None:
    # zsmalloc keeps one there.
    types, pages = _page("6.12", 0xF4 << 24 | 0x123)
    assert types.of(pages) == "hugetlb"
