# SPDX-License-Identifier: LGPL-2.1-or-later

"""What the truth module leaves in the memory of a machine that it has stopped."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from support.fakekernel import FakeKernel

from drgn_zonedev.lab.truth import frozen
from drgn_zonedev.lab.truth.frozen import IRREGULAR, Is, Use, read_frozen
from drgn_zonedev.lab.truth.guest_facts import is_ready, parse_facts

SOURCE = (Path(frozen.__file__).parents[1] / "guest" / "zonedev_truth.c").read_text()
NODE = (0, 1, 0x3FFDF, 0x3FF7D)
ZONE = (0, 1, 0x1000, 0x3EFDF, 0x3EFDF, 0x37D83, *range(16))


def test_answers_are_read_from_the_guests_memory() -> None:
    kernel = FakeKernel("6.12")
    places = [put(kernel, "<4Q", NODE), put(kernel, "<22Q", ZONE)]
    runs = struct.pack("<QQhhhhII", 0x10, 0x12, 1, 0, 9, -1, Is.ONLINE | Is.TAIL, Use.THP)
    runs += struct.pack("<QQhhhhII", 0x20, 0x21, 5, 2, IRREGULAR, 3, Is.BUDDY, 0)
    places.append(kernel.allocate(len(runs)))
    kernel.poke(places[-1], runs)
    facts = {"frozen": put(kernel, "<6Q", (1, 1, 2, *places))}
    found = read_frozen(kernel.program(), facts)
    assert found is not None
    assert found.nodes.tolist() == [NODE]
    assert found.zones["managed"].tolist() == [0x37D83]
    assert found.zones["nr_free"].tolist() == [list(range(16))]
    assert found.pfn.tolist() == [0x10, 0x11, 0x20]
    assert found.column("zone").tolist() == [1, 1, 5]
    assert found.column("nid").tolist() == [0, 0, 2]
    assert found.column("order").tolist() == [9, 9, IRREGULAR]
    assert found.column("buddy_order").tolist() == [-1, -1, 3]
    assert found.yes(Is.TAIL).tolist() == [True, True, False]
    assert found.yes(Is.BUDDY).tolist() == [False, False, True]
    assert found.column("uses").tolist() == [Use.THP, Use.THP, 0]


def put(kernel: FakeKernel, form: str, values: tuple[int, ...]) -> int:
    data = struct.pack(form, *values)
    address = kernel.allocate(len(data))
    kernel.poke(address, data)
    return address


def test_guest_that_was_not_stopped_has_no_answers() -> None:
    assert read_frozen(FakeKernel("6.12").program(), {}) is None


def test_module_and_reader_agree_on_the_numbers_of_the_answers() -> None:
    theirs = {name: 1 << int(bit) for name, bit in re.findall(r"IS_(\w+) = 1 << (\d+),", SOURCE)}
    assert theirs == {name: value.value for name, value in Is.__members__.items()}
    assert f"#define IRREGULAR ({IRREGULAR})" in SOURCE
    assert set(re.findall(r"BIT_OF\(([A-Z_]+)\)", SOURCE)) == set(Use.__members__)


def test_stopped_guest_says_where_its_answers_are() -> None:
    text = "== begin uname\r\n6.12\r\n== end uname\r\n== frozen ffffc90000012000\n"
    assert is_ready(text)
    assert parse_facts(text) == {"uname": "6.12", "frozen": 0xFFFFC90000012000}
    # The number may still be on its way.
    assert not is_ready("== frozen ffffc9000001")
    assert "frozen" not in parse_facts("== frozen ffffc9000001")
