# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import drgn
import pytest
from support.junitrules import broken_rules

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.lab import KERNELS, SCENARIOS, Kernel, LabError, Scenario
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.kernels import fetch as fetch_module
from drgn_zonedev.lab.machine import boot as guest
from drgn_zonedev.lab.verdict import matrix
from drgn_zonedev.lab.verdict.matrix import Cell, CellVerdict, MatrixOptions, run_cell, run_matrix
from drgn_zonedev.lab.verdict.matrix_results import junit_xml, line_text, matrix_text, results_json
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[3] / "vmcores"

NONE = Path("/none")
KERNEL = Kernel("6.1", "6.1.0-56", "1", NONE, NONE, NONE, (), NONE)
OTHER = dataclasses.replace(KERNEL, name="7.3", release="7.3.4")
GHOST, EMPTY = SCENARIOS["ghost"], SCENARIOS["empty"]


def agreeing(
    kernel: Kernel, scenario: Scenario, options: MatrixOptions, cancelled: Callable[[], bool]
) -> Cell:
    return Cell(kernel, scenario, CellVerdict.AGREES, seconds=1)


CELLS = [
    Cell(KERNEL, GHOST, CellVerdict.AGREES, seconds=5),
    Cell(KERNEL, EMPTY, CellVerdict.NOT_POSSIBLE, ("no such thing",)),
    Cell(OTHER, GHOST, CellVerdict.DIFFERS, ("PFNs 0x1-0x2: ghost", "PFNs 0x3-0x4: device"), 6),
    Cell(OTHER, EMPTY, CellVerdict.FAILED, ("it hung\n    \x1b[2J",), 7),
]


# --- one cell ---


def pretend_boot(
    monkeypatch: pytest.MonkeyPatch, wrong: list[str], error: Exception | None = None
) -> None:
    """Have no guest, and this said of it."""

    @contextmanager
    def boot(*args: object, **options: object) -> Iterator[None]:
        if error:
            raise error
        yield None

    monkeypatch.setattr(matrix, "boot", boot)
    monkeypatch.setattr(matrix, "_look", lambda guest, options: (None, wrong))


def test_a_guest_without_disagreements_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_boot(monkeypatch, [])
    cell = run_cell(KERNEL, GHOST)
    assert (cell.verdict, cell.details) == (CellVerdict.AGREES, ())


def test_every_disagreement_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_boot(monkeypatch, ["one", "two"])
    cell = run_cell(KERNEL, GHOST)
    assert (cell.verdict, cell.details) == (CellVerdict.DIFFERS, ("one", "two"))


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (LabError("QEMU is not there"), CellVerdict.FAILED),
        (NotPossible("no module nfit"), CellVerdict.NOT_POSSIBLE),
    ],
)
def test_a_guest_that_does_not_run_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: CellVerdict
) -> None:
    pretend_boot(monkeypatch, [], error)
    cell = run_cell(KERNEL, GHOST)
    assert (cell.verdict, cell.details) == (verdict, (str(error),))


