# SPDX-License-Identifier: LGPL-2.1-or-later

"""The files that a program is read from."""

from __future__ import annotations

import drgn
import pytest

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.opening.program_files import program_files


@pytest.mark.parametrize("name", ["6.1-empty", "7.3-fsdax-collision"])
def test_program_is_read_from_dump_and_symbols(name: str) -> None:
    directory = default_directory()
    assert directory
    with StoredDump(directory / name).files() as files:
        prog = open_dump(files / "vmcore", files / "vmlinux")
        assert set(program_files(prog)) == {files / "vmcore", files / "vmlinux"}


def test_program_of_nothing_has_no_files() -> None:
    assert list(program_files(drgn.Program())) == []
