# SPDX-License-Identifier: LGPL-2.1-or-later

"""Types that go through the small vmlinux come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drgn import (
    Architecture,
    FindObjectFlags,
    Object,
    Platform,
    Program,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
    TypeParameter,
)
from support.builtinkernel import DATA, SYMBOLS, builtin_program, builtin_types, carried
from support.rawkallsyms import TEXT

from drgn_zonedev.debuginfo.finders import register_builtin_finders
from drgn_zonedev.export.kept_names import MissingNames
from drgn_zonedev.export.vmlinux import build_vmlinux
from drgn_zonedev.pfn_walkers.functions import is_untraced, lacks_function

ADDRESS = 0xFFFFFFFF82000040


def _program() -> Program:
    return Program(Platform(Architecture.X86_64))


def _members(prog: Program) -> dict[str, Callable[[], Type]]:
    int_type = prog.int_type("int", 4, True)
    long_type = prog.int_type("unsigned long", 8, False)
    char_type = prog.int_type("char", 1, True)
    opaque = prog.struct_type("opaque")
    whole = prog.struct_type("elsewhere", 4, [TypeMember(int_type, "x")])
    return {
        "pointer": lambda: prog.pointer_type(prog.void_type()),
        "text": lambda: prog.pointer_type(char_type),
        "const_volatile": lambda: prog.int_type("int", 4, True, qualifiers=prog_qualifiers()),
        "array": lambda: prog.array_type(prog.array_type(int_type, 3), 2),
        "none": lambda: prog.array_type(int_type, 0),
        "typedef": lambda: prog.typedef_type("myint", int_type),
        "nested": lambda: prog.struct_type("nested", 8, [TypeMember(long_type, "a")]),
        "anonymous": lambda: prog.union_type(
            None, 8, [TypeMember(long_type, "u"), TypeMember(int_type, "i")]
        ),
        "opaque": lambda: prog.pointer_type(opaque),
        "whole": lambda: prog.pointer_type(whole),
        "enum": lambda: prog.enum_type(
            "signs", int_type, [TypeEnumerator("MINUS", -5), TypeEnumerator("PLUS", 1 << 30)]
        ),
        "bool": lambda: prog.bool_type("_Bool", 1),
        "double": lambda: prog.float_type("double", 8),
        "call": lambda: prog.pointer_type(
            prog.function_type(int_type, [TypeParameter(prog.pointer_type(whole))], True)
        ),
        "void_call": lambda: prog.pointer_type(prog.function_type(prog.void_type(), ())),
        "self": lambda: prog.pointer_type(prog.type("struct page")),
        "flexible": lambda: prog.array_type(long_type),
    }


def prog_qualifiers() -> int:
    from drgn import Qualifiers

    return Qualifiers.CONST | Qualifiers.VOLATILE


def _bits(prog: Program) -> list[TypeMember]:
    int_type = prog.int_type("unsigned int", 4, False)
    return [
        TypeMember(Object(prog, int_type, bit_field_size=3), "low", 0),
        TypeMember(Object(prog, int_type, bit_field_size=29), "high", 3),
    ]


def _source() -> Program:
    """A struct page with everything that C has; the last member is flexible."""
    prog = _program()
    made: dict[str, Type] = {}

    def find(prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        if TypeKind.STRUCT not in kinds or name != "page":
            return None
        if not made:
            members = _bits(prog) + [
                TypeMember(make, None if name == "anonymous" else name, 64 * (i + 1))
                for i, (name, make) in enumerate(_members(prog).items())
            ]
            made[name] = prog.struct_type("page", 8 * (len(members) + 8), members)
        return made[name]

    def objects(
        prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if name == "max_pfn" and flags & FindObjectFlags.VARIABLE:
            return Object(prog, prog.int_type("unsigned long", 8, False), address=ADDRESS)
        return None

    prog.register_type_finder("test", find, enable_index=0)
    prog.register_object_finder("test", objects, enable_index=0)
    return prog


def _reopened(tmp_path: Path, source: Program, more: MissingNames | None = None) -> Program:
    vmlinux = build_vmlinux(source, more)
    (tmp_path / "vmlinux").write_bytes(vmlinux.contents)
    prog = _program()
    info = f"OSRELEASE=6.1.0\nBUILD-ID={vmlinux.build_id.hex()}\nPAGESIZE=4096\nKERNELOFFSET=0\n"
    info += "SYMBOL(swapper_pg_dir)=ffffffff82a0c000\nSYMBOL(_stext)=ffffffff81000000\n"
    prog.set_linux_kernel_custom(info, False)
    prog.load_debug_info([tmp_path / "vmlinux"])
    return prog


def test_struct_comes_back_as_it_was(tmp_path: Path) -> None:
    source = _source()
    found = _reopened(tmp_path, source).type("struct page")
    assert str(found) == str(source.type("struct page"))
    assert found.size == source.type("struct page").size


@pytest.mark.parametrize("name", [*_members(_program()), "low", "high"])
def test_member_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    source = _source()
    prog = _reopened(tmp_path, source)
    before = source.type("struct page").members
    after = prog.type("struct page").members
    assert before is not None
    assert after is not None
    for old, new in zip(before, after):
        if old.name == name or (old.name is None and name == "anonymous"):
            assert (new.name, new.bit_offset) == (old.name, old.bit_offset)
            assert new.bit_field_size == old.bit_field_size
            assert (new.type.kind, str(new.type)) == (old.type.kind, str(old.type))
            assert new.type.qualifiers == old.type.qualifiers
            return
    pytest.fail(f"no member {name}")


def test_enumerators_become_constants(tmp_path: Path) -> None:
    prog = _reopened(tmp_path, _source())
    assert prog.constant("MINUS").value_() == -5
    assert prog.constant("PLUS").value_() == 1 << 30


def test_pointers_lead_to_declarations_unless_more_was_asked_for(tmp_path: Path) -> None:
    def pointed_at(prog: Program) -> Type:
        return prog.type("struct page").member("whole").type.type

    source = _source()
    assert not pointed_at(_reopened(tmp_path, source)).is_complete()
    more = MissingNames(types={"struct elsewhere"})
    assert pointed_at(_reopened(tmp_path, source, more)).is_complete()


def test_variable_is_where_it_was(tmp_path: Path) -> None:
    variable = _reopened(tmp_path, _source())["max_pfn"]
    assert (variable.address_, variable.type_.type_name()) == (ADDRESS, "unsigned long")


def test_copy_of_a_copy_is_the_same(tmp_path: Path) -> None:
    first = build_vmlinux(_source())
    second = build_vmlinux(_reopened(tmp_path, _source()))
    assert first.contents == second.contents


@pytest.mark.parametrize("offset", [0, 0x1A000000])
def test_types_from_btf_become_dwarf_where_the_kernel_was_linked(
    offset: int, tmp_path: Path
) -> None:
    symbols = [*SYMBOLS[:2], ("T_text", TEXT), *SYMBOLS[2:]]
    symbols.append(("D_end", DATA + 0x10000))
    prog = builtin_program(carried(builtin_types().bytes(), symbols))
    text = prog["VMCOREINFO"].string_() + f"KERNELOFFSET={offset:x}\n".encode()
    text += b"BUILD-ID=" + bytes(range(20)).hex().encode() + b"\n"

    def find(prog: Program, name: str, flags: FindObjectFlags, _: str | None) -> Object | None:
        if name != "VMCOREINFO":
            return None
        return Object(prog, prog.array_type(prog.int_type("char", 1, True), len(text)), text)

    prog.register_object_finder("relocated", find, enable_index=0)
    register_builtin_finders(prog)
    path = tmp_path / "vmlinux"
    made = build_vmlinux(prog)
    assert made.build_id == bytes(range(20))
    path.write_bytes(made.contents)
    # As it is in the file, which nothing relocates here.
    linked = _program()
    linked.extra_module("vmlinux", create=True).try_file(path, force=True)
    assert linked["max_pfn"].address_ == DATA - offset
    assert linked["max_pfn"].type_.type_name() == "unsigned long"
    assert linked["node_states"].type_.type_name() == "nodemask_t [6]"
    assert linked.symbol("memremap_pages").address == TEXT + 0x10 - offset
    (parameter,) = linked.function("memremap_pages").type_.parameters
    assert parameter.type.type_name() == "unsigned long"


def test_function_that_may_be_inlined_stays_unknown_in_an_export(tmp_path: Path) -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    register_builtin_finders(prog)
    linked = _reopened(tmp_path, prog)
    for each in (prog, linked, _reopened(tmp_path, linked)):
        assert is_untraced(each, "page_idle_get_folio")
        assert lacks_function(each, "memory_failure")
    # What vmlinux does not have, the kernel does not have.
    assert lacks_function(_reopened(tmp_path, _source()), "page_idle_get_folio")
