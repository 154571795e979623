# SPDX-License-Identifier: LGPL-2.1-or-later

"""Entries in the form of the DWARF 5 standard, byte by byte."""

from __future__ import annotations

import struct

import pytest
from drgn import Architecture, Platform, PlatformFlags
from hypothesis import given
from hypothesis import strategies as st

from drgn_zonedev.export.dwarf import constants as dw
from drgn_zonedev.export.dwarf.dies import Die
from drgn_zonedev.export.dwarf.encode import DwarfSections, encode_dwarf, sleb128, uleb128
from drgn_zonedev.export.elf_writer import Encoding

LITTLE = Encoding(Platform(Architecture.X86_64))
BIG = Encoding(Platform(Architecture.PPC64, PlatformFlags.IS_64_BIT))
ADDRESS = 0xFFFFFFFF82000040


@pytest.mark.parametrize(
    ("value", "encoded"),
    # The examples of 7.6.
    [(2, "02"), (127, "7f"), (128, "8001"), (129, "8101"), (12857, "b964")],
)
def test_uleb128_is_that_of_the_standard(value: int, encoded: str) -> None:
    assert uleb128(value).hex() == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        *((2, "02"), (-2, "7e"), (127, "ff00"), (-127, "817f")),
        *((128, "8001"), (-128, "807f"), (129, "8101"), (-129, "ff7e")),
    ],
)
def test_sleb128_is_that_of_the_standard(value: int, encoded: str) -> None:
    assert sleb128(value).hex() == encoded


@given(st.integers(0, 1 << 70))
def test_uleb128(value: int) -> None:
    encoded = uleb128(value)
    assert sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(encoded)) == value
    assert all(byte & 0x80 for byte in encoded[:-1])
    assert not encoded[-1] & 0x80


@given(st.integers(-(1 << 70), 1 << 70))
def test_sleb128(value: int) -> None:
    encoded = sleb128(value)
    decoded = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(encoded))
    if encoded[-1] & 0x40:
        decoded -= 1 << 7 * len(encoded)
    assert decoded == value


def base_type(name: str, size: int) -> Die:
    die = Die(dw.TAG_base_type)
    die.add(dw.AT_name, dw.FORM_strp, name)
    die.add(dw.AT_byte_size, dw.FORM_udata, size)
    return die


class Unit:
    """The compilation unit that was written, read back as the standard says."""

    def __init__(self, sections: DwarfSections, order: str = "<") -> None:
        self.sections, self.order = sections, order
        self.header = struct.unpack_from(order + "IHBBI", sections.info)
        self.abbreviations = dict(self._abbreviations())
        self.at = 12
        self.unit, (self.children, self.end) = self._entry(), (self.siblings, self.at)

    def _abbreviations(self) -> list[tuple[int, tuple[int, bool, list[tuple[int, int]]]]]:
        raw, found = iter(self.sections.abbrev), []
        while code := next(raw):
            tag, has_children = next(raw), bool(next(raw))
            shape = []
            while any(pair := (next(raw), next(raw))):
                shape.append(pair)
            found.append((code, (tag, has_children, shape)))
        assert list(raw) == []
        return found

    def _entry(self) -> tuple[int, dict[int, object]]:
        code = self._byte()
        tag, has_children, shape = self.abbreviations[code]
        values = {name: self._value(form) for name, form in shape}
        self.siblings: list[tuple[int, int, dict[int, object]]] = []
        if has_children:
            found = []
            while self.sections.info[self.at]:
                start = self.at
                found.append((start, *self._entry()))
            self.at += 1
            self.siblings = found
        return tag, values

    def _byte(self) -> int:
        self.at += 1
        return self.sections.info[self.at - 1]

    def _fixed(self, layout: str) -> int:
        (value,) = struct.unpack_from(self.order + layout, self.sections.info, self.at)
        self.at += struct.calcsize(layout)
        return int(value)

    def _value(self, form: int) -> object:
        if form == dw.FORM_strp:
            raw = self.sections.str[self._fixed("I") :]
            return raw[: raw.index(0)].decode()
        if form == dw.FORM_ref4:
            return self._fixed("I")
        if form == dw.FORM_addr:
            return self._fixed("Q")
        if form == dw.FORM_exprloc:
            assert (self._byte(), self._byte()) == (9, dw.OP_addr)
            return self._fixed("Q")
        if form == dw.FORM_flag_present:
            return True
        # The numbers here are small.
        byte = self._byte()
        assert not byte & 0x80
        return byte - 128 if form == dw.FORM_sdata and byte & 0x40 else byte