def test_symbols_of_another_kernel_are_an_error_of_the_lab(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prog = drgn.Program()
    with (
        StoredDump(VMCORES / "6.1-empty").files() as files,
        StoredDump(VMCORES / "7.3-empty").files() as others,
    ):
        prog.set_core_dump(files / "vmcore")
        kernel = dataclasses.replace(KERNEL, vmlinux=others / "vmlinux")
        with pytest.raises(LabError, match=r"/vmlinux has no .* the same build"):
            matrix.load_guest_symbols(prog, kernel)
        # drgn has not said it before, in words of its own.
        assert caplog.records == []
        matrix.load_guest_symbols(prog, dataclasses.replace(KERNEL, vmlinux=files / "vmlinux"))
        assert prog.type("struct page").size == 64


def test_what_is_known_to_be_impossible_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_boot(monkeypatch, [], AssertionError("it was tried"))
    scenario = dataclasses.replace(GHOST, impossible={"6.1": "too old"})
    cell = run_cell(KERNEL, scenario)
    assert (cell.verdict, cell.details) == (CellVerdict.NOT_POSSIBLE, ("too old",))


# --- many ---


def test_cells_come_in_order_whatever_the_number_of_guests() -> None:
    cells = list(run_matrix([KERNEL, OTHER], [GHOST, EMPTY], jobs=3, run=agreeing))
    assert [(c.kernel.name, c.scenario.name) for c in cells] == [
        ("6.1", "ghost"),
        ("6.1", "empty"),
        ("7.3", "ghost"),
        ("7.3", "empty"),
    ]


def test_guests_run_at_the_same_time_but_no_more_than_asked_for() -> None:
    both = threading.Barrier(2, timeout=10)

    def meeting(*args: Any) -> Cell:
        both.wait()
        return agreeing(*args)

    assert len(list(run_matrix([KERNEL, OTHER], [GHOST, EMPTY], jobs=2, run=meeting))) == 4


def test_leaving_early_ends_the_guests() -> None:
    started, ended = threading.Event(), threading.Event()

    def waiting(
        kernel: Kernel, scenario: Scenario, options: MatrixOptions, cancelled: Callable[[], bool]
    ) -> Cell:
        if kernel is KERNEL:
            started.wait(10)
            return agreeing(kernel, scenario, options, cancelled)
        started.set()
        while not cancelled():
            ended.wait(0.01)
        ended.set()
        raise LabError("interrupted")

    cells = run_matrix([KERNEL, OTHER], [GHOST], jobs=2, run=waiting)
    next(cells)
    cells.close()
    assert ended.is_set()


# --- what people and programs see ---


def test_a_line_says_what_became_of_a_guest() -> None:
    assert [line_text(cell) for cell in CELLS] == [
        "6.1 ghost: agrees (5.0 s)",
        "6.1 empty: not possible: no such thing",
        "7.3 ghost: differs (6.0 s)",
        "7.3 empty: could not run (7.0 s)",
    ]


def test_the_matrix_is_followed_by_what_needs_words() -> None:
    table, differs, failed, impossible = matrix_text(CELLS).split("\n\n")
    assert [line.split() for line in table.splitlines() if "-----" not in line] == [
        ["6.1", "7.3"],
        ["ghost", "agrees", "DIFFERS"],
        ["empty", "-", "FAILED"],
    ]
    assert differs.splitlines()[1:] == ["  PFNs 0x1-0x2: ghost", "  PFNs 0x3-0x4: device"]
    assert "\x1b" not in failed
    assert impossible == "- empty on 6.1: no such thing"


def test_junit_counts_and_survives_what_a_guest_prints() -> None:
    root = ElementTree.fromstring(junit_xml(CELLS))
    assert list(broken_rules(root)) == []
    first, second = root.findall("testsuite")
    assert (first.get("name"), first.get("tests"), first.get("skipped")) == (
        "6.1 (6.1.0-56)",
        "2",
        "1",
    )
    assert (second.get("failures"), second.get("errors")) == ("1", "1")
    failure = second.find("testcase/failure")
    assert failure is not None
    assert failure.text == "PFNs 0x1-0x2: ghost\nPFNs 0x3-0x4: device"
    assert second.findall("testcase")[1].get("classname") == "lab.7.3"


def test_json_has_what_was_expected_and_what_came() -> None:
    document = json.loads(results_json(CELLS))
    assert document["schema"] == "drgn-zonedev/lab/1"
    ghost = document["results"][2]
    assert (ghost["kernel"], ghost["verdict"], len(ghost["details"])) == ("7.3", "differs", 2)
    assert ghost["expected"][-1][2] == "ghost"


# --- the command ---


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, CellVerdict]:
    """What becomes of each scenario (default: it agrees); kernels need not be there."""
    chosen: dict[str, CellVerdict] = {}

    def run(kernel: Kernel, scenario: Scenario, *args: Any) -> Cell:
        return Cell(kernel, scenario, chosen.get(scenario.name, CellVerdict.AGREES), ("why",))

    def fetch(name: str, **options: object) -> Kernel:
        return dataclasses.replace(KERNEL, name=name)

    def run_all(*args: Any, **options: Any) -> Any:
        return run_matrix(*args, **{**options, "run": run})

    monkeypatch.setattr(guest, "check_host", lambda architecture: None)
    monkeypatch.setattr("drgn_zonedev.lab.kernels.fetch.fetch_kernel", fetch)
    monkeypatch.setattr(fetch_module, "fetch_kernel", fetch)
    monkeypatch.setattr(matrix, "run_matrix", run_all)
    return chosen


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (CellVerdict.AGREES, 0),
        (CellVerdict.NOT_POSSIBLE, 0),
        (CellVerdict.DIFFERS, 1),
        (CellVerdict.FAILED, 3),
    ],
)
def test_the_exit_status_tells_the_worst(
    verdicts: dict[str, CellVerdict], verdict: CellVerdict, status: int
) -> None:
    verdicts["ghost"] = verdict
    assert cli.main(["lab", "run", "6.1", "ghost", "empty"]) == status


def test_nothing_that_could_run_is_no_success(verdicts: dict[str, CellVerdict]) -> None:
    verdicts["ghost"] = CellVerdict.NOT_POSSIBLE
    assert cli.main(["lab", "run", "6.1", "ghost"]) == 3


