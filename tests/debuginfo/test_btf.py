# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import random
import struct

import pytest
from support.rawbtf import BtfWriter

from drgn_zonedev.debuginfo.btf import BtfKind, parse_btf
from drgn_zonedev.debuginfo.damage import DebugInfoError


def little_kernel() -> BtfWriter:
    writer = BtfWriter()
    number = writer.integer("unsigned long", 8)
    writer.struct("page", 16, ("flags", number, 0), ("private", number, 64))
    writer.enum("zone_type", 4, ZONE_NORMAL=2, ZONE_DEVICE=4)
    writer.enum64("big", TOP=1 << 63)
    writer.function("memremap_pages", writer.pointer(0), ("nid", number))
    return writer


@pytest.mark.parametrize(("order", "byteorder"), [("<", "little"), (">", "big")])
def test_types_are_found_by_kind_and_name(order: str, byteorder: str) -> None:
    writer = BtfWriter(order)
    first = writer.struct("page", 0)
    writer.add(BtfKind.FWD, "page", 0)
    second = writer.struct("page", 0)
    btf = parse_btf(writer.bytes(), byteorder)  # type: ignore[arg-type]
    assert btf.find(BtfKind.STRUCT, "page") == (first, second)
    assert btf.find(BtfKind.UNION, "page") == ()
    assert btf.find(BtfKind.STRUCT, "pag") == ()


def test_name_may_be_the_end_of_another_one() -> None:
    # BTF shares strings; libbpf does not do it, but others may.
    writer = BtfWriter()
    writer.struct("subpage", 0)
    data = bytearray(writer.bytes())
    data[24:28] = struct.pack("<I", 4)
    assert parse_btf(bytes(data)).find(BtfKind.STRUCT, "page") == (1,)


def test_anonymous_types_have_no_name_to_be_found_by() -> None:
    writer = BtfWriter()
    writer.struct("", 8)
    assert parse_btf(writer.bytes()).find(BtfKind.STRUCT, "") == ()


def test_enumerators_are_found_in_whatever_has_them() -> None:
    writer = little_kernel()
    writer.enum("", 4, ANONYMOUS=7)
    btf = parse_btf(writer.bytes())
    found = [btf.enumerator(name) for name in ("ZONE_DEVICE", "TOP", "ANONYMOUS")]
    assert [e.value for e in found if e] == [4, 1 << 63, 7]
    # Names of other things are not enumerators.
    assert btf.enumerator("flags") is None
    assert btf.enumerator("zone_type") is None


def test_value_that_looks_like_a_name_is_not_an_enumerator() -> None:
    writer = BtfWriter()
    name = writer.string("nid")
    writer.enum("e", 4, FIRST=name)
    assert parse_btf(writer.bytes()).enumerator("nid") is None


@pytest.mark.parametrize(
    ("signed", "value", "expected"),
    [(True, -1, -1), (True, -(1 << 31), -(1 << 31)), (False, 1 << 31, 1 << 31)],
)
def test_sign_of_enumerators(signed: bool, value: int, expected: int) -> None:
    writer = BtfWriter()
    writer.enum("elsewhere", 4, signed=True, NEGATIVE=-2)
    writer.enum("here", 4, signed=signed, HERE=value & 0xFFFFFFFF)
    found = parse_btf(writer.bytes()).enumerator("HERE")
    assert found
    assert found.value == expected


def test_sign_of_enumerators_before_btf_says() -> None:
    writer = BtfWriter()
    writer.enum("errors", 4, NOTHING=0xFFFFFFFF)
    writer.enum("flags", 4, HIGHEST=0x80000000)
    btf = parse_btf(writer.bytes())
    found = [btf.enumerator(name) for name in ("NOTHING", "HIGHEST")]
    assert [e.value for e in found if e] == [-1, 0x80000000]


def test_types_of_a_module_go_on_where_those_of_the_kernel_end() -> None:
    base = parse_btf(little_kernel().bytes())
    writer = BtfWriter(first_id=base.end_id, first_string=base.end_string)
    own = writer.struct("nd_pfn", 16, ("page", 2, 0))
    # A string of the base, by its offset there.
    writer.raw("", 4 << 24, 0)
    data = bytearray(writer.bytes())
    at = data.rindex(struct.pack("<III", 0, 4 << 24, 0))
    data[at : at + 4] = struct.pack("<I", base.strings.index(b"page\0"))
    btf = parse_btf(bytes(data), base=base)
    assert btf.find(BtfKind.STRUCT, "nd_pfn") == (own,)
    assert btf.find(BtfKind.STRUCT, "page") == (2, own + 1)
    (member,) = btf.members(btf.type(own))
    assert btf.type(member.type_id).name == "page"
    found = btf.enumerator("ZONE_DEVICE")
    assert found
    assert found.type_id == 3


def test_unknown_kind_is_skipped_where_the_header_says_how() -> None:
    # struct btf_layout: 3 words more, and 1 for each of vlen.
    writer = BtfWriter()
    writer.raw("later", 20 << 24 | 2, 0, 1, 2, 3, 4, 5)
    page = writer.struct("page", 0)
    types, strings = b"".join(writer.types), writer.strings
    layout = b"\0\0\0\0" * 20 + bytes([12, 4, 0, 0])
    where = 0, len(types), len(types) + len(layout), len(strings), len(types), len(layout)
    data = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, *where) + types + layout + strings
    btf = parse_btf(data)
    assert btf.find(BtfKind.STRUCT, "page") == (page,)
    with pytest.raises(DebugInfoError, match="kind 20"):
        btf.type(1)


def test_unknown_kind_without_its_layout_is_refused() -> None:
    writer = BtfWriter()
    writer.raw("later", 20 << 24, 0)
    with pytest.raises(DebugInfoError, match="type 1 has an unknown kind"):
        parse_btf(writer.bytes())


@pytest.mark.parametrize(
    "data",
    [b"", b"\x9f\xeb\x01", b"\0" * 24, little_kernel().bytes()[:-1], little_kernel().bytes()[:60]],
)
def test_cut_or_foreign_data_is_damage(data: bytes) -> None:
    with pytest.raises(DebugInfoError, match="damaged"):
        parse_btf(data)


def test_every_damage_is_one_error() -> None:
    rng = random.Random(1)
    whole = little_kernel().bytes()
    errors = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        try:
            btf = parse_btf(bytes(data))
            for type_id in range(btf.end_id):
                t = btf.type(type_id)
                if t.kind in (BtfKind.STRUCT, BtfKind.UNION):
                    list(btf.members(t))
                if t.kind in (BtfKind.ENUM, BtfKind.ENUM64):
                    list(btf.enumerators(t))
            btf.enumerator("ZONE_DEVICE")
        except DebugInfoError:
            errors += 1
    assert 100 < errors < 2000
