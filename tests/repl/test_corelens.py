# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The module for corelens, with as much of drgn-tools as it meets there: drgn-tools itself
pins drgn to releases older than 0.3.0, so both cannot be installed
together. What is relied on is the documented contract of CorelensModule.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.fakekernel import collision

from drgn_zonedev import check, plugin
from drgn_zonedev.render.as_text import report_text

CORELENS = """
import abc
import argparse
import sys


class CorelensModule(abc.ABC):
    @property
    @abc.abstractmethod
    def name(self):
        ...

    run_when = "always"

    def add_args(self, parser):
        pass


def modules():
    return {m.name: m for m in (leaf() for leaf in CorelensModule.__subclasses__())}


def main():
    if "-L" in sys.argv:
        print(*modules())
        return
    module = modules()[sys.argv[sys.argv.index("-M") + 1]]
    parser = argparse.ArgumentParser()
    module.add_args(parser)
    module.run(None, parser.parse_args([]))
"""


def test_module_without_drgn_tools_is_one_clear_line() -> None:
    command = [sys.executable, "-m", "drgn_zonedev.repl.corelens", "vmcore", "-M", "zonedev"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("zonedev: error: ")
    assert "install drgn-tools" in line


@pytest.fixture
def drgn_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "drgn_tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "corelens.py").write_text(CORELENS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("drgn_tools", "drgn_tools.corelens", "drgn_zonedev.repl.corelens"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_plugin_makes_it_known_where_drgn_tools_is(
    drgn_tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from drgn_tools import corelens

    prog = collision("6.1").program()
    plugin.drgn_prog_set(prog)
    (module,) = corelens.modules().values()
    assert (module.name, module.run_when) == ("zonedev", "verbose")
    import argparse

    parser = argparse.ArgumentParser()
    module.add_args(parser)
    module.run(prog, parser.parse_args([]))
    assert capsys.readouterr().out == report_text(check(prog)) + "\n"


def test_nothing_is_imported_where_drgn_tools_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "drgn_zonedev.repl.corelens", raising=False)
    monkeypatch.delitem(sys.modules, "drgn_tools", raising=False)
    plugin.drgn_prog_set(collision("6.1").program())
    assert "drgn_zonedev.repl.corelens" not in sys.modules


def test_older_drgn_tools_without_modules_are_left_alone(drgn_tools: Path) -> None:
    (drgn_tools / "drgn_tools" / "corelens.py").write_text("")
    __import__("drgn_tools")
    plugin.drgn_prog_set(collision("6.1").program())
    assert "drgn_zonedev.repl.corelens" not in sys.modules


def test_program_lists_it(drgn_tools: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drgn_zonedev.repl.corelens", "-L"],
        env={"PYTHONPATH": f"{drgn_tools}:{Path(__file__).parents[2]}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["zonedev"], textwrap.indent(done.stderr, "  ")
