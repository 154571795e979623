# SPDX-License-Identifier: LGPL-2.1-or-later

"""Zero pages: what the kernel's variables say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.zero_pages import huge_zero_pfn, zero_pfn


@pytest.mark.parametrize("find", [zero_pfn, huge_zero_pfn])
def test_variable_says_which_page_it_is(find: Callable[[Program], int | None]) -> None:
    kernel = FakeKernel("6.1")
    assert find(kernel.program()) is None
    kernel.add_variable(find.__name__, "unsigned long", 0x1234)
    assert find(kernel.program()) == 0x1234
