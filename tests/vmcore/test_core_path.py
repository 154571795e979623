# SPDX-License-Identifier: LGPL-2.1-or-later

"""drgn's path of a dump, whatever bytes it has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import drgn
import pytest

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.vmcore.core_path import core_dump_path


@pytest.mark.parametrize("name", [b"vmcore", b"\xff\xfe", "\xe9".encode(), b"a\nb", b"\xc3"])
def test_path_is_what_was_opened(tmp_path: Path, name: bytes) -> None:
    directory = default_directory()
    assert directory
    path = tmp_path / os.fsdecode(name)
    with StoredDump(directory / "6.1-empty").files() as files:
        shutil.copy(files / "vmcore", path)
    prog = drgn.Program()
    prog.set_core_dump(path)
    found = core_dump_path(prog)
    assert found is not None
    assert os.path.samefile(found, path)
    assert os.fsencode(found).endswith(name)


def test_program_without_a_dump_has_no_path() -> None:
    assert core_dump_path(drgn.Program()) is None
