# SPDX-License-Identifier: LGPL-2.1-or-later

"""Debugging information that describes no kernel: one line, and nothing is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from drgn import Object, Program, Type, TypeKind, TypeMember
from support.fakekernel import LAYOUTS, collision
from support.opening import open_instead

from drgn_zonedev.classification.odd_layout import odd_member
from drgn_zonedev.shell import cli

MEMBERS = (
    ("dev_pagemap", "altmap"),
    ("dev_pagemap", "flags"),
    ("dev_pagemap", "nr_range"),
    ("dev_pagemap", "vmemmap_shift"),
    ("dev_pagemap", "ops"),
    ("pglist_data", "node_zones"),
    ("mem_section", "section_mem_map"),
    ("mem_section_usage", "subsection_map"),
    ("xa_node", "slots"),
    ("xa_node", "shift"),
    ("zone", "spanned_pages"),
    ("range", "end"),
)

CHANGES: dict[str, Callable[[Program, Type], Type | Object]] = {
    "array": lambda prog, type_: prog.array_type(type_, 4),
    "pointer": lambda prog, type_: prog.pointer_type(type_),
    "void pointer": lambda prog, type_: prog.pointer_type(prog.void_type()),
    "float": lambda prog, type_: prog.float_type("double", 8),
    "structure": lambda prog, type_: prog.struct_type("odd", 8, ()),
    "bit field": lambda prog, type_: Object(
        prog, prog.int_type("unsigned long", 8, False), 0, bit_field_size=3
    ),
}


def replace_type(prog: Program, tag: str, new: Type) -> Program:
    def find(prog: Program, kinds: set[TypeKind], name: str, filename: str | None) -> Type | None:
        return new if TypeKind.STRUCT in kinds and name == tag else None

    prog.register_type_finder("odd", find, enable_index=0)
    return prog


def members(prog: Program, tag: str, name: str, change: str | None) -> Iterator[TypeMember]:
    for member in prog.type(f"struct {tag}").members or ():
        if member.name != name:
            yield TypeMember(member.object, member.name, member.bit_offset)
        elif change:
            yield TypeMember(CHANGES[change](prog, member.type), name, member.bit_offset)


def with_member(prog: Program, tag: str, name: str, change: str | None) -> Program:
    size = prog.type(f"struct {tag}").size
    assert size
    return replace_type(
        prog, tag, prog.struct_type(tag, size, tuple(members(prog, tag, name, change)))
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_kernel_is_odd(layout: str) -> None:
    assert odd_member(collision(layout).program()) is None


@pytest.mark.parametrize("change", [*CHANGES, None], ids=str)
@pytest.mark.parametrize(("tag", "name"), MEMBERS)
def test_member_that_is_something_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    name: str,
    change: str | None,
) -> None:
    make = collision("6.1").program
    open_instead(monkeypatch, lambda: with_member(make(), tag, name, change))
    status = cli.main(["check"])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert status in (0, 1, 3)
    assert out or err.count("\n") == 1


@pytest.mark.parametrize("size", [0, 8, 63, 100, 4096, 1 << 31])
def test_struct_page_of_a_size_that_no_kernel_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    def make() -> Program:
        prog = collision("6.1").program()
        page = prog.type("struct page")
        return replace_type(prog, "page", prog.struct_type("page", size, page.members))

    open_instead(monkeypatch, make)
    for command in ("check", "pfn 0x24400", "walkers", "proposal"):
        assert cli.main(command.split()) == 3
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"a struct page of {size} bytes" in err
