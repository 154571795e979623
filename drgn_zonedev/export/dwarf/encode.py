# SPDX-License-Identifier: LGPL-2.1-or-later

"""
DWARF
-----

Writes entries as DWARF 5: ``.debug_info``, ``.debug_abbrev`` and ``.debug_str``,
one compilation unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drgn_zonedev.export.dwarf import constants as dw
from drgn_zonedev.export.dwarf.dies import Attribute, Die
from drgn_zonedev.export.elf_writer import Encoding

__all__ = ("DwarfSections", "encode_dwarf", "sleb128", "uleb128")

_UNIT_HEADER_SIZE = 12


@dataclass(frozen=True)
class DwarfSections:
    """The contents of the sections."""

    info: bytes
    abbrev: bytes
    str: bytes


def uleb128(value: int) -> bytes:
    """Encode an unsigned integer."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if not value:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def sleb128(value: int) -> bytes:
    """Encode a signed integer."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        if value == (-1 if byte & 0x40 else 0):
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


class _Strings:
    def __init__(self) -> None:
        self.table = bytearray()
        self._offsets: dict[str, int] = {}

    def offset(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self.table)
            self.table += text.encode() + b"\0"
        return self._offsets[text]


class _Abbreviations:
    def __init__(self) -> None:
        self._codes: dict[tuple[int, bool, tuple[tuple[int, int], ...]], int] = {}

    def code(self, die: Die) -> int:
        shape = tuple((name, form) for name, form, _ in die.attributes)
        key = (die.tag, bool(die.children), shape)
        return self._codes.setdefault(key, len(self._codes) + 1)

    def encode(self) -> bytes:
        out = bytearray()
        for (tag, has_children, shape), code in self._codes.items():
            out += uleb128(code) + uleb128(tag) + bytes([has_children])
            for name, form in shape:
                out += uleb128(name) + uleb128(form)
            out += b"\0\0"
        return bytes(out) + b"\0"


class _Writer:
    def __init__(self, encoding: Encoding) -> None:
        self.info = bytearray()
        self.strings = _Strings()
        self.abbreviations = _Abbreviations()
        self._encoding = encoding
        self._offsets: dict[int, int] = {}
        self._references: list[tuple[int, Die]] = []

    def write(self, die: Die) -> None:
        self._offsets[id(die)] = _UNIT_HEADER_SIZE + len(self.info)
        self.info += uleb128(self.abbreviations.code(die))
        for _, form, value in die.attributes:
            self._write_value(form, value)
        for child in die.children:
            self.write(child)
        if die.children:
            self.info += b"\0"

    def resolve(self) -> None:
        """Fill in the references, which may point forward."""
        for position, die in self._references:
            target = self._encoding.pack("I", self._offsets[id(die)])
            self.info[position : position + 4] = target

    def _write_value(self, form: int, value: object) -> None:
        if isinstance(value, Die):
            self._references.append((len(self.info), value))
            self.info += bytes(4)
        elif isinstance(value, str):
            self.info += self._encoding.pack("I", self.strings.offset(value))
        else:
            assert isinstance(value, int)
            self.info += self._number(form, value)

    def _number(self, form: int, value: int) -> bytes:
        if form == dw.FORM_exprloc:
            location = bytes([dw.OP_addr]) + self._encoding.pack("Q", value)
            return uleb128(len(location)) + location
        if form == dw.FORM_addr:
            return self._encoding.pack("Q", value)
        if form == dw.FORM_flag_present:
            return b""
        return sleb128(value) if form == dw.FORM_sdata else uleb128(value)


def _unit(top: Sequence[Die]) -> Die:
    attributes: list[Attribute] = [
        (dw.AT_producer, dw.FORM_strp, "zonedev export"),
        (dw.AT_language, dw.FORM_udata, dw.LANG_C11),
        (dw.AT_name, dw.FORM_strp, "vmlinux"),
    ]
    return Die(dw.TAG_compile_unit, attributes, list(top))


def encode_dwarf(encoding: Encoding, top: Sequence[Die]) -> DwarfSections:
    """Encode entries as the children of one compilation unit."""
    writer = _Writer(encoding)
    writer.write(_unit(top))
    writer.resolve()
    info = bytes(writer.info)
    # Length, version 5, DW_UT_compile, size of an address, offset of the abbreviations.
    header = encoding.pack("IHBBI", len(info) + _UNIT_HEADER_SIZE - 4, 5, 1, 8, 0)
    return DwarfSections(header + info, writer.abbreviations.encode(), bytes(writer.strings.table))
