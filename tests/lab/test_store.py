# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from drgn_zonedev.lab import KERNELS, SCENARIOS
from drgn_zonedev.lab.store import _arguments


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
