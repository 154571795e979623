# SPDX-License-Identifier: LGPL-2.1-or-later

"""Zero pages: what the kernel's variables say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program
from support.fakekernel import FakeKernel

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.kernel.zero_pages import hpage_pmd_order, huge_zero_pfn, zero_pfn


@pytest.mark.parametrize("find", [zero_pfn, huge_zero_pfn])
def test_variable_says_which_page_it_is(find: Callable[[Program], int | None]) -> None:
    kernel = FakeKernel("6.1")
    assert find(kernel.program()) is None
    kernel.add_variable(find.__name__, "unsigned long", 0x1234)
    assert find(kernel.program()) == 0x1234


# 2 MiB with pages of 4 KiB, and 32 MiB with those of 16 KiB.
@pytest.mark.parametrize(
    ("dump", "pages"), [("6.12-empty", 512), ("6.12-arm64-16k-neighbours", 2048)]
)
def test_huge_page_is_larger_with_larger_pages(dump: str, pages: int) -> None:
    directory = default_directory()
    assert directory is not None
    with StoredDump(directory / dump).program() as prog:
        assert 1 << hpage_pmd_order(prog) == pages
