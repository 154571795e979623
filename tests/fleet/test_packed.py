# SPDX-License-Identifier: LGPL-2.1-or-later

"""Exports and other archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.archives import END, member, packed, tar
from support.cellar import stored

from drgn_zonedev.fleet.packed import is_packed_export


@pytest.mark.parametrize(
    ("contents", "is_export"),
    [
        (packed(tar()), True),
        (packed(tar("export/")), True),
        (packed(member("README", b"text") + tar()), True),
        (packed(tar())[:30], True),
        (packed(member("linux/Makefile", b"text") + END), False),
        (packed(b"\1" * 2048), False),
        (packed(END), False),
        (b"\x1f\x8b" + bytes(100), False),
        (b"", False),
    ],
    ids=["export", "in-directory", "behind", "cut", "other", "no-tar", "empty", "gzip", "nothing"],
)
def test_archive_is_an_export_by_its_first_files(
    tmp_path: Path, contents: bytes, is_export: bool
) -> None:
    path = tmp_path / "x.tar.xz"
    path.write_bytes(contents)
    assert is_packed_export(str(path)) is is_export


def test_every_stored_dump_is_one() -> None:
    assert is_packed_export(str(stored("7.3-ghost")))


def test_other_names_are_not_read(tmp_path: Path) -> None:
    assert not is_packed_export(str(tmp_path / "missing"))
