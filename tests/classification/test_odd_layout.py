# SPDX-License-Identifier: LGPL-2.1-or-later

"""Debugging information that describes no kernel: one line, and nothing is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drgn import FindObjectFlags, Object, Program, Type, TypeKind, TypeMember
from support.fakekernel import LAYOUTS, collision
from support.opening import open_instead

from drgn_zonedev.classification.odd_layout import odd_member, odd_variable
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

ARRAYS = tuple(place for place in MEMBERS if place[1] in ("node_zones", "slots", "subsection_map"))

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


COMMANDS = ("check", "ranges", "sections", "pgmaps", "pfn 0x24400", "walkers", "proposal")


def answer(capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, str]:
    status = cli.main(command.split())
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out or err.count("\n") == 1
    return status, err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_kernel_is_odd(layout: str) -> None:
    prog = collision(layout).program()
    assert odd_member(prog) is odd_variable(prog) is None


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
    status, _ = answer(capsys, "check")
    assert status in (0, 1, 3)


@pytest.mark.parametrize("length", [0, None])
@pytest.mark.parametrize(("tag", "name"), ARRAYS)
def test_array_without_elements(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    name: str,
    length: int | None,
) -> None:
    def empty(prog: Program, type_: Type) -> Type:
        return prog.array_type(type_.type, length)

    monkeypatch.setitem(CHANGES, "empty", empty)
    make = collision("6.1").program
    open_instead(monkeypatch, lambda: with_member(make(), tag, name, "empty"))
    for command in ("check", "proposal"):
        status, _ = answer(capsys, command)
        assert status in (0, 1, 3)
    assert odd_member(with_member(make(), tag, name, "empty")) == f"struct {tag}.{name}"


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


# What a variable is, not only what its structures are.


def replace_variable(prog: Program, name: str, new: Callable[[Object], Object]) -> Program:
    before = prog[name]

    def find(prog: Program, wanted: str, flags: FindObjectFlags, filename: str | None) -> Any:
        return new(before) if wanted == name else None

    prog.register_object_finder("odd", find, enable_index=0)
    return prog


TYPES: dict[str, Callable[[Program], Type]] = {
    "structure": lambda prog: prog.struct_type("odd", 8, ()),
    "incomplete structure": lambda prog: prog.struct_type("odd"),
    "integer": lambda prog: prog.int_type("unsigned long", 8, False),
    "float": lambda prog: prog.float_type("double", 8),
    "section": lambda prog: prog.type("struct mem_section"),
    "array of sections": lambda prog: prog.array_type(prog.type("struct mem_section"), 4),
    "array of integers": lambda prog: prog.array_type(prog.int_type("int", 4, True), 2),
    "array without length": lambda prog: prog.array_type(
        prog.pointer_type(prog.type("struct mem_section"))
    ),
    "void pointer": lambda prog: prog.pointer_type(prog.void_type()),
    "pointer to a section": lambda prog: prog.pointer_type(prog.type("struct mem_section")),
    "pointer to a page": lambda prog: prog.pointer_type(prog.type("struct page")),
    "pointer three times": lambda prog: prog.pointer_type(
        prog.pointer_type(prog.pointer_type(prog.type("struct mem_section")))
    ),
    "function": lambda prog: prog.function_type(prog.void_type(), (), False),
}

VARIABLES = ("mem_section", "pgmap_array", "init_mm", "memory_subsys", "node_data", "vmemmap_base")


@pytest.mark.parametrize(
    "layout", [pytest.param("6.1", marks=pytest.mark.long("7.2 is in every run")), "7.2"]
)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", VARIABLES)
def test_variable_of_another_type(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
    layout: str,
) -> None:
    make = collision(layout).program
    if name not in make():
        pytest.skip(f"{layout} has no {name}")

    def odd(before: Object) -> Object:
        return Object(before.prog_, TYPES[kind](before.prog_), address=before.address_)

    open_instead(monkeypatch, lambda: replace_variable(make(), name, odd))
    for command in COMMANDS:
        status, _ = answer(capsys, command)
        assert status in (0, 1, 3)
        # Without it, there is nothing to go by, and no clear bill of health.
        assert name != "mem_section" or status == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_object_that_was_optimized_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    make = collision("6.1").program

    def absent(before: Object) -> Object:
        return Object(before.prog_, before.type_)

    open_instead(monkeypatch, lambda: replace_variable(make(), "mem_section", absent))
    status, err = answer(capsys, command)
    assert status == 3
    assert "the debugging information is incomplete: " in err


# drgn has no type of its own for what libdw says, and decodes names.
DAMAGE = (
    Exception("libdw error: invalid DWARF"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE, ids=["libdw", "name"])
@pytest.mark.parametrize("tag", ["mem_section", "dev_pagemap"])
def test_debugging_information_that_drgn_cannot_read(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
    damage: Exception,
    command: str,
) -> None:
    def make() -> Program:
        prog = collision("6.1").program()

        def find(prog: Program, kinds: set[TypeKind], name: str, filename: str | None) -> None:
            if name == tag:
                raise damage

        prog.register_type_finder("odd", find, enable_index=0)
        return prog

    open_instead(monkeypatch, make)
    status, err = answer(capsys, command)
    assert status == 3
    assert f"the debugging information is damaged: {damage}" in err
