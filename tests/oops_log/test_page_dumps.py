# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.lines import log_lines
from drgn_zonedev.oops_log.page_dumps import PageDump, page_dumps

WORDS = [f"{i:016x}" for i in range(0x11, 0x19)]
RAW = (f"raw: {' '.join(WORDS[:4])}", f"raw: {' '.join(WORDS[4:])}")


def dumps(*texts: str) -> list[PageDump]:
    return list(page_dumps(list(log_lines(enumerate(texts, 1)))))


def test_the_form_since_6_10() -> None:
    (dump,) = dumps(
        "page: refcount:2 mapcount:-1 mapping:00000000a91cc0de index:0x10 pfn:0x880200",
        "head: order:9 mapcount:0 entire_mapcount:0 nr_pages_mapped:0 pincount:0",
        "anon flags: 0x57fffc000002041(locked|head|reserved|node=1|zone=4|lastcpupid=0x1ffff)",
        *RAW,
        "head: 0000000000000021 0000000000000022 0000000000000023 0000000000000024",
        "page dumped because: VM_BUG_ON_FOLIO(folio_test_locked(folio))",
    )
    assert (dump.pfn, dump.address, dump.refcount, dump.mapcount) == (0x880200, None, 2, -1)
    assert (dump.node, dump.zone, dump.flags) == (1, 4, 0x57FFFC000002041)
    assert dump.flag_names == ("locked", "head", "reserved")
    assert [word.value for word in dump.words] == list(range(0x11, 0x19))
    assert [word.value for word in dump.head_words] == list(range(0x21, 0x25))
    assert dump.reason == "VM_BUG_ON_FOLIO(folio_test_locked(folio))"
    assert dump.is_filled_with is None


def test_the_form_before_5_10_has_an_address() -> None:
    (dump,) = dumps(
        "page:ffffea0004ba9200 count:0 mapcount:0 mapping:0000000000000000 index:0x0",
        "flags: 0x17ffffc0000000()",
        *RAW,
    )
    assert (dump.address, dump.pfn, dump.refcount) == (0xFFFFEA0004BA9200, None, 0)
    assert (dump.node, dump.zone, dump.flag_names) == (None, None, ())


def test_bad_page_state_gives_the_pfn_of_the_page_below() -> None:
    (dump,) = dumps(
        "BUG: Bad page state in process kswapd0  pfn:10c4a0",
        "page:ffffea0004312800 refcount:-1 mapcount:0 mapping:0000000000000000 index:0x1",
        *RAW,
    )
    assert (dump.pfn, dump.address, dump.bad_state) == (0x10C4A0, 0xFFFFEA0004312800, True)


def test_a_poisoned_page() -> None:
    ones = " ".join(["f" * 16] * 4)
    (dump,) = dumps(
        "page:00000000c0ffee11 is uninitialized and poisoned", f"raw: {ones}", f"raw: {ones}"
    )
    assert dump.poisoned
    assert dump.is_filled_with == 0xFF
    # pr_warn() without an end of line, up to v7.1.
    (dump,) = dumps(f"page:ffffea0004312800 is uninitialized and poisonedraw: {ones}")
    assert dump.is_filled_with == 0xFF


def test_raw_words_alone_are_a_page() -> None:
    (dump,) = dumps("this is what it looked like:", *RAW)
    assert [word.line for word in dump.words] == [2] * 4 + [3] * 4
    assert dump.pfn is None


def test_two_pages_are_two() -> None:
    first, second = dumps(*RAW, *RAW)
    assert len(first.words) == len(second.words) == 8
    one, two = dumps("page: refcount:1 pfn:0x10", *RAW, "page: refcount:2 pfn:0x20", *RAW)
    assert (one.pfn, two.pfn) == (0x10, 0x20)


def test_other_lines_are_no_page() -> None:
    assert dumps("page allocation failure: order:0", "homepage: pfn:0x1", "Call Trace:") == []


@pytest.mark.parametrize(
    "text",
    [
        "Memory failure: 0x3ffdf: recovery action for reserved kernel page: Ignored",
        "soft_offline: 0x3ffdf: page already poisoned",
        "Soft offlining pfn 0x3ffdf at process virtual address 0x7f0000000000",
        "Injecting memory failure for pfn 0x3ffdf at process virtual address 0x7f0000000000",
        "Unpoison: Software-unpoisoned page 0x3ffdf",
    ],
)
def test_a_page_that_memory_failure_names(text: str) -> None:
    (dump,) = dumps(text)
    assert (dump.pfn, dump.words, dump.named) == (0x3FFDF, [], True)
