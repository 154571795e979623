# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tree of I/O memory, and what is done about a damaged one."""

from __future__ import annotations

import pytest
from drgn import Object, Program, Type, TypeMember
from support.fakekernel import FakeKernel

import drgn_zonedev.kernel.resource as module
from drgn_zonedev.kernel.resource import (
    Resource,
    Resources,
    for_each_resource_below,
    iomem_resources,
)


def test_tree_of_a_kernel() -> None:
    (found,) = iomem_resources(program()).found
    assert (found.name, found.start, found.is_ram) == ("Anything", 0, False)


# start, end, flags, name, sibling, child, each 8 bytes.
MEMBERS = ("start", "end", "flags", "name", "sibling", "child")


def tree(prog: Program, entries: dict[int, dict[str, int]]) -> Object:
    """Resources by their addresses; returns a pointer to the one that comes first."""
    word, string = prog.type("unsigned long"), prog.pointer_type(prog.int_type("char", 1, True))
    made: list[Type] = []
    types = {
        "name": lambda: string,
        "sibling": lambda: prog.pointer_type(made[0]),
        "child": lambda: prog.pointer_type(made[0]),
    }
    members = [
        TypeMember(types.get(name, lambda: word), name, 64 * at) for at, name in enumerate(MEMBERS)
    ]
    made.append(prog.struct_type("resource", 48, members))
    for address, values in entries.items():
        raw = b"".join(values.get(name, 0).to_bytes(8, "little") for name in MEMBERS)
        prog.add_memory_segment(
            address, 48, lambda a, count, offset, p, raw=raw: raw[offset : offset + count]
        )
    return Object(prog, prog.pointer_type(made[0]), next(iter(entries)))


def program() -> Program:
    kernel = FakeKernel()
    kernel.section(0)
    return kernel.program()


def addresses(root: Object) -> list[int]:
    return [resource.value_() for resource in for_each_resource_below(root)]


def test_parents_come_before_their_children() -> None:
    root = tree(
        program(),
        {
            0x1000: {"child": 0x2000},
            0x2000: {"sibling": 0x3000, "child": 0x4000},
            0x3000: {},
            0x4000: {},
        },
    )
    assert addresses(root) == [0x2000, 0x4000, 0x3000]


@pytest.mark.parametrize("member", ["sibling", "child"])
@pytest.mark.parametrize("target", [0x1000, 0x2000, 0x3000])
def test_a_tree_that_leads_back_into_itself_ends(member: str, target: int) -> None:
    entries = {0x1000: {"child": 0x2000}, 0x2000: {"sibling": 0x3000}, 0x3000: {member: target}}
    assert addresses(tree(program(), entries)) == [0x2000, 0x3000]


@pytest.mark.parametrize(
    ("flags", "is_ram"), [(0x200, False), (0x1000000, False), (0x81000200, True)]
)
def test_resources_are_half_open(flags: int, is_ram: bool) -> None:
    prog = program()
    root = tree(
        prog,
        {
            0x1000: {"child": 0x2000},
            0x2000: {"start": 0x100000, "end": 0x1FFFFF, "flags": flags, "name": 1 << 40},
        },
    )
    assert read_tree(prog, root).found == (Resource(0x100000, 0x200000, "?", 0x2000, is_ram),)


def read_tree(prog: Program, root: Object) -> Resources:
    def find(prog: Program, name: str, flags: object, filename: str | None) -> Object | None:
        return root[0] if name == "iomem_resource" else None

    prog.register_object_finder("resources", find, enable_index=0)
    return iomem_resources(prog)


def test_what_cannot_be_read_is_named_and_the_rest_is_there() -> None:
    prog = program()
    entries = {
        0x1000: {"child": 0x2000},
        0x2000: {"sibling": 0x3000, "child": 0x4000},
        0x3000: {"child": 0x5000},
    }
    found = read_tree(prog, tree(prog, entries))
    assert [r.address for r in found.found] == [0x2000, 0x3000]
    assert found.unreadable == (0x4000, 0x5000)


def test_a_tree_without_an_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_RESOURCES", 4)
    prog = program()
    entries = {0x1000: {"child": 0x2000}}
    entries |= {0x1000 * i: {"sibling": 0x1000 * (i + 1)} for i in range(2, 9)}
    found = read_tree(prog, tree(prog, entries))
    assert [r.address for r in found.found] == [0x2000, 0x3000, 0x4000]
    assert found.unreadable == (0x5000,)
