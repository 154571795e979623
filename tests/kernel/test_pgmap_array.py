# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, collision, partial
from support.kernels import each_layout

from drgn_zonedev.kernel.memremap import find_dev_pagemap
from drgn_zonedev.kernel.pgmap_array import pgmap_array_slot

# Both ends of every pgmap, and what is beside them, and far beyond the tree.
PFNS = (0x0, 0x23FFF, 0x24000, 0x24400, 0x27FFF, 0x28000, 0x2FFFF, 0x30000, 1 << 30)


@each_layout
@pytest.mark.parametrize("pfn", PFNS)
def test_slot_holds_what_xa_load_returns(layout: str, pfn: int) -> None:
    prog = collision(layout).program()
    address, value = pgmap_array_slot(prog, pfn)
    found = find_dev_pagemap(prog, pfn).value_()
    assert prog.read_u64(address) == value
    # Beyond the tree, there is no slot but that of the root.
    assert value == found or (not found and pfn >> 20)


@pytest.mark.parametrize("pfn", [0x100000, 0x100001, 0x107FFF, 0x113FFF])
def test_erased_slot_takes_the_pgmap_away_from_its_pfn(pfn: int) -> None:
    kernel = partial("6.1")
    address, value = pgmap_array_slot(kernel.program(), pfn)
    assert value
    kernel.poke(address, bytes(8))
    assert not find_dev_pagemap(kernel.program(), pfn)


def test_empty_array_has_its_root_only() -> None:
    kernel = FakeKernel()
    kernel.section(0)
    prog = kernel.program()
    root = prog["pgmap_array"].xa_head
    assert pgmap_array_slot(prog, 5) == (root.address_, 0)
