# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a dump from anywhere must not be able to do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import drgn_zonedev
from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory

PACKAGE = Path(drgn_zonedev.__file__).parent
# What runs or unpacks whatever it is given.
MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "imp", "yaml"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("os", "system"), ("os", "popen"), ("numpy", "fromregex"), ("tar", "extractall")}


# What users themselves say, at their terminal: $PAGER, and an expression in drgn's REPL.
OF_USERS = {"commands/pager.py": ["subprocess.Popen"], "commands/pfn.py": ["eval"]}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def offences(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""] if (node.module or "").split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            found += _call_offences(node)
    return found


def _call_offences(node: ast.Call) -> list[str]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in BUILTINS:
        return [function.id]
    if isinstance(function, ast.Attribute):
        owner = function.value.id if isinstance(function.value, ast.Name) else ""
        if (owner, function.attr) in ATTRIBUTES or function.attr == "extractall":
            return [f"{owner}.{function.attr}"]
    picked = [k for k in node.keywords if k.arg in ("allow_pickle", "shell")]
    if any(not isinstance(k.value, ast.Constant) or k.value.value for k in picked):
        return [ast.unparse(node)]
    return []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_from_a_dump_is_ever_run(path: Path) -> None:
    found = offences(ast.parse(path.read_text(encoding="utf-8")))
    allowed = OF_USERS.get(str(path.relative_to(PACKAGE)), [])
    assert [offence.partition("(")[0] for offence in found] == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "import os\nos.system('true')",
        "np.load(f, allow_pickle=True)",
        "subprocess.run('true', shell=True)",
        "tar.extractall()",
    ],
)
def test_offences_are_seen(source: str) -> None:
    assert offences(ast.parse(source))


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    entries = {}
    for root, names, files in os.walk(directory):
        for name in (*names, *files):
            path = Path(root, name)
            stat = path.lstat()
            entries[str(path.relative_to(directory))] = (stat.st_size, stat.st_mtime_ns)
    return entries


@pytest.mark.parametrize("command", ["check", "ranges", "sections", "pgmaps", "pfn"])
def test_opening_a_dump_writes_nothing(command: str, tmp_path: Path) -> None:
    dumps = default_directory()
    assert dumps is not None
    places = {name: tmp_path / name for name in ("dump", "home", "cwd", "tmp")}
    for place in places.values():
        place.mkdir()
    unpack(dumps / "6.1-fsdax-collision" / ARCHIVE, places["dump"])
    before = snapshot(tmp_path)
    core = ["-c", str(places["dump"] / "vmcore"), "-s", str(places["dump"] / "vmlinux")]
    words = [command, *(["0x24400"] if command == "pfn" else [])]
    path = [str(PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [sys.executable, "-B", "-m", "drgn_zonedev", *core, *words],
        cwd=places["cwd"],
        env={
            "HOME": str(places["home"]),
            "TMPDIR": str(places["tmp"]),
            "XDG_CACHE_HOME": str(places["home"] / "cache"),
            "PYTHONPATH": os.pathsep.join(path),
        },
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0
    assert snapshot(tmp_path) == before
