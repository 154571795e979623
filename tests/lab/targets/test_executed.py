# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's clock and QEMU's plugin counted is put together only if they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.scenarios import SCENARIOS
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.targets.executed import COST, Cost, costs_of, plugin_records

# Around each call: seven instructions and the call's push; a call costs two loads of the stack.
NOTHING = (7, 0, 0, 0, 1, 1)


def row(lookup: str, pfns: int, least: int, most: int) -> dict[str, Any]:
    return {
        **{"lookup": lookup, "range": "ram", "pfns": pfns, "yes": 0},
        **{"least": least, "most": most, "total": pfns * least},
    }


def records(path: Path, *rows: tuple[int, ...]) -> np.ndarray:
    path.write_bytes(np.array(rows, "<u4").tobytes())
    return plugin_records(path)


def test_what_the_call_itself_takes_is_left_out(tmp_path: Path) -> None:
    found = records(tmp_path / "r", NOTHING, NOTHING, (11, 3, 1, 2, 1, 1), (19, 4, 1, 3, 2, 3))
    rows = [row("nothing", 2, 5, 5), row("lookup", 2, 9, 17)]
    assert list(costs_of(rows, found)) == [
        Cost("lookup", "ram", 2, 0, (4, 12), (3, 4), (1, 1), (2, 3), (0, 3))
    ]


def test_counters_that_differ_are_not_believed(tmp_path: Path) -> None:
    found = records(tmp_path / "r", NOTHING, (11, 3, 1, 2, 1, 1))
    rows = [row("nothing", 1, 5, 5), row("lookup", 1, 10, 10)]
    with pytest.raises(LabError, match=r"\[5, 5\] instructions by the clock, \[4, 4\]"):
        list(costs_of(rows, found))


def test_calls_that_only_one_has_counted_are_not_believed(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the plugin counted 1 calls, the guest"):
        list(costs_of([row("nothing", 2, 5, 5)], records(tmp_path / "r", NOTHING)))


def test_the_clock_of_that_guest_counts_instructions() -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.icount] == []
    assert COST.icount
    assert not Scenario("x", "x").icount
