# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from support.exports import open_export

from drgn_zonedev.explanation.logged import page_fields_of_types
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.oops_log.page_fields import fields_of_release, read_page_words, release_number

VMCORES = Path(__file__).parents[2] / "vmcores"


@pytest.mark.parametrize("version", ["5.10", "6.1", "6.12", "7.2", "7.3"])
def test_the_guess_is_what_the_types_of_kernels_say(version: str) -> None:
    with StoredDump(VMCORES / f"{version}-empty").files() as directory:
        prog = open_export(directory)
        release = prog["UTS_RELEASE"].string_().decode()
        known = page_fields_of_types(prog, "of the dump")
    guess = fields_of_release(release)
    assert guess.size == known.size
    names = {"__folio_index": "index"}
    # Kernels without CONFIG_MEMCG, and exports, lack the last word; Debian's 5.10 backports it.
    for offset, size, name in known.members:
        if "mem" not in name:
            assert (offset, size, names.get(name, name)) in guess.members


def test_it_is_called_a_guess() -> None:
    assert "guess" in fields_of_release("6.1.0-13-amd64").source
    assert "6.1.0-13-amd64" in fields_of_release("6.1.0-13-amd64").source
    assert "guess" in fields_of_release(None).source


def test_names_of_bytes() -> None:
    fields = fields_of_release("6.1")
    assert [fields.name_at(i) for i in (0, 7, 8, 0x30, 0x34, 0x37)] == [
        "flags",
        "flags",
        "compound_head",
        "_mapcount",
        "_refcount",
        "_refcount",
    ]
    assert fields_of_release("4.17.3").name_at(0x1C) == "_refcount"
    assert fields_of_release("7.3.4").name_at(8) == "compound_info"
    assert fields.name_at(64) is None


@pytest.mark.parametrize(
    ("release", "number"),
    [("6.12.107-1-cloud", (6, 12)), ("7.3-rc1", (7, 3)), ("next", None), (None, None)],
)
def test_release_numbers(release: str | None, number: tuple[int, int] | None) -> None:
    assert release_number(release) == number


def test_words_are_read() -> None:
    words = (0x1000, 0xFFFFEA0000000041, 0, 0xDEAD000000000400, 0, 0, 0x00000001FFFFFFFF, 0)
    read = read_page_words(words, fields_of_release("6.1"), None)
    assert (read.refcount, read.mapcount, read.head) == (1, -1, 0xFFFFEA0000000040)
    assert read.mapping == 0xDEAD000000000400
    # s390x has the other half first.
    words = (0x1000, 0, 0, 0, 0, 0, 0xFFFFFFFF00000001, 0)
    read = read_page_words(words, fields_of_release("6.1"), None, big_endian=True)
    assert (read.refcount, read.mapcount, read.head) == (1, -1, None)


def test_a_mask_is_applied_to_the_address_of_the_page() -> None:
    # Order 9: 512 struct pages of 64 bytes.
    words = (0x1000, 0xFFFFFFFFFFFF8001)
    # Stable kernels have the mask under the old name.
    fields = fields_of_release("6.18.51")
    assert read_page_words(words, fields, 0xFFFFEA0000C0FF40).head == 0xFFFFEA0000C08000
    assert read_page_words(words, fields, None).head is None
    assert read_page_words(words, fields, None).refcount is None
