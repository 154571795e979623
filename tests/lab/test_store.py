# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.export.store import stored_dumps
from drgn_zonedev.lab import KERNELS, SCENARIOS
from drgn_zonedev.lab.kernels.known import ARM64_KERNELS
from drgn_zonedev.lab.store import (
    ARM64_STORED,
    ARM64_STORED_ONCE,
    BUILT_STORED,
    STORED,
    STORED_ONCE,
    _arguments,
)


def test_names_may_be_left_out() -> None:
    assert _arguments([]).names == []


def test_unknown_name_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert _arguments(["6.1", "ghost"]).names == ["6.1", "ghost"]
    with pytest.raises(SystemExit):
        _arguments(["6.3"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "unknown kernel or scenario '6.3': choose from 5.10" in line
    assert all(name in line for name in (*KERNELS, *SCENARIOS))
    assert "[]" not in line


def test_every_dump_is_stored_by_its_list() -> None:
    each = [f"{kernel}-{name}" for kernel in KERNELS for name in STORED]
    once = [f"{kernel}-{name}" for name, kernel in STORED_ONCE.items()]
    once += [f"{kernel}-{name}" for kernel, names in ARM64_STORED_ONCE.items() for name in names]
    arm64 = [f"{kernel}-{name}" for kernel in ARM64_KERNELS for name in ARM64_STORED]
    stored = {dump.name for dump in stored_dumps(Path(__file__).parents[2] / "vmcores")}
    built = [f"{kernel}-{name}" for kernel, names in BUILT_STORED.items() for name in names]
    assert {*once, *built} <= stored <= {*each, *once, *arm64, *built}
