# SPDX-License-Identifier: LGPL-2.1-or-later

"""The benchmark itself, on inputs that are too small for its claims."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench import __main__ as bench_main
from bench import guest
from bench.claims import claims
from bench.devices import measure_devices
from bench.errors import BenchError
from bench.machines import SECTIONS_PER_TIB, large_machine
from bench.measure import Claim, Measurement, interleave, judge
from bench.metadata import measure_metadata
from bench.processes import run
from bench.report import as_markdown, as_text, machine_facts
from drgn_zonedev.classification.classify import classify
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.model import Case

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "bench", "--quick", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    # What does not hold here is no failure of the benchmark.
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    assert done.returncode == int(any(c["holds"] is False for c in found["claims"]))
    for claim in found["claims"]:
        assert claim["claim"] in done.stdout
    return found


def test_document_names_every_contender(document: dict[str, Any]) -> None:
    assert document["schema"] == "drgn-zonedev/bench/1"
    measured = {m["name"] for m in document["measurements"]}
    assert measured >= {
        "raw read",
        "verify, 4 KiB pages",
        "drgn objects",
        "for_each_valid_pfn_and_page()",
        "drgn -e pass",
        "zonedev check",
        "zonedev check --only devices",
        "verify, a TiB of RAM",
        "verify, a part of that",
        "memory of verify, a TiB of RAM",
        "survey -j 1",
        "survey -j 2",
        "REPL without the plugin",
        "REPL with the plugin",
        "memory of drgn -e pass, large",
        "memory of zonedev check, large",
        "classify, 1 TiB",
        "classify, 2 TiB",
        "drgn objects, 2 TiB",
        "raw read of the metadata, 2 TiB",
        "memory of classify, 2 TiB",
        "verify, a TiB in 2 MiB pages",
        "verify, a TiB in 1 GiB pages",
        "raw read of the same, 2 MiB pages",
        "bytes read, a TiB in 2 MiB pages",
        "bytes read, a TiB in 1 GiB pages",
        "memory of verify, a TiB in 2 MiB pages",
        "memory of verify, a TiB in 1 GiB pages",
    }
    assert len(measured) == len(document["measurements"])
    for m in document["measurements"]:
        assert all(value > 0 for value in m["values"] if "memory of " not in m["name"])
        assert m["median"] == median(m["values"])


def test_ratios_are_those_of_the_medians(document: dict[str, Any]) -> None:
    medians = {m["name"]: m["median"] for m in document["measurements"]}
    judged = 0
    for claim in document["claims"]:
        names = [name for name in (claim["first"], claim["second"]) if name]
        if not all(name in medians for name in names):
            assert claim["value"] is None
            assert claim["holds"] is None
            continue
        first = medians[claim["first"]]
        if claim["second"] is None:
            expected = first
        elif claim["relation"] == "ratio":
            expected = first / medians[claim["second"]]
        else:
            expected = first - medians[claim["second"]]
        assert claim["value"] == pytest.approx(expected)
        below = claim["value"] <= claim["limit"]
        assert claim["holds"] == (below if claim["bound"] == "at most" else not below)
        judged += 1
    assert judged >= 10


def test_claims_are_those_of_the_issue() -> None:
    found = {(c.first, c.second): (c.bound, c.limit) for c in claims((4, 16, 64))}
    assert found["verify, 4 KiB pages", "raw read"] == ("at most", 2.5)
    assert found["drgn objects", "verify, 4 KiB pages"] == ("at least", 200)
    assert found["crash kmem -p", "verify, 4 KiB pages"] == ("at least", 10)
    reads = "raw read of the metadata, 64 TiB"
    assert found["classify, 64 TiB", reads] == ("at most", 20)
    assert found["drgn objects, 64 TiB", "classify, 64 TiB"] == ("at least", 20)
    assert found["zonedev check", "drgn -e pass"] == ("at most", 1.5)
    assert found["zonedev check", "zonedev check --only devices"] == ("at most", 1.3)
    assert found["verify, RAM", "raw read, RAM"] == ("at most", 3)
    assert found["census", "raw read, census"] == ("at most", 3)
    census = "memory of zonedev pages, RAM", "memory of drgn -e pass, RAM"
    assert found[census] == ("at most", 100)
    assert found["verify, a TiB of RAM", "verify, a part of that"] == ("at most", 20)
    assert found["memory of verify, a TiB of RAM", None] == ("at most", 100)
    assert found["survey -j 1", "survey -j 2"] == ("at least", 1.6)
    for repl in ("with the plugin", "that imports drgn_zonedev"):
        assert found[f"REPL {repl}", "REPL without the plugin"] == ("at most", 1.25)
    types = "check without vmlinux", "check with vmlinux"
    assert found[types] == ("at most", 1)
    assert found["memory of check without vmlinux", None] == ("at most", 150)
    jobs = "check --jobs 1, large kdump", "check --jobs 2, large kdump"
    assert found[jobs] == ("at least", 1.7)
    assert found["check --jobs 1, small kdump", "check, small kdump"] == ("at least", 0.95)
    for size, share in (("2 MiB", 1 / 3), ("1 GiB", 1 / 100)):
        assert found[f"bytes read, {size} pages", None] == ("at most", share)
        assert found[f"bytes read, a TiB in {size} pages", None] == ("at most", share)
        assert found[f"memory of verify, a TiB in {size} pages", None] == ("at most", 100)


def test_no_claim_depends_on_the_speed_of_the_machine() -> None:
    wanted = claims((4, 16, 64))
    names = {name for c in wanted for name in (c.first, c.second) if name}
    # Any times and sizes will do. Memory does not grow on a slow machine.
    here = [Measurement(name, "s", (float(i),)) for i, name in enumerate(sorted(names), 1)]
    slow = [
        m
        if m.name.startswith(("memory of ", "bytes read, "))
        else dataclasses.replace(m, values=tuple(2 * value for value in m.values))
        for m in here
    ]
    assert len(slow) == len(names)
    assert judge(wanted, slow) == judge(wanted, here)


@pytest.mark.parametrize(
    ("relation", "bound", "value", "holds"),
    [
        ("ratio", "at most", 2, False),
        ("ratio", "at least", 2, True),
        ("difference", "at most", 5, False),
        ("difference", "at least", 5, True),
    ],
)
def test_claim_is_about_medians(relation: str, bound: str, value: float, holds: bool) -> None:
    measured = [
        Measurement("a", "s", (10.0, 9.0, 1000.0)),
        Measurement("b", "s", (5.0, 5.0, 0.001)),
    ]
    claim = Claim("a and b", "a", "b", relation, bound, 1.9)
    (judged,) = judge([claim], measured)
    assert judged.value == value
    assert judged.holds is holds


def test_what_was_not_measured_is_not_judged() -> None:
    (judged,) = judge([Claim("a", "a", None, "ratio", "at most", 1)], [])
    assert judged.value is None
    assert judged.holds is None


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has neither crash nor makedumpfile."""
    monkeypatch.setattr(shutil, "which", lambda program, path=None: None)


