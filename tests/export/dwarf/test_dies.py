# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which types a tree takes along, and which stay declarations."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from drgn import (
    Architecture,
    Object,
    Platform,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeMember,
    TypeParameter,
)

from drgn_zonedev.export.dwarf import constants as dw
from drgn_zonedev.export.dwarf.dies import Die, Tree

PROG = Program(Platform(Architecture.X86_64))
INT = PROG.int_type("int", 4, True)
LONG = PROG.int_type("unsigned long", 8, False)
CHAR = PROG.int_type("char", 1, True)


def struct(tag: str | None, *types: Type | Callable[[], Type]) -> Type:
    members = [TypeMember(of, f"m{i}", 64 * i) for i, of in enumerate(types)]
    return PROG.struct_type(tag, 8 * len(types), members)


def pointer(to: Type) -> Type:
    return PROG.pointer_type(to)


def attributes(die: Die) -> dict[int, Any]:
    return {name: value for name, _, value in die.attributes}


def named(tree: Tree, name: str) -> Die:
    """The one entry of a name."""
    (die,) = (die for die in tree.top if attributes(die).get(dw.AT_name) == name)
    return die


def is_declaration(die: Die) -> bool:
    found = attributes(die)
    assert (dw.AT_declaration in found) is not (dw.AT_byte_size in found)
    return dw.AT_declaration in found


def member(die: Die, index: int) -> dict[int, Any]:
    return attributes(die.children[index])


def test_structure_that_a_pointer_leads_to_stays_a_declaration() -> None:
    tree = Tree(())
    tree.add_type(struct("page", pointer(struct("mapping", INT))))
    assert not is_declaration(named(tree, "page"))
    assert is_declaration(named(tree, "mapping"))


def test_structure_that_is_asked_for_is_complete_behind_a_pointer() -> None:
    tree = Tree(["mapping"])
    tree.add_type(struct("page", pointer(struct("mapping", INT))))
    assert not is_declaration(named(tree, "mapping"))
    assert len(named(tree, "mapping").children) == 1


def test_structure_that_is_a_member_is_complete() -> None:
    tree = Tree(())
    tree.add_type(struct("page", struct("lru", LONG, LONG)))
    assert len(named(tree, "lru").children) == 2


def test_declaration_is_completed_when_it_is_needed() -> None:
    # In place, so that the pointers that lead to it are right.
    tree = Tree(())
    lru = struct("lru", LONG)
    first = tree.add_type(pointer(lru))
    assert first is not None
    assert is_declaration(named(tree, "lru"))
    tree.add_type(struct("page", lru))
    assert not is_declaration(named(tree, "lru"))
    assert attributes(first)[dw.AT_type] is named(tree, "lru")


def test_incomplete_structure_stays_a_declaration_however_it_is_asked_for() -> None:
    tree = Tree(["opaque"])
    tree.add_type(PROG.struct_type("opaque"))
    assert is_declaration(named(tree, "opaque"))


def test_typedef_of_a_declaration_is_completed_with_it() -> None:
    tree = Tree(())
    alias = PROG.typedef_type("pgd_t", struct("pgd", LONG))
    tree.add_type(pointer(alias))
    assert is_declaration(named(tree, "pgd"))
    tree.add_type(struct("mm", alias))
    assert not is_declaration(named(tree, "pgd"))
    assert attributes(named(tree, "pgd_t"))[dw.AT_type] is named(tree, "pgd")


def test_structure_that_holds_a_pointer_to_itself_is_one_entry() -> None:
    made: list[Type] = []
    made.append(struct("node", lambda: pointer(made[0]), lambda: pointer(made[0])))
    tree = Tree(())
    die = tree.add_type(made[0])
    assert die is named(tree, "node")
    assert die is not None
    first, second = (member(die, i)[dw.AT_type] for i in (0, 1))
    assert first is second
    assert attributes(first)[dw.AT_type] is die


@pytest.mark.parametrize(
    "again",
    [
        lambda: PROG.int_type("int", 4, True),
        lambda: pointer(INT),
        lambda: PROG.array_type(INT, 3),
        lambda: PROG.typedef_type("pfn_t", LONG),
        lambda: PROG.int_type("int", 4, True, qualifiers=Qualifiers.CONST),
        lambda: struct("page", INT),
    ],
)
def test_same_type_is_one_entry(again: Callable[[], Type]) -> None:
    tree = Tree(())
    first = tree.add_type(again())
    count = len(tree.top)
    assert tree.add_type(again()) is first
    assert len(tree.top) == count


def test_types_that_differ_in_size_or_kind_are_not_one() -> None:
    tree = Tree(())
    different = [
        INT,
        PROG.int_type("int", 2, True),
        PROG.array_type(INT, 3),
        PROG.array_type(INT, 4),
        PROG.array_type(INT),
        PROG.struct_type("same", 4, []),
        PROG.union_type("same", 4, []),
    ]
    assert len({id(tree.add_type(type_)) for type_ in different}) == len(different)


