# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev oops`` and ``zonedev bugreport``, from the command line and in the REPL."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.commands import CommandError, run_command
from support.fakekernel import VMEMMAP, partial

from drgn_zonedev import plugin
from drgn_zonedev.shell.cli import main

LOG = Path(__file__).parents[1] / "oops_log" / "corpus" / "ppc64-devdax-probe.log"
# PFN 0x104000, as the corpus has it.
PFN = 0x104000


def test_a_log_needs_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["oops", str(LOG), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "drgn-zonedev/oops/1"
    assert {a["pfn"] for a in document["addresses"] if a["kind"] == "struct-page"} == {PFN}


def test_a_log_comes_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(LOG.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["oops", "-"]) == 0
    assert f"{PFN:#x}" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_log_may_be_what_windows_writes(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(LOG.read_text().replace("\n", "\r\n"), encoding)
    said = []
    for path in (log, LOG):
        assert main(["oops", str(path), "--format", "json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]


@pytest.mark.parametrize("argv", [["oops"], ["oops", "/nonexistent/log"], ["oops", "/"]])
def test_without_a_log_there_is_advice(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "give " in capsys.readouterr().err


def test_a_log_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_bytes(LOG.read_bytes())
    assert main(["oops", str(log), "-o", str(log)]) == 2
    assert log.read_bytes() == LOG.read_bytes()
    assert "overwrite" in capsys.readouterr().err


def test_without_a_program_a_log_is_fast() -> None:
    code = "import sys; from drgn_zonedev.shell.cli import main; main(sys.argv[1:])"
    code += "; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "oops", str(LOG)], capture_output=True, text=True, check=True
    )
    modules = done.stdout.splitlines()[-1].split()
    assert "drgn_zonedev.oops_log.answer" in modules
    assert "numpy" not in modules
    assert "drgn_zonedev.classification.reading" not in modules


@pytest.fixture
def prog() -> Any:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    program = kernel.program()
    plugin.drgn_prog_set(program)
    return program


def test_the_repl_reads_a_log_of_its_program(
    prog: drgn.Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(f"RAX: {VMEMMAP + 0x100801 * 64:016x} RBX: 0000000000000000\n")
    value = run_command(prog, f"zonedev oops {log}")
    assert value.pfns == (0x100801,)
    out = capsys.readouterr().out
    assert "IN THE DUMP" in out
    assert "0x100801" in out
    other = tmp_path / "other"
    other.write_text("CPU: 0 PID: 1 Comm: cat Not tainted 9.9.9 #1\nRAX: ffffea0000000040\n")
    with pytest.raises(CommandError, match=r"Linux 9\.9\.9"):
        run_command(prog, f"zonedev oops {other}")


def test_the_repl_reports_a_bug(prog: drgn.Program, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_command(prog, "zonedev bugreport 0x100801")
    assert report.finding.start_pfn == 0x100801
    assert "Evidence:" in capsys.readouterr().out
    with pytest.raises(CommandError, match="has no findings"):
        run_command(prog, "zonedev bugreport 0x100802")