@pytest.mark.usefixtures("empty_path")
@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["crash"], ["crash"]),
        (["start", "jobs"], ["makedumpfile"]),
        ([], ["crash", "makedumpfile"]),
    ],
)
def test_missing_program_is_an_error_before_anything_is_measured(
    arguments: list[str], missing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_main.main(arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert re.findall(r"(\w+) \(for the part", line) == missing
    assert line.endswith("run ./scripts/setup bench")
    assert captured.out == ""


@pytest.mark.usefixtures("empty_path")
def test_parts_that_need_no_program_run_without(capsys: pytest.CaptureFixture[str]) -> None:
    # The cheapest of them: all of them run for the document.
    assert bench_main.main(["--quick", "--rounds", "1", "pages"]) in (0, 1)
    assert "verify, 4 KiB pages" in capsys.readouterr().out


def test_quick_run_refuses_the_parts_that_it_has_no_dump_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        bench_main.main(["--quick", "crash"])
    assert caught.value.code == 2
    assert "not a part here: crash" in capsys.readouterr().err


def test_command_that_fails_is_not_a_measurement() -> None:
    assert run([sys.executable, "-c", "pass"]) > 0
    with pytest.raises(BenchError, match=r"exit status 3 of: .*raise SystemExit\(3\)"):
        run([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(("values", "status"), [((1.0,), 0), ((3.0,), 1), ((), 1)])
def test_full_run_leaves_no_claim_open(
    values: tuple[float, ...], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [Measurement("a", "s", values)] if values else []
    claim = Claim("a is short", "a", None, "ratio", "at most", 2)
    monkeypatch.setattr(bench_main, "PARTS", ("start",))
    monkeypatch.setattr(bench_main, "claims", lambda sizes: [claim])
    monkeypatch.setattr(bench_main, "_parts", lambda dumps, options: {"start": lambda: measured})
    assert bench_main.main(["--rounds", "1"]) == status


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    a, b = interleave({"a": lambda: contender("a"), "b": lambda: contender("b")}, 3, "s")
    assert turns == ["a", "b"] * 4
    # The first round only warms up.
    assert a.values == (3, 5, 7)
    assert b.values == (4, 6, 8)


@pytest.mark.parametrize(
    ("available", "free", "gib"),
    # 256 GiB have 4 GiB of memmap, 8 GiB more are in compound pages, and the guest
    # needs one for itself.
    [(16, 16, 256), (7, 16, 128), (16, 7, 128), (4.5, 4.5, 128), (4, 16, 64), (1, 1, 64)],
)
def test_dump_is_as_large_as_there_is_room_for(
    available: float, free: float, gib: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:  {int(available * (1 << 20))} kB\n")
    monkeypatch.setattr(guest, "_MEMINFO", meminfo)
    usage = type(shutil.disk_usage(tmp_path))(1 << 40, 0, int(free * (1 << 30)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert guest.affordable_gib(tmp_path, 256, 64) == gib


def test_each_device_of_the_guest_gets_its_own_page_size() -> None:
    scenario = guest._large(128)
    options = " ".join(scenario.devices)
    sizes = re.findall(r"id=m\d,size=(\d+)M", options)
    addresses = re.findall(r"addr=(0x[0-9a-f]+)", options)
    gib = {int(a, 16): int(mib) >> 10 for a, mib in zip(addresses, sizes)}
    assert sorted(gib.values()) == [4, 4, 128]
    assert [step[0] for step in scenario.steps] == ["namespace_at"] * 3
    made = {(gib.pop(int(step[1], 16)), *step[2:]) for step in scenario.steps}
    assert made == {
        (128, "fsdax", "mem", str(2 << 20)),
        (4, "devdax", "mem", str(2 << 20)),
        (4, "devdax", "mem", str(1 << 30)),
    }


def test_file_without_a_place_for_tables_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.md"
    empty.write_text("# Performance\n")
    for path, why in ((empty, "no place for the tables"), (tmp_path / "none.md", "No such file")):
        with pytest.raises(SystemExit) as exit_:
            bench_main.main(["--markdown", str(path)])
        assert exit_.value.code == 2
        assert why in capsys.readouterr().err


def test_dump_that_is_smaller_than_it_should_be_is_said() -> None:
    wanted = bench_main._FULL
    assert bench_main._notes(wanted, wanted) == []
    notes = bench_main._notes(wanted, dataclasses.replace(wanted, kdump_gib=128))
    facts: dict[str, Any] = {**machine_facts(), **dataclasses.asdict(wanted), "notes": notes}
    for text in (as_text(facts, [], []), as_markdown(facts, [], [])):
        assert "128 GiB of device memory instead of 256" in text


# The synthetic machine.


def test_large_machine_is_what_it_claims_to_be() -> None:
    prog = large_machine(1).program()
    assert len(sections(prog)) == SECTIONS_PER_TIB
    ranges = classify(prog)
    pages: dict[Case, int] = dict.fromkeys((r.case for r in ranges), 0)
    for r in ranges:
        pages[r.case] += r.pages
    # A quarter is RAM, in 128 blocks of 2 GiB, of which two are offline.
    assert pages[Case.ONLINE] == 126 << 19
    assert pages[Case.OFFLINE] == 2 << 19
    # 32 pgmaps of 24 GiB: eight end 16 MiB early, eight keep their memmap.
    assert pages[Case.PARTIAL] == 8 * 0x1000
    assert pages[Case.RESERVED] == 8 * 2
    assert sum(pages.values()) == SECTIONS_PER_TIB << 15
    assert set(pages) == {
        *(Case.ONLINE, Case.OFFLINE, Case.DEVICE),
        *(Case.PARTIAL, Case.RESERVED, Case.METADATA),
    }


def test_objects_give_the_same_answers() -> None:
    # measure_metadata() refuses to measure contenders that disagree.
    measured = measure_metadata((1,), rounds=1, sections=512)
    assert {m.name for m in measured} == {
        "classify, 1 TiB",
        "drgn objects, 1 TiB",
        "raw read of the metadata, 1 TiB",
        "memory of classify, 1 TiB",
    }


def test_large_devices_are_read_in_part() -> None:
    # Two pages of vmemmap of eight, or of 4096; and a page table for 512.
    found = {m.name: m.median for m in measure_devices(16, rounds=1)}
    assert 1 / 4 < found["bytes read, a TiB in 2 MiB pages"] < 1 / 4 + 1 / 400
    assert found["bytes read, a TiB in 1 GiB pages"] < 1 / 350
    # Reading is a part of it.
    for size in ("2 MiB", "1 GiB"):
        raw = found[f"raw read of the same, {size} pages"]
        assert 0 < raw < found[f"verify, a TiB in {size} pages"]