def test_void_has_no_entry_and_a_pointer_to_it_no_type() -> None:
    tree = Tree(())
    assert tree.add_type(PROG.void_type()) is None
    die = tree.add_type(pointer(PROG.void_type()))
    assert die is not None
    assert attributes(die) == {dw.AT_byte_size: 8}


def test_qualifiers_are_wrapped_around_the_type() -> None:
    tree = Tree(())
    both = Qualifiers.CONST | Qualifiers.VOLATILE
    die = tree.add_type(PROG.int_type("int", 4, True, qualifiers=both))
    tags = []
    while die is not None:
        tags.append(die.tag)
        die = attributes(die).get(dw.AT_type)
    assert sorted(tags[:2]) == [dw.TAG_const_type, dw.TAG_volatile_type]
    assert tags[2:] == [dw.TAG_base_type]


@pytest.mark.parametrize(
    ("type_", "encoding"),
    [
        (INT, dw.ATE_signed),
        (LONG, dw.ATE_unsigned),
        (CHAR, dw.ATE_signed_char),
        (PROG.int_type("unsigned char", 1, False), dw.ATE_unsigned_char),
        (PROG.int_type("char", 1, False), dw.ATE_unsigned_char),
        (PROG.bool_type("_Bool", 1), dw.ATE_boolean),
        (PROG.float_type("double", 8), dw.ATE_float),
    ],
)
def test_base_type_says_how_it_is_encoded(type_: Type, encoding: int) -> None:
    die = Tree(()).add_type(type_)
    assert die is not None
    assert attributes(die) == {
        dw.AT_name: type_.name,
        dw.AT_byte_size: type_.size,
        dw.AT_encoding: encoding,
    }


def test_bit_field_has_its_place_in_bits_and_other_members_in_bytes() -> None:
    low = TypeMember(Object(PROG, INT, bit_field_size=3), "low", 64)
    whole = TypeMember(INT, "whole", 96)
    die = Tree(()).add_type(PROG.struct_type("page", 16, [low, whole]))
    assert die is not None
    bits, rest = member(die, 0), member(die, 1)
    assert (bits[dw.AT_bit_size], bits[dw.AT_data_bit_offset]) == (3, 64)
    assert dw.AT_data_member_location not in bits
    assert rest[dw.AT_data_member_location] == 12
    assert dw.AT_bit_size not in rest


def test_array_without_a_length_has_no_count() -> None:
    tree = Tree(())
    for length, expected in ((None, {}), (0, {dw.AT_count: 0}), (7, {dw.AT_count: 7})):
        made = PROG.array_type(INT) if length is None else PROG.array_type(INT, length)
        die = tree.add_type(made)
        assert die is not None
        (subrange,) = die.children
        assert (subrange.tag, attributes(subrange)) == (dw.TAG_subrange_type, expected)


def test_enumeration_is_complete_behind_a_pointer() -> None:
    # Its enumerators are constants of the program.
    values = [TypeEnumerator("MINUS", -5), TypeEnumerator("PLUS", 1 << 30)]
    tree = Tree(())
    tree.add_type(pointer(PROG.enum_type("signs", INT, values)))
    die = named(tree, "signs")
    assert not is_declaration(die)
    assert [
        (attributes(c)[dw.AT_name], attributes(c)[dw.AT_const_value]) for c in die.children
    ] == [
        ("MINUS", -5),
        ("PLUS", 1 << 30),
    ]
    forms = [form for c in die.children for name, form, _ in c.attributes if name != dw.AT_name]
    assert forms == [dw.FORM_sdata, dw.FORM_udata]


def test_variable_and_function_have_their_addresses() -> None:
    tree = Tree(())
    tree.add_variable("max_pfn", LONG, 0x1234)
    type_ = PROG.function_type(INT, [TypeParameter(pointer(struct("page", INT)))], True)
    tree.add_function("vmemmap_populate", type_, 0x5678)
    tree.add_function("inlined", type_, None)
    assert attributes(named(tree, "max_pfn"))[dw.AT_location] == 0x1234
    function = named(tree, "vmemmap_populate")
    assert attributes(function)[dw.AT_low_pc] == 0x5678
    assert dw.AT_low_pc not in attributes(named(tree, "inlined"))
    tags = [child.tag for child in function.children]
    assert tags == [dw.TAG_formal_parameter, dw.TAG_unspecified_parameters]
    # What a function takes is no reason to take a structure along.
    assert is_declaration(named(tree, "page"))


def test_anonymous_members_are_each_their_own() -> None:
    tree = Tree(())
    inner = [struct(None, INT), struct(None, INT)]
    die = tree.add_type(struct("page", *inner))
    assert die is not None
    first, second = member(die, 0)[dw.AT_type], member(die, 1)[dw.AT_type]
    assert first is not second
    assert not is_declaration(first)
