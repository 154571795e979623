# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.events import Event, EventKind, events
from drgn_zonedev.oops_log.lines import LogLine


def found(*texts: str) -> list[Event]:
    return list(events([LogLine(text, ((0, i),)) for i, text in enumerate(texts, 1)]))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("BUG: unable to handle page fault for address: ffffea0000000000", EventKind.FAULT),
        ("Unable to handle kernel paging request at virtual address f", EventKind.FAULT),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000032", EventKind.FAULT),
        ("general protection fault: 0000 [#1] SMP", EventKind.GENERAL_PROTECTION),
        ("kernel BUG at mm/page_alloc.c:1101!", EventKind.BUG),
        ("WARNING: CPU: 1 PID: 2 at mm/memremap.c:1 f+0x1/0x2", EventKind.WARNING),
        ("BUG: Bad page state in process a  pfn:1", EventKind.BAD_PAGE),
        ("BUG: Bad page map in process a  pte:1 pmd:2", EventKind.BAD_MAP),
        ("a: Corrupted page table at address 7f0000000000", EventKind.PAGE_TABLE),
        ("watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [a:1]", EventKind.LOCKUP),
        ("list_add corruption. prev->next should be next (f), but was e", EventKind.LIST),
        ("BUG: KASAN: use-after-free in f+0x1/0x2", EventKind.KASAN),
    ],
)
def test_headings(text: str, kind: EventKind) -> None:
    assert [event.kind for event in found("before", text, "after")] == [kind]


def test_the_function_and_how_it_was_reached() -> None:
    (event,) = found(
        "BUG: unable to handle page fault for address: ffffea0000000000",
        "RIP: 0010:inner+0x1/0x2 [a_module]",
        "Call Trace:",
        " ? not_certain+0x1/0x2",
        " middle+0x3/0x4",
        " outer+0x5/0x6",
        "---[ end trace 0000000000000000 ]---",
        " another+0x5/0x6",
    )
    assert (event.function, event.trace) == ("inner", ("middle", "outer"))
    assert (event.line, event.last_line) == (1, 7)


def test_lines_that_say_the_same_are_one_event() -> None:
    assert len(found("list_del corruption, a->next", "kernel BUG at lib/list_debug.c:45!")) == 1
    texts = ("Unable to handle kernel access", "Unable to handle kernel paging request")
    assert len(found(*texts)) == 1


def test_oopses_are_several() -> None:
    oops = ("general protection fault: 0000 [#1]", "RIP: 0010:f+0x1/0x2")
    assert [event.line for event in found(*oops, *oops)] == [1, 3]


def test_the_reason_of_a_bad_page() -> None:
    (event,) = found("BUG: Bad page state in process a", "page dumped because: nonzero _refcount")
    assert event.condition == "nonzero _refcount"
