# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import random

import pytest
from drgn import Architecture, Object, Platform, Program, Qualifiers, Type, TypeKind, sizeof
from support.rawbtf import BtfWriter

from drgn_zonedev.debuginfo.btf import BtfKind, parse_btf
from drgn_zonedev.debuginfo.btf_types import BtfTypes
from drgn_zonedev.debuginfo.damage import DebugInfoError

CONST, VOLATILE, TYPEDEF, FWD, FLOAT, TYPE_TAG = 10, 9, 8, 7, 16, 18


def program(writer: BtfWriter) -> Program:
    prog = Program(Platform(Architecture.X86_64))
    types = BtfTypes(prog, parse_btf(writer.bytes()), {("xa_node", "marks"): 3})
    prog.register_type_finder(
        "btf", lambda _, kinds, name, __: types.find(kinds, name), enable_index=0
    )
    return prog


def members(t: Type) -> list[tuple[str | None, int, str]]:
    return [(m.name, m.bit_offset, m.type.type_name()) for m in t.members]


def test_struct_is_as_btf_says() -> None:
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    character = writer.integer("char", 1, 1)
    union = writer.compound(
        5, "", 8, [("lru", number, 0, 0), ("raw", writer.array(character, 8), 0, 0)]
    )
    writer.struct(
        "page", 24, ("flags", number, 0), ("", union, 64), ("next", writer.pointer(6), 128)
    )
    page = program(writer).type("struct page")
    assert sizeof(page) == 24
    assert members(page)[0] == ("flags", 0, "unsigned long")
    assert members(page)[2] == ("next", 128, "struct page *")
    assert members(page.members[1].type) == [("lru", 0, "unsigned long"), ("raw", 0, "char [8]")]


def test_bit_fields_have_their_width() -> None:
    writer = BtfWriter()
    number = writer.integer("unsigned int", 4)
    writer.compound(4, "slab", 4, [("inuse", number, 0, 16), ("frozen", number, 31, 1)])
    prog = program(writer)
    fields = prog.type("struct slab").members
    assert [(m.name, m.bit_offset, m.bit_field_size) for m in fields] == [
        ("inuse", 0, 16),
        ("frozen", 31, 1),
    ]
    value = Object.from_bytes_(prog, "struct slab", b"\x34\x12\x00\x80")
    assert (value.inuse.value_(), value.frozen.value_()) == (0x1234, 1)


def test_bit_field_whose_integer_type_is_narrow() -> None:
    writer = BtfWriter()
    writer.struct("old", 4, ("bit", writer.integer("unsigned int", 4, bits=3), 5))
    (field,) = program(writer).type("struct old").members
    assert (field.bit_offset, field.bit_field_size) == (5, 3)


def test_qualifiers_typedefs_and_tags() -> None:
    writer = BtfWriter()
    number = writer.integer("int", 4, 1)
    tag = writer.add(TYPE_TAG, "percpu", writer.add(CONST, "", writer.add(VOLATILE, "", number)))
    writer.add(TYPEDEF, "counter_t", tag)
    made = program(writer).type("counter_t").type
    assert made.qualifiers == Qualifiers.CONST | Qualifiers.VOLATILE
    assert made.unqualified().type_name() == "int"


def test_primitive_types_have_their_size_and_sign() -> None:
    writer = BtfWriter()
    writer.integer("long unsigned int", 8)
    writer.integer("int", 4, 1)
    writer.integer("_Bool", 1, 4)
    writer.add(FLOAT, "double", 8)
    prog = program(writer)
    assert not prog.type("unsigned long").is_signed
    assert prog.type("int").is_signed
    assert prog.type("_Bool").kind == TypeKind.BOOL
    assert prog.type("double").kind == TypeKind.FLOAT


@pytest.mark.parametrize(("size", "name"), [(1, "unsigned char"), (4, "unsigned int")])
def test_enumeration(size: int, name: str) -> None:
    writer = BtfWriter()
    writer.enum("zone_type", size, ZONE_DMA=0, ZONE_DEVICE=4)
    made = program(writer).type("enum zone_type")
    assert [(e.name, e.value) for e in made.enumerators] == [("ZONE_DMA", 0), ("ZONE_DEVICE", 4)]
    assert (made.type.type_name(), sizeof(made)) == (name, size)


def test_forward_declaration_is_the_only_definition_that_there_is() -> None:
    writer = BtfWriter()
    number = writer.integer("int", 4, 1)
    forward = writer.add(FWD, "page", 0)
    writer.struct("holder", 8, ("page", writer.pointer(forward), 0))
    writer.struct("page", 4, ("flags", number, 0))
    (member,) = program(writer).type("struct holder").members
    assert member.type.type.is_complete()


def test_forward_declaration_without_definition_is_incomplete() -> None:
    writer = BtfWriter()
    forward = writer.add(FWD, "secret", 0)
    writer.struct("holder", 8, ("secret", writer.pointer(forward), 0))
    prog = program(writer)
    assert not prog.type("struct holder").members[0].type.type.is_complete()
    with pytest.raises(LookupError):
        prog.type("struct secret")


def test_array_of_several_dimensions_is_whole_again() -> None:
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    writer.struct("xa_node", 48, ("marks", writer.array(number, 6), 0))
    (member,) = program(writer).type("struct xa_node").members
    assert member.type.type_name() == "unsigned long [3][2]"


def test_flexible_array_is_incomplete() -> None:
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    writer.struct("usage", 8, ("bits", number, 0), ("flags", writer.array(number, 0), 64))
    assert program(writer).type("struct usage").members[1].type.length is None


