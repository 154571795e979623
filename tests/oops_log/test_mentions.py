# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.lines import LogLine
from drgn_zonedev.oops_log.mentions import Said, mentions

A = "ffffea0000c0ff40"


def found(text: str) -> list[tuple[Said, str, str]]:
    return [(m.role, m.name, f"{m.address:016x}") for m in mentions(LogLine(text, ((0, 1),)))]


@pytest.mark.parametrize(
    "text",
    [
        f"BUG: unable to handle page fault for address: {A}",
        f"BUG: unable to handle kernel paging request at {A}",
        f"Unable to handle kernel paging request at virtual address {A}",
        f"BUG: Unable to handle kernel data access on read at 0x{A}",
        f"Unable to handle kernel paging request for data at address 0x{A}",
        f"general protection fault, probably for non-canonical address 0x{A}: 0000 [#1] SMP",
        f"BUG: kernel NULL pointer dereference, address: {A}",
        f"Read of size 8 at addr {A} by task cat/1",
    ],
)
def test_fault_lines(text: str) -> None:
    assert found(text) == [(Said.FAULT, "fault", A)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"RAX: {A} RBX: {A} RCX: {A}", ["RAX", "RBX", "RCX"]),
        (f"RSP: 0018:{A} EFLAGS: 00010246", ["RSP"]),
        (f"R10: {A} R11: {A} R12: {A}", ["R10", "R11", "R12"]),
        (f"FS:  {A}(0000) GS:{A}(0000) knlGS:0000000000000000", ["FS", "GS"]),
        (f"x29: {A} x2 : {A} x1 : {A}", ["x29", "x2", "x1"]),
        (f" gp : {A} tp : {A} t0 : {A}", ["gp", "tp", "t0"]),
        (f"GPR04: {A} {A} {A} {A} ", ["GPR04", "GPR05", "GPR06", "GPR07"]),
        (f"Krnl GPRS: {A} {A} {A} {A}            {A} {A}", [f"GPR{i:02}" for i in range(6)]),
    ],
)
def test_registers(text: str, names: list[str]) -> None:
    assert found(text) == [(Said.REGISTER, name, A) for name in names]


def test_a_register_says_where_it_faulted() -> None:
    assert found(f"CR2: {A} CR3: {A} CR4: {A}") == [(Said.FAULT, "CR2", A)]
    assert found(f"CFAR: {A} DAR: {A} DSISR: 40000000") == [
        (Said.CODE, "CFAR", A),
        (Said.FAULT, "DAR", A),
    ]
    assert found(f"status: {A} badaddr: {A} cause: {A}") == [(Said.FAULT, "badaddr", A)]


def test_s390x_says_only_the_page() -> None:
    assert found(f"Failing address: {A} TEID: {A}") == [(Said.FAULT_PAGE, "Failing address", A)]


def test_code() -> None:
    assert found(f"RIP: 0010:[<{A}>]  [<{A}>] f+0x1/0x2")[0] == (Said.CODE, "RIP", A)
    assert found(f"[{A}] [{A}] f+0x84/0x1f0 (unreliable)") == [(Said.CODE, "trace", A)] * 2


def test_a_page_that_p_hashed_is_no_address() -> None:
    assert found(f"page:{A} refcount:1") == [(Said.PAGE, "page", A)]
    assert found("page:00000000c0ffee11 refcount:1") == []


def test_lists() -> None:
    text = f"list_add corruption. next->prev should be prev ({A}), but was dead000000000122."
    assert found(text) == [
        (Said.LIST, "list", A),
        (Said.LIST, "list", "dead000000000122"),
    ]


@pytest.mark.parametrize("text", ["", "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff]"])
def test_other_lines_mention_nothing(text: str) -> None:
    assert found(text) == []
