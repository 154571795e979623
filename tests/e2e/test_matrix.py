# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The lab's whole matrix: every kernel in every scenario that it can do. What the
tool says must be what arithmetic on the scenario says, and, of every PFN, what
the kernel itself says; on healthy kernels there are no errors, and the guest
must show what the scenario is about.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from drgn_zonedev.lab import KERNELS, SCENARIOS, fetch_kernel
from drgn_zonedev.lab.verdict.matrix import (
    Cell,
    CellVerdict,
    MatrixOptions,
    default_jobs,
    run_matrix,
)

pytestmark = pytest.mark.qemu

POSSIBLE = [
    (kernel, scenario)
    for kernel in KERNELS
    for scenario in SCENARIOS
    if kernel not in SCENARIOS[scenario].impossible
]


def _warn(message: str) -> None:
    # A second start of a guest must not go unseen.
    if "once more" in message:
        warnings.warn(message, stacklevel=2)


class Matrix:
    """Runs as many guests at once as fit, and keeps what came of each."""

    def __init__(self) -> None:
        kernels = [fetch_kernel(name) for name in KERNELS]
        options = MatrixOptions(truth=True, progress=_warn)
        self._running = run_matrix(
            kernels, list(SCENARIOS.values()), options=options, jobs=default_jobs()
        )
        self._done: dict[tuple[str, str], Cell] = {}

    def cell(self, kernel: str, scenario: str) -> Cell:
        while (kernel, scenario) not in self._done:
            cell = next(self._running)
            self._done[cell.kernel.name, cell.scenario.name] = cell
        return self._done[kernel, scenario]

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    running = Matrix()
    yield running
    running.close()


@pytest.mark.parametrize(("kernel", "scenario"), POSSIBLE)
def test_the_tool_agrees(matrix: Matrix, kernel: str, scenario: str) -> None:
    cell = matrix.cell(kernel, scenario)
    assert (cell.verdict, cell.details) == (CellVerdict.AGREES, ())