@pytest.mark.parametrize("modules", [NONE, None])
def test_a_driver_that_is_missing_without_modules_gets_a_hint(
    verdicts: dict[str, CellVerdict],
    modules: Path | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdicts["ghost"] = CellVerdict.NOT_POSSIBLE
    kernel = dataclasses.replace(KERNEL, modules=modules)
    monkeypatch.setattr(
        "drgn_zonedev.lab.kernels.fetch.fetch_kernel", lambda name, **options: kernel
    )
    assert cli.main(["lab", "run", "6.1", "ghost"]) == 3
    assert ("without --modules" in capsys.readouterr().err) is (modules is None)


def test_everything_is_the_default(
    verdicts: dict[str, CellVerdict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lab", "run"]) == 0
    out, err = capsys.readouterr()
    count = len(KERNELS) * len(SCENARIOS)
    assert f"[{count}/{count}]" in err
    assert all(name in out for name in (*KERNELS, *SCENARIOS))


def test_results_are_written(verdicts: dict[str, CellVerdict], tmp_path: Path) -> None:
    junit, document = tmp_path / "junit.xml", tmp_path / "lab.json"
    words = ["lab", "run", "6.1", "ghost", "--junit", str(junit), "--json", str(document)]
    assert cli.main(words) == 0
    assert ElementTree.parse(junit).getroot().tag == "testsuites"
    assert len(json.loads(document.read_text())["results"]) == 1


def test_nothing_possible_is_an_error_in_junit() -> None:
    impossible = Cell(KERNEL, EMPTY, CellVerdict.NOT_POSSIBLE, ("no such thing",))
    root = ElementTree.fromstring(junit_xml([impossible, impossible]))
    assert list(broken_rules(root)) == []
    assert root.findall("testsuite[@errors='1']/testcase/error")
    assert not ElementTree.fromstring(junit_xml([impossible, CELLS[0]])).findall(".//error")


def test_old_results_do_not_outlive_an_error(tmp_path: Path) -> None:
    junit, document = tmp_path / "junit.xml", tmp_path / "lab.json"
    for path in (junit, document):
        path.write_text("those of last week")
    words = ["lab", "run", "6.3", "--junit", str(junit), "--json", str(document)]
    assert cli.main(words) == 2
    assert "'6.3'" in str(ElementTree.parse(junit).getroot().findtext(".//error"))
    assert document.read_text() == ""


@pytest.mark.parametrize("option", ["--junit", "--json", "--dump", "--export"])
def test_place_that_cannot_be_written_is_found_out_first(
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*args: object, **options: object) -> Iterator[Cell]:
        pytest.fail("too late to refuse")

    monkeypatch.setattr(matrix, "run_matrix", run)
    monkeypatch.setattr("drgn_zonedev.lab.kernels.fetch.fetch_kernel", run)
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "below")
    assert cli.main(["lab", "run", "6.1", "ghost", option, path]) == 2
    assert f"cannot write {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "6.3"], "no kernel or scenario is called '6.3'"),
        (["run", "--kernel", "bzImage"], "needs both --kernel BZIMAGE and --vmlinux FILE"),
        (["run", "6.1", "--kernel", "a", "--vmlinux", "b"], "choose one of them"),
        (["run", "ghost", "6.1", "--junit", "/none/file"], "cannot write /none/file"),
        (["shell", "6.1"], "shell takes one kernel and one scenario"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    verdicts: dict[str, CellVerdict],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert cli.main(["lab", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_number_of_guests_must_be_positive() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["lab", "run", "-j", "0"])
    assert caught.value.code == 2


@pytest.mark.parametrize("option", ["--export", "--dump", "--junit", "--kernel"])
def test_variable_that_is_not_set_is_not_the_current_directory(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "run", "6.1", "ghost", option, ""])
    assert ended.value.code == 2
    assert f"{option}: it is empty" in capsys.readouterr().err


def test_export_of_a_guest_shows_its_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = StoredDump(VMCORES / "6.1-acpi-hole")
    with stored.files() as files, stored.program() as prog:
        found = check(prog)
        guest = SimpleNamespace(
            kernel=dataclasses.replace(KERNEL, vmlinux=files / "vmlinux"),
            scenario=SCENARIOS["acpi-hole"],
            log=tmp_path / "log",
            dump=lambda path: Path(shutil.copy(files / "vmcore", path)),
        )
        monkeypatch.setattr(matrix, "judge_guest", lambda guest: (found, []))
        look: Any = matrix._look
        assert look(guest, MatrixOptions(export=tmp_path / "out")) == (found, [])
    (path,) = (tmp_path / "out").iterdir()
    # Nothing is left of the dump.
    assert (path.name, [*tmp_path.iterdir()]) == ("6.1-acpi-hole.tar.xz", [path.parent])
    assert path.stat().st_size < 200_000
    assert cli.main(["-c", str(path), "check", "--format", "json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    errors = [[f["start_pfn"], f["end_pfn"]] for f in findings if f["severity"] == "error"]
    assert errors == stored.expected()["errors"] != []
