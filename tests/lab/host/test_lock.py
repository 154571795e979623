# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.host.lock import lock


def test_the_second_waits_visibly_and_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lines: list[str] = []
    with (
        lock(path),
        pytest.raises(LabError, match="another process has held"),
        lock(path, lines.append, timeout=0.05),
    ):
        pytest.fail("both hold the lock")
    assert lines == [f"waiting for another process to release {path}"]


def test_the_lock_is_free_after_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with lock(tmp_path / "lock"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with lock(tmp_path / "lock", timeout=0):
        pass
