# SPDX-License-Identifier: LGPL-2.1-or-later

"""The plugin lives in everybody's drgn: it must be light, and never in the way."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from typing import Any

import drgn
import pytest
from drgn.commands import DEFAULT_COMMAND_NAMESPACE, CommandError, run_command
from support.fakekernel import collision

import drgn_zonedev
from drgn_zonedev import plugin
from drgn_zonedev.commands import every_command
from drgn_zonedev.model import Report

HEAVY = ("numpy", "tabulate", "tqdm", "asyncio", "drgn_zonedev.report", "drgn_zonedev.commands")


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import drgn_zonedev",
        "import drgn_zonedev.plugin",
        "import drgn_zonedev.plugin, drgn_zonedev.repl.repl; drgn_zonedev.repl.repl.register()",
    ],
)
def test_nothing_heavy_is_imported_before_a_command_runs(code: str) -> None:
    assert not _modules_after(code) & set(HEAVY)


def test_entry_point_is_registered() -> None:
    entry_points = importlib.metadata.distribution("drgn-zonedev").entry_points
    (entry_point,) = (e for e in entry_points if e.group == "drgn.plugins")
    assert entry_point.load() is plugin


def test_star_import_gives_what_it_promises() -> None:
    namespace: dict[str, Any] = {}
    exec("from drgn_zonedev import *", namespace)
    for name in drgn_zonedev.__all__:
        home = importlib.import_module(f"drgn_zonedev.{drgn_zonedev._HOME[name]}")
        assert namespace[name] is getattr(home, name)
        assert name in home.__all__


def test_lazy_exports_and_all_name_the_same_things() -> None:
    assert sorted(drgn_zonedev._HOME) == sorted(drgn_zonedev.__all__)


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        _ = drgn_zonedev.nosuch


def test_command_is_there_for_kernels_only() -> None:
    plugin.drgn_prog_set(collision("6.1").program())
    plugin.drgn_prog_set(collision("6.1").program())
    names = [name for name, _ in DEFAULT_COMMAND_NAMESPACE.enabled(collision("6.1").program())]
    assert names.count("zonedev") == 1
    assert "zonedev" not in [n for n, _ in DEFAULT_COMMAND_NAMESPACE.enabled(drgn.Program())]


@pytest.fixture
def prog() -> drgn.Program:
    program = collision("6.1").program()
    plugin.drgn_prog_set(program)
    return program


def test_command_returns_what_it_found(
    prog: drgn.Program, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_command(prog, "zonedev check")
    assert isinstance(report, Report)
    assert "case5-reserved" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["zonedev", "zonedev nosuch", "zonedev check --bogus", "zonedev pfn", "zonedev pfn x"]
)
def test_typos_are_command_errors_and_leave_the_repl_alone(prog: drgn.Program, line: str) -> None:
    with pytest.raises(CommandError):
        run_command(prog, line)


def test_a_missing_command_lists_them_all(prog: drgn.Program) -> None:
    with pytest.raises(CommandError) as e:
        run_command(prog, "zonedev")
    assert str(e.value).endswith(": " + ", ".join(c.name for c in every_command()))


@pytest.mark.parametrize("name", ["demo", "lab", "completion", "survey"])
def test_commands_of_the_shell_are_told_apart(prog: drgn.Program, name: str) -> None:
    with pytest.raises(CommandError, match=f"zonedev {name} .* run it in the shell"):
        run_command(prog, f"zonedev {name}")


def test_python_given_to_a_command_is_sent_to_the_helper(prog: drgn.Program) -> None:
    with pytest.raises(CommandError, match=r"Python objects go to explain\(\)"):
        run_command(prog, "zonedev pfn report.findings[0].page")
    with pytest.raises(CommandError) as e:
        run_command(prog, "zonedev pfn nosuch")
    assert "explain" not in str(e.value)


def test_help_is_no_error(prog: drgn.Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(prog, "zonedev check --help") is None
    assert "--fail-on" in capsys.readouterr().out


def test_findings_do_not_make_a_command_fail(prog: drgn.Program) -> None:
    # An exit status means nothing in a REPL.
    assert run_command(prog, "zonedev check --fail-on warning") is not None