@pytest.mark.parametrize(("encoding", "order"), [(LITTLE, "<"), (BIG, ">")])
def test_header_is_that_of_version_5(encoding: Encoding, order: str) -> None:
    sections = encode_dwarf(encoding, [base_type("int", 4)])
    unit = Unit(sections, order)
    # 7.5.1.1: unit_length without itself, DW_UT_compile, address_size, debug_abbrev_offset.
    assert unit.header == (len(sections.info) - 4, 5, 1, 8, 0)
    assert unit.end == len(sections.info)
    tag, values = unit.unit
    assert tag == dw.TAG_compile_unit
    assert values[dw.AT_language] == dw.LANG_C11


@pytest.mark.parametrize(("encoding", "order"), [(LITTLE, "<"), (BIG, ">")])
def test_values_of_every_form_come_back(encoding: Encoding, order: str) -> None:
    variable = Die(dw.TAG_variable)
    variable.add(dw.AT_name, dw.FORM_strp, "max_pfn")
    variable.add(dw.AT_location, dw.FORM_exprloc, ADDRESS)
    function = Die(dw.TAG_subprogram)
    function.add(dw.AT_low_pc, dw.FORM_addr, ADDRESS)
    function.add(dw.AT_prototyped, dw.FORM_flag_present, 1)
    enumerator = Die(dw.TAG_enumerator)
    enumerator.add(dw.AT_const_value, dw.FORM_sdata, -5)
    unit = Unit(encode_dwarf(encoding, [variable, function, enumerator]), order)
    assert [(tag, values) for _, tag, values in unit.children] == [
        (dw.TAG_variable, {dw.AT_name: "max_pfn", dw.AT_location: ADDRESS}),
        (dw.TAG_subprogram, {dw.AT_low_pc: ADDRESS, dw.AT_prototyped: True}),
        (dw.TAG_enumerator, {dw.AT_const_value: -5}),
    ]


def test_references_lead_forward_and_backward() -> None:
    first, second = Die(dw.TAG_pointer_type), Die(dw.TAG_pointer_type)
    first.add(dw.AT_type, dw.FORM_ref4, second)
    second.add(dw.AT_type, dw.FORM_ref4, first)
    unit = Unit(encode_dwarf(LITTLE, [first, second]))
    (one, _, to_two), (two, _, to_one) = unit.children
    assert (to_two[dw.AT_type], to_one[dw.AT_type]) == (two, one)


def test_entries_of_one_shape_share_their_abbreviation() -> None:
    same = Unit(encode_dwarf(LITTLE, [base_type("int", 4), base_type("long", 8)]))
    # That of the unit, and one more.
    assert len(same.abbreviations) == 2
    other = Die(dw.TAG_base_type)
    other.add(dw.AT_byte_size, dw.FORM_udata, 4)
    assert len(Unit(encode_dwarf(LITTLE, [base_type("int", 4), other])).abbreviations) == 3


def test_entry_with_children_has_another_abbreviation_than_one_without() -> None:
    parent = Die(dw.TAG_structure_type, children=[Die(dw.TAG_member), Die(dw.TAG_member)])
    unit = Unit(encode_dwarf(LITTLE, [parent, Die(dw.TAG_structure_type)]))
    assert [tag for _, tag, _ in unit.children] == [dw.TAG_structure_type] * 2
    shapes = [(tag, children) for tag, children, _ in unit.abbreviations.values()]
    assert (dw.TAG_structure_type, True) in shapes
    assert (dw.TAG_structure_type, False) in shapes


def test_text_is_stored_once() -> None:
    dies = [base_type("page", size) for size in (1, 2, 3)]
    assert encode_dwarf(LITTLE, dies).str.count(b"page\0") == 1


def test_unit_without_entries_is_complete() -> None:
    unit = Unit(encode_dwarf(LITTLE, []))
    assert unit.children == []
    assert unit.end == len(unit.sections.info)
