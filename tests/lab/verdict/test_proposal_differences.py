# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every cell of the matrix judges the proposal and walkers, too: what they get wrong shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel, collision, in_flight, teardown
from support.kernels import each_layout

from drgn_zonedev.lab import SCENARIOS, Kernel
from drgn_zonedev.lab.kernels import fetch as fetch_module
from drgn_zonedev.lab.machine import boot as guest
from drgn_zonedev.lab.truth.answers import Answer
from drgn_zonedev.lab.verdict import matrix
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.lab.verdict.proposal_differences import (
    kernel_differences,
    variant_differences,
    walker_differences,
)
from drgn_zonedev.pfn_proposal import VARIANTS, ProposalReport, proposal, trial
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_walkers import WalkersReport, walkers
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

SCENES: dict[str, Callable[[str], FakeKernel]] = {
    "fsdax-collision": collision,
    "init-in-flight": in_flight,
    "teardown": teardown,
}
DYING = SCENARIOS["teardown"]


def variants_wrong(report: ProposalReport) -> list[str]:
    return list(variant_differences(report, DYING.expected, DYING.was))


def walkers_wrong(report: WalkersReport) -> list[str]:
    return list(walker_differences(report, DYING.expected))


@pytest.fixture(scope="module")
def prog() -> Program:
    return teardown("6.1").program()


@each_layout
@pytest.mark.parametrize("name", SCENES)
def test_a_kernel_as_arranged_agrees(layout: str, name: str) -> None:
    prog, scenario = SCENES[name](layout).program(), SCENARIOS[name]
    assert list(variant_differences(proposal(prog), scenario.expected, scenario.was)) == []
    assert list(walker_differences(walkers(prog), scenario.expected)) == []


# --- what is injected shows, and nothing else ---


def head_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the altmap's head marked by the variant whose point is that it is not."""
    monkeypatch.setattr(Marks, "late_data", property(lambda marks: marks.late))


