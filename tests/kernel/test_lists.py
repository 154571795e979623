# SPDX-License-Identifier: LGPL-2.1-or-later

"""Lists, sound and damaged."""

from __future__ import annotations

import pytest
from drgn import FaultError, Object, Program, TypeMember
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.lists import list_entries

HEAD = 0x10000


def entries(links: dict[int, int]) -> list[int]:
    """Addresses of the entries, whose list_head is at +8, of a list at HEAD."""
    kernel = FakeKernel()
    kernel.section(0)
    prog = kernel.program()
    pointer = prog.pointer_type(prog.void_type())
    head_type = prog.struct_type("list_head", 16, (TypeMember(pointer, "next", 0),))
    entry_type = prog.struct_type("entry", 24, (TypeMember(head_type, "link", 64),))

    def find(prog: Program, kinds: object, name: str, filename: str | None) -> object:
        return {"list_head": head_type, "entry": entry_type}.get(name)

    prog.register_type_finder("lists", find, enable_index=0)
    for at, to in links.items():
        raw = to.to_bytes(8, "little")
        prog.add_memory_segment(
            at, 8, lambda a, count, offset, p, raw=raw: raw[offset : offset + count]
        )
    head = Object(prog, prog.pointer_type(head_type), HEAD)
    return [entry.value_() for entry in list_entries(prog, "struct entry", head, "link")]


def test_entries_in_order() -> None:
    assert entries({HEAD: HEAD}) == []
    assert entries({HEAD: 0x20008, 0x20008: 0x30008, 0x30008: HEAD}) == [0x20000, 0x30000]


@pytest.mark.parametrize("target", [0x20008, 0x30008])
def test_list_that_never_comes_back_to_its_head_ends(target: int) -> None:
    assert entries({HEAD: 0x20008, 0x20008: 0x30008, 0x30008: target}) == [0x20000, 0x30000]


@pytest.mark.parametrize("wild", [0, 8, 0x7FFF00000008, 0xDEAD000000000100])
def test_wild_pointer_faults(wild: int) -> None:
    with pytest.raises(FaultError):
        entries({HEAD: 0x20008, 0x20008: wild})
