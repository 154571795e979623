# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev diff`` and ``check --baseline``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.fakekernel import FakeKernel, collision, partial
from support.opening import open_instead
from support.schema import validated

from drgn_zonedev.shell import cli

BEFORE, AFTER = (f"vmcores/6.1-{name}" for name in ("init-in-flight", "fsdax-collision"))
WRONG = 0x100801


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[FakeKernel]:
    """The last one is what ``zonedev`` opens."""
    opened = [partial("6.1")]
    open_instead(monkeypatch, lambda: opened[-1].program())
    return opened


def write_report(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    cli.main(["check", "--format", "json", "-o", str(path)])
    capsys.readouterr()
    return str(path)


def damaged(pfn: int = WRONG) -> FakeKernel:
    kernel = partial("6.1")
    kernel.poke_page_word(pfn, 1, 0)
    return kernel


def test_two_dumps(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", BEFORE, AFTER]) == 1
    out = capsys.readouterr().out
    assert "changed  [0x24000, 0x30000)  pfn0.0    state: initializing, now live" in out
    assert "[0x24400, 0x30000)  48128    initializing  device" in out
    assert "\nwent: warning: case4-initializing [0x24400, 0x30000)" in out


def test_a_report_and_the_dump_that_it_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "old.json"
    cli.main(["-c", AFTER, "check", "--format", "json", "-o", str(report)])
    assert cli.main(["diff", str(report), AFTER]) == 0
    assert capsys.readouterr().out.endswith("\nno differences\n")
    assert cli.main(["-c", AFTER, "diff", str(report)]) == 0


def test_a_report_and_a_running_kernel(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_report(tmp_path / "old.json", capsys)
    kernels.append(damaged())
    assert cli.main(["-k", "diff", old, "--format", "json"]) == 1
    document = validated(json.loads(capsys.readouterr().out))
    (change,) = document["findings"]
    assert (change["change"], change["old"]) == ("came", None)
    assert (change["new"]["start_pfn"], change["new"]["slug"]) == (WRONG, "device-tail-link")
    assert document["ranges"] == document["pgmaps"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[" * 9999, "is not JSON"),
        ('{"schema": "drgn-zonedev/ranges/1"}', "'drgn-zonedev/ranges/1'"),
        ('{"schema": "drgn-zonedev/report/2"}', "damaged or missing ('kernel')"),
    ],
)
def test_what_is_no_report_is_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    for line in (["check", "--baseline", str(file)], ["-c", AFTER, "diff", str(file)]):
        if line[0] == "check":
            line = ["-c", AFTER, *line]
            if not text:
                continue
        elif not text.startswith("{") and text:
            # It may be a dump.
            words = "not an ELF core file"
        assert cli.main(line) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert words in error


def test_missing_words_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", AFTER]) == 2
    assert "give NEW, or select a program" in capsys.readouterr().err
    assert cli.main(["-c", AFTER, "diff", BEFORE, AFTER]) == 2
    assert "select no program, or omit NEW" in capsys.readouterr().err
    assert cli.main(["diff", str(tmp_path / "none"), AFTER]) == 2
    assert "No such file" in capsys.readouterr().err


def test_parts_of_memory_are_not_compared_with_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = str(tmp_path / "old.json")
    line = ["-c", AFTER, "check", "--only", "devices", "--format", "json", "-o", report]
    assert cli.main(line) == 0
    assert cli.main(["diff", report, AFTER]) == 2
    assert "different parts of memory" in capsys.readouterr().err


def test_ci_lives_with_what_is_in_the_baseline(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels.append(damaged())
    old = write_report(tmp_path / "old.json", capsys)
    assert cli.main(["check"]) == 1
    capsys.readouterr()
    assert cli.main(["check", "--baseline", old]) == 0
    assert " 0 are new" in capsys.readouterr().out
    assert cli.main(["check", "--baseline", old, "--format", "junit"]) == 0
    assert "<failure" not in capsys.readouterr().out


def test_what_is_not_in_the_baseline_fails(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels.append(damaged())
    old = write_report(tmp_path / "old.json", capsys)
    both = damaged()
    both.poke_page_word(WRONG + 0x200, 1, 0)
    kernels.append(both)
    assert cli.main(["check", "--baseline", old]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(f"new: error: device-tail-link [{WRONG + 0x200:#x}, ")
    assert cli.main(["check", "--baseline", old, "--format", "json"]) == 1
    document = validated(json.loads(capsys.readouterr().out))
    errors = [f for f in document["findings"] if f["severity"] == "error"]
    assert [(f["start_pfn"], f["new"]) for f in errors] == [(WRONG, False), (WRONG + 0x200, True)]
    assert cli.main(["check", "--baseline", old, "--format", "jsonl"]) == 1
    for line in capsys.readouterr().out.splitlines():
        validated(json.loads(line))


def test_an_empty_baseline_knows_nothing(kernels: list[FakeKernel]) -> None:
    kernels.append(damaged())
    assert cli.main(["check", "--baseline", "/dev/null"]) == 1


def test_the_baseline_is_not_overwritten(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_report(tmp_path / "old.json", capsys)
    before = Path(old).read_bytes()
    assert cli.main(["check", "--baseline", old, "--format", "json", "-o", old]) == 2
    assert cli.main(["diff", old, AFTER, "-o", old]) == 2
    assert Path(old).read_bytes() == before


def test_nothing_is_new_in_another_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, collision("6.1").program)
    old = write_report(tmp_path / "old.json", capsys)
    assert cli.main(["check", "--fail-on", "info", "--baseline", old]) == 0


def write_census(path: Path, *words: str) -> str:
    assert cli.main(["pages", *words, "--format", "json", "-o", str(path)]) == 0
    return str(path)


@pytest.mark.parametrize("words", [[], ["--by", "flags"], ["--by", "pgmap"], ["--by", "order"]])
def test_census_and_the_program_that_it_is_of(
    words: list[str], kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_census(tmp_path / "old.json", *words)
    assert cli.main(["-k", "diff", old]) == 0
    assert capsys.readouterr().out.endswith("\n\nno differences\n")
    assert cli.main(["diff", old, old]) == 0


def test_census_and_a_program_with_another_device(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_census(tmp_path / "old.json")
    kernels.append(partial("6.1"))
    kernels[-1].section(0x80)
    kernels[-1].map_memmap(0x400000, 0x408000)
    kernels[-1].pgmap((0x400000, 0x408000))
    new = write_census(tmp_path / "new.json")
    for line in (["-k", "diff", old], ["diff", old, new]):
        assert cli.main([*line, "--format", "json"]) == 1
        (change,) = validated(json.loads(capsys.readouterr().out))["groups"]
        assert change["kind"] == "device"
        assert change["new"] - change["old"] == 0x8000
        assert cli.main(line) == 1
        out = capsys.readouterr().out
        assert re.search(r"^device .* \+32,768$", out, re.MULTILINE)
        assert out.endswith("\ngroups of pages: 1 came, 0 went, 0 changed\n")


def test_pages_of_two_dumps(capsys: pytest.CaptureFixture[str]) -> None:
    other = "vmcores/6.1-empty"
    for line in (["diff", "--pages", other, AFTER], ["-c", AFTER, "diff", "--pages", other]):
        assert cli.main([*line, "--format", "json"]) == 1
        changes = validated(json.loads(capsys.readouterr().out))["groups"]
        # The device has 188 MiB of pages, and 2 of reserve; 1022 are set aside.
        pages = {change["kind"]: change["new"] for change in changes if not change["old"]}
        assert pages == {"device": 48128, "uninitialised": 2, "metadata": 1022}
    assert cli.main(["diff", "--pages", AFTER, AFTER]) == 0


def test_census_is_not_compared_with_a_report_or_with_other_groups(
    kernels: list[FakeKernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    census = write_census(tmp_path / "census.json")
    flags = write_census(tmp_path / "flags.json", "--by", "flags")
    report = write_report(tmp_path / "report.json", capsys)
    assert cli.main(["diff", census, report]) == 2
    assert "two of the same kind" in capsys.readouterr().err
    assert cli.main(["diff", "--pages", report, report]) == 2
    assert "two of the same kind" in capsys.readouterr().err
    assert cli.main(["diff", census, flags]) == 2
    assert "the same --by" in capsys.readouterr().err
    assert cli.main(["check", "--baseline", census]) == 2
    assert "is not a report" in capsys.readouterr().err
