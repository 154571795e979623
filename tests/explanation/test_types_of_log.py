# SPDX-License-Identifier: LGPL-2.1-or-later

"""Types for a log without a dump."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.rawbtf import BtfWriter

from drgn_zonedev.explanation.types_of_log import known_types
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.opening.failures import CannotOpenError

VMCORES = Path(__file__).parents[2] / "vmcores"


@pytest.mark.parametrize(
    ("version", "compound"),
    [("5.10", "compound_head"), ("6.12", "compound_head"), ("7.3", "compound_info")],
)
def test_members_of_a_vmlinux(version: str, compound: str) -> None:
    with StoredDump(VMCORES / f"{version}-empty").files() as directory:
        known = known_types([str(directory / "vmlinux")])
    assert known.base is None
    assert known.fields.name_at(8) == compound
    assert known.fields.name_at(0x34) == "_refcount"
    assert known.fields.source == "of vmlinux"


def test_what_has_no_types_is_refused(tmp_path: Path) -> None:
    text, btf = tmp_path / "text", tmp_path / "btf"
    text.write_text("no types\n")
    btf.write_bytes(b"\x9f\xeb\x01\x00" + bytes(64))
    for path in (text, btf, tmp_path / "nothing"):
        with pytest.raises(CannotOpenError, match="with -s"):
            known_types([str(path)])


def test_members_of_btf(tmp_path: Path) -> None:
    # As in struct page, most members are in unions without a name.
    writer = BtfWriter()
    word, number = writer.integer("unsigned long", 8), writer.integer("int", 4)
    lists = writer.struct("list_head", 16, ("next", word, 0), ("prev", word, 64))
    lru = writer.struct("", 40, ("lru", lists, 0), ("mapping", word, 128), ("index", word, 192))
    tail = writer.struct("", 8, ("compound_head", word, 0))
    union = writer.struct("", 40, ("", lru, 0), ("", tail, 0))
    writer.struct(
        "page",
        64,
        ("flags", word, 0),
        ("", union, 64),
        ("_mapcount", number, 384),
        ("_refcount", number, 416),
    )
    path = tmp_path / "vmlinux.btf"
    path.write_bytes(writer.bytes())
    fields = known_types([str(path)]).fields
    assert fields.size == 64
    assert {name: at for at, _, name in fields.members} == {
        "flags": 0,
        "compound_head": 8,
        "lru.prev": 16,
        "mapping": 24,
        "index": 32,
        "_mapcount": 48,
        "_refcount": 52,
    }