def test_a_false_yes_shows(prog: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    head_marked(monkeypatch)
    right = proposal(prog).judged - (0xC000 - 0x400)
    assert variants_wrong(proposal(prog)) == [
        "late-bit-data: false yes for 49152 teardown, not 48128 teardown",
        "late-bit-data: takes none for RAM, not 1024 teardown",
        f"late-bit-data: {right - 0x400} pages right, not {right}",
    ]


def test_a_false_no_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = SCENARIOS["fsdax-collision"]
    monkeypatch.setattr(
        Marks,
        "touchable",
        property(lambda marks: np.zeros_like(marks.snapshot.sections.subsection_map)),
    )
    report = proposal(collision("6.1").program())
    assert list(variant_differences(report, scenario.expected)) == [
        "two-bits: false no for 48128 device",
        f"two-bits: {report.judged - 48128} pages right, not {report.judged}",
    ]


def test_what_is_true_is_judged_as_well(prog: Program) -> None:
    report = dataclasses.replace(proposal(prog), valid=2)
    assert variants_wrong(report) == ["proposal: 2 valid pages, not 0"]


def test_a_variant_without_arithmetic_shows(prog: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(VARIANTS[-1], name="three-bits")
    monkeypatch.setattr(trial, "VARIANTS", (*VARIANTS[1:], other))
    assert variants_wrong(proposal(prog)) == [
        "section-flag: not tried",
        "three-bits: no arithmetic",
    ]


def test_a_walker_that_meets_too_little_shows(prog: Program) -> None:
    report = walkers(prog)
    blind = tuple(dataclasses.replace(j, exposures=()) for j in report.walkers)
    assert walkers_wrong(dataclasses.replace(report, walkers=blind)) == [
        "kpageflags meets none, not 16384 teardown",
        "hwpoison-inject meets none, not 49152 teardown",
    ]


def test_a_walker_that_is_not_there_shows(prog: Program) -> None:
    report = walkers(prog)
    rest = tuple(j for j in report.walkers if j.walker.name != "kpageflags")
    assert walkers_wrong(dataclasses.replace(report, walkers=rest)) == ["kpageflags: not judged"]


# --- the kernel's own answers ---

BESIDE_RAM = [
    # What 6.1 says of the collision.
    (0x20000, 0x24000, True, True, 0, False),
    (0x24000, 0x24400, True, False, 0x1000, False),
    (0x24400, 0x30000, True, False, 0x1000, True),
]


def kernel_wrong(rows: Sequence[tuple[int, int, bool, bool, int, bool]], taint: bool) -> list[str]:
    answers = [Answer(*row, None, None, None, None) for row in rows]
    arranged = SCENARIOS["fsdax-collision"].expected
    return list(kernel_differences(answers, arranged, taint=taint))


def test_a_kernel_that_bears_the_arithmetic_out() -> None:
    assert kernel_wrong(BESIDE_RAM, taint=True) == []


def test_a_kernel_contradicts_the_arithmetic() -> None:
    online = [(0x24000, 0x24400, True, True, 0x1000, False)]
    # That is right for a kernel whose section is online as a whole.
    assert kernel_wrong([BESIDE_RAM[0], *online, BESIDE_RAM[2]], taint=False) == []
    assert kernel_wrong(BESIDE_RAM, taint=False) == [
        "the kernel's pfn_to_online_page() is true for none, not 1022 metadata and 2 reserved"
    ]
    head = "1022 metadata and 2 reserved"
    assert kernel_wrong(BESIDE_RAM[:1], taint=True) == [
        f"the kernel's pfn_valid() is true for none, not {head}",
        f"the kernel's get_dev_pagemap() is true for none, not {head}",
        "the kernel's get_dev_pagemap() of what is valid and not online is true for none, "
        f"not {head}",
    ]
    touchable = [(0x24000, 0x24002, True, False, 0x1000, True), (0x24002, *BESIDE_RAM[1][1:])]
    assert kernel_wrong([*touchable, BESIDE_RAM[2]], taint=True) == [
        "the kernel's pgmap_pfn_valid() is true for 2 reserved, not none"
    ]


# --- where a cell is judged ---


def test_a_judge_hears_of_it(prog: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: Any = SimpleNamespace(scenario=DYING, facts={"iomem": ()})
    report = check(prog)
    assert judge(frozen, prog, report) == []
    head_marked(monkeypatch)
    assert judge(frozen, prog, report) == variants_wrong(proposal(prog)) != []


def test_a_judge_hears_what_the_kernel_says(prog: Program) -> None:
    # That the section of the RAM is not online at all: nor is the device, then.
    answers = [Answer(0x20000, 0x30000, True, False, 0, False, None, None, None, None)]
    asked: Any = SimpleNamespace(scenario=DYING, facts={"truth": answers, "iomem": ()})
    assert judge(asked, prog, check(prog)) == [
        "the kernel's pfn_to_online_page() is true for none, not 16384 teardown"
    ]


@pytest.fixture
def guests(prog: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lab boot nothing, and look at `prog`."""
    none = Path("/none")
    kernel = Kernel("6.1", "6.1.0-56", "1", none, none, none, (), none)

    @contextmanager
    def boot(kernel: Kernel, scenario: Any, **options: object) -> Iterator[Any]:
        yield SimpleNamespace(kernel=kernel, scenario=scenario, facts={"iomem": ()})

    def fetch(name: str, **options: object) -> Kernel:
        return kernel

    monkeypatch.setattr(guest, "check_host", lambda architecture: None)
    monkeypatch.setattr("drgn_zonedev.lab.kernels.fetch.fetch_kernel", fetch)
    monkeypatch.setattr(fetch_module, "fetch_kernel", fetch)
    monkeypatch.setattr(matrix, "boot", boot)
    monkeypatch.setattr(matrix, "debug_guest", lambda guest: prog)


@pytest.mark.usefixtures("guests")
def test_a_cell_differs_and_the_lab_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lab", "run", "6.1", "teardown"]) == 0
    head_marked(monkeypatch)
    capsys.readouterr()
    assert cli.main(["lab", "run", "6.1", "teardown"]) == 1
    err = capsys.readouterr().err
    assert "6.1 teardown: differs" in err
    assert "late-bit-data: false yes for 49152 teardown, not 48128 teardown" in err
