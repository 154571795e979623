# SPDX-License-Identifier: LGPL-2.1-or-later

"""A vmlinux of another build, where the build ID that drgn compares is not known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.opening.core import open_core
from drgn_zonedev.opening.failures import CannotJudgeError
from drgn_zonedev.opening.symbols import load_symbols


def unpack_dump(directory: Path, name: str) -> Path:
    dumps = default_directory()
    assert dumps is not None
    directory.mkdir()
    unpack(dumps / name / ARCHIVE, directory)
    return directory


def without_build_id(vmcore: Path) -> bytes:
    text = open_core(str(vmcore))["VMCOREINFO"].string_()
    without = re.sub(rb"BUILD-ID=.*\n", b"", text)
    assert without != text
    return without


def test_vmlinux_of_the_same_build_is_taken(tmp_path: Path) -> None:
    dump = unpack_dump(tmp_path / "dump", "6.1-empty")
    vmcoreinfo = without_build_id(dump / "vmcore")
    prog = open_core(str(dump / "vmcore"), vmcoreinfo=vmcoreinfo)
    load_symbols(prog, [str(dump / "vmlinux")])
    assert prog["node_data"].address_ == prog.symbol("node_data").address


def test_vmlinux_of_another_build_is_refused_by_its_addresses(tmp_path: Path) -> None:
    dump = unpack_dump(tmp_path / "dump", "6.1-empty")
    other = unpack_dump(tmp_path / "other", "6.12-empty") / "vmlinux"
    prog = open_core(str(dump / "vmcore"), vmcoreinfo=without_build_id(dump / "vmcore"))
    with pytest.raises(CannotJudgeError, match=f"{other} is of another build: it has node_data"):
        load_symbols(prog, [str(other)])