def test_array_of_structs_with_flexible_arrays_is_printed() -> None:
    # struct zone of Linux 5.10 ends with char x[0], which BTF does not tell from char x[].
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    zone = writer.struct("zone", 8, ("flags", number, 0), ("x", writer.array(number, 0), 64))
    zones = writer.array(zone, 2)
    writer.struct("pglist_data", 16, ("zones", zones, 0))
    prog = program(writer)
    prog.add_memory_segment(0x1000, 16, lambda address, size, *_: bytes(size), False)
    node = Object(prog, "struct pglist_data", address=0x1000)
    assert str(node.zones) == "(struct zone [2]){}"
    assert node.zones.value_() == [{"flags": 0, "x": []}] * 2
    assert prog.type("struct zone").members[1].type.length is None


def test_function_has_its_parameters() -> None:
    writer = BtfWriter()
    number = writer.integer("int", 4, 1)
    writer.function("printk", number, ("fmt", writer.pointer(number)), ("", 0))
    btf = parse_btf(writer.bytes())
    types = BtfTypes(Program(Platform(Architecture.X86_64)), btf)
    made = types.type(btf.type(btf.find(BtfKind.FUNC, "printk")[0]).reference)
    assert made.is_variadic
    assert [(p.name, p.type.type_name()) for p in made.parameters] == [("fmt", "int *")]


def test_type_that_refers_to_itself_is_damage() -> None:
    writer = BtfWriter()
    writer.add(TYPEDEF, "endless", 2)
    writer.pointer(1)
    with pytest.raises(DebugInfoError, match="refers to itself"):
        program(writer).type("endless")


@pytest.mark.parametrize(
    "build",
    [
        lambda w: w.struct("bad", 4, ("beyond", w.integer("int", 4, 1), 64)),
        lambda w: w.struct("bad", 0xFFFFFFFF),
        lambda w: w.struct("bad", 4, ("array", w.array(w.integer("int", 4, 1), 0x7FFFFFFF), 0)),
        lambda w: w.struct("bad", 4, ("nothing", 77, 0)),
        lambda w: w.struct("bad", 4, ("function", w.add(12, "f", 0), 0)),
        lambda w: w.struct("bad", 4, ("size", w.integer("int", 0), 0)),
        lambda w: w.struct("bad", 4, ("array", w.array(0, 5), 0)),
        lambda w: w.struct("bad", 4, ("array", w.array(0, 0), 32)),
        lambda w: w.struct("bad", 4, ("array", w.array(w.add(CONST, "", 0), 0), 32)),
        lambda w: w.struct("bad", 4, ("array", w.array(w.add(13, "", 0), 0), 32)),
        lambda w: w.struct("bad", 4, ("array", w.array(w.add(FWD, "secret", 0), 0), 32)),
        lambda w: w.compound(4, "bad", 8, [("field", w.struct("s", 4), 0, 3)]),
        lambda w: w.struct("bad", 4, ("", w.integer("int", 4, 1), 0)),
        lambda w: w.struct("bad", 4, ("", w.array(w.integer("int", 4, 1), 1), 0)),
        lambda w: w.struct("bad", 4, ("long", w.integer("long", 8, 1), 0)),
        lambda w: w.struct("bad", 4, ("itself", 1, 0)),
        lambda w: w.struct("bad", 4, ("", w.compound(5, "", 4, [("", w.array(3, 1), 0, 0)]), 0)),
        lambda w: w.struct("bad", 4, ("", w.add(FWD, "bad", 0), 0)),
        lambda w: w.struct("bad", 4, ("", w.add(CONST, "", w.add(FWD, "bad", 0)), 0)),
        lambda w: w.struct("bad", 4, ("ratio", w.add(FLOAT, "double", 3), 0)),
        lambda w: w.struct("bad", 4, ("code", w.add(13, "", 0), 0)),
        lambda w: w.struct("bad", 4, ("code", w.add(TYPEDEF, "f", w.add(13, "", 0)), 0)),
        lambda w: w.struct("bad", 4, ("undefined", w.add(FWD, "secret", 0), 0)),
    ],
)
def test_impossible_struct_is_damage(build) -> None:  # type: ignore[no-untyped-def]
    writer = BtfWriter()
    build(writer)
    with pytest.raises(DebugInfoError, match="damaged"):
        _look_at(program(writer).type("struct bad"))


def _look_at(t: Type) -> None:
    for member in t.members:
        _ = member.type


def test_every_damage_of_types_is_one_error() -> None:
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    writer.struct("page", 24, ("flags", number, 0), ("list", writer.pointer(2), 64))
    writer.enum("zone_type", 4, ZONE_DEVICE=4)
    writer.add(TYPEDEF, "pfn_t", writer.add(CONST, "", writer.array(number, 3)))
    whole = writer.bytes()
    rng = random.Random(2)
    errors = 0
    for _ in range(1000):
        data = bytearray(whole)
        data[rng.randrange(24, len(data))] = rng.choice((0, 1, 2, 0x7F, 0xFF))
        try:
            types = BtfTypes(Program(Platform(Architecture.X86_64)), parse_btf(bytes(data)))
            for type_id in range(types.btf.end_id):
                made = types.type(type_id)
                if made.kind in (TypeKind.STRUCT, TypeKind.UNION) and made.is_complete():
                    _look_at(made)
        except DebugInfoError:
            errors += 1
    assert 100 < errors < 1000
