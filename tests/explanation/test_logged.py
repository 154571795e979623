# SPDX-License-Identifier: LGPL-2.1-or-later

"""A log next to its dump."""

from __future__ import annotations

import pytest
from drgn import Program
from support.fakekernel import LAYOUTS, VMEMMAP, collision

from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.explanation.logged import (
    OtherKernelError,
    explain_logged_pages,
    known_kernel,
    log_of_dump,
    page_fields_of_types,
    read_log_of,
)
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.model import Case
from drgn_zonedev.oops_log.vmemmap_bases import BaseSource
from drgn_zonedev.opening.failures import CannotJudgeError

PFN = 0x24000


@pytest.fixture(scope="module")
def prog() -> Program:
    return collision("6.1").program()


def log(address: int, *, release: str = "", more: str = "") -> bytes:
    tainted = f"CPU: 0 PID: 1 Comm: cat Not tainted {release} #1\n" if release else ""
    return f"{tainted}RAX: {address:016x} RBX: 0000000000000000\n{more}".encode()


def test_an_address_is_a_page_of_the_dump(prog: Program) -> None:
    read = read_log_of(prog, log(VMEMMAP + PFN * 64 + 0x34))
    address = read.addresses[0]
    assert (address.pfn, address.offset, address.field) == (PFN, 0x34, "_refcount")
    assert address.base is BaseSource.DUMP
    (explanation,) = explain_logged_pages(prog, read)
    assert explanation.pfn == PFN
    assert explanation.range is not None
    assert explanation.range.case is not Case.ONLINE


def test_a_log_of_the_same_release_is_read(prog: Program) -> None:
    release = kernel_facts(prog).release
    assert read_log_of(prog, log(VMEMMAP, release=release)).pfns == (0,)


def test_a_log_of_another_release_is_refused(prog: Program) -> None:
    with pytest.raises(OtherKernelError, match=r"Linux 9\.9\.9"):
        read_log_of(prog, log(VMEMMAP, release="9.9.9"))


def test_a_log_of_another_boot_is_refused(prog: Program) -> None:
    page = 0xFFFFF5C040000000 + 0x4711 * 64
    dump = f"BUG: Bad page state in process x  pfn:4711\npage:{page:016x} refcount:0 mapcount:0\n"
    with pytest.raises(OtherKernelError, match="vmemmap is at 0xfffff5c040000000"):
        read_log_of(prog, log(VMEMMAP, more=dump))


def test_a_program_without_a_log_says_so(prog: Program) -> None:
    with pytest.raises(CannotJudgeError, match="give the FILE"):
        log_of_dump(prog)


@pytest.mark.parametrize("version", LAYOUTS)
def test_members_are_those_of_the_types(version: str) -> None:
    program = collision(version).program()
    layout = page_layout(program)
    fields = page_fields_of_types(program, "of a test")
    assert fields.size == layout.size
    assert fields.name_at(layout.refcount_offset) == "_refcount"
    assert fields.name_at(layout.mapcount_offset) == "_mapcount"
    assert fields.name_at(layout.mapping_word * 8) == "mapping"
    assert fields.name_at(layout.lru_offset + 8) == "lru.prev"
    assert fields.offset_of("compound_head", "compound_info") == layout.compound_word * 8


def test_the_dump_knows_how_many_pages_there_can_be(prog: Program) -> None:
    known = known_kernel(prog)
    assert known.base is not None
    assert known.base.address == VMEMMAP
    assert known.base.split(VMEMMAP + (known.base.pfns - 1) * 64, 64) is not None
    assert known.base.split(VMEMMAP + known.base.pfns * 64, 64) is None
