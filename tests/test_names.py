# SPDX-License-Identifier: LGPL-2.1-or-later

"""A name means one thing, whether it is a file's or a function's."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import drgn_zonedev

PACKAGE = Path(drgn_zonedev.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.parent.relative_to(PACKAGE).as_posix() for path in MODULES} - {"."}

BASENAMES_OF_MANY = {"__init__", "cli", "store"}
PUBLIC_NAMES_OF_MANY = {"main", "run"}
# A command, its rendering and a check are called like what they are about.
ABOUT_ANOTHER_ROOM = ("commands", "render", "consistency")


def test_a_basename_means_one_thing() -> None:
    owners = defaultdict(list)
    for path in MODULES:
        room = path.parent.relative_to(PACKAGE).as_posix()
        if path.stem not in BASENAMES_OF_MANY and room not in ABOUT_ANOTHER_ROOM:
            owners[path.stem].append(room)
    assert {stem: rooms for stem, rooms in owners.items() if len(rooms) > 1} == {}


def test_a_check_shares_its_basename_with_what_it_checks() -> None:
    checks = {path.stem for path in (PACKAGE / "consistency").glob("*.py")}
    others = {
        path.stem
        for path in MODULES
        if path.parent.relative_to(PACKAGE).parts[:1] not in (("consistency",), ("commands",))
    }
    of_kernel = {path.stem for path in (PACKAGE / "kernel").glob("*.py")}
    assert (checks & others) - of_kernel == set()


def public_names(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_a_public_name_is_defined_once() -> None:
    owners = defaultdict(list)
    for path in MODULES:
        for name in set(public_names(path)):
            if not name.startswith("_") and name not in PUBLIC_NAMES_OF_MANY:
                owners[name].append(path.relative_to(PACKAGE).as_posix())
    assert {name: files for name, files in owners.items() if len(files) > 1} == {}


def test_no_room_is_called_like_a_helper() -> None:
    assert {room.rpartition("/")[2] for room in ROOMS} & set(drgn_zonedev.__all__) == set()


def test_few_files_lie_outside_of_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


HELPERS_AFTER_EVERYTHING = """
import importlib, pkgutil, types
import drgn_zonedev
for module in pkgutil.walk_packages(drgn_zonedev.__path__, "drgn_zonedev."):
    if module.name not in {without}:
        importlib.import_module(module.name)
for name in drgn_zonedev.__all__:
    helper = getattr(drgn_zonedev, name)
    home = importlib.import_module(f"drgn_zonedev.{drgn_zonedev._HOME[name]}")
    assert not isinstance(helper, types.ModuleType), name
    assert helper is getattr(home, name), name
print(len(drgn_zonedev.__all__))
"""


def test_every_public_name_is_a_helper_whatever_was_imported() -> None:
    # It takes drgn-tools, which is not installed here.
    without = {"drgn_zonedev.repl.corelens"}
    code = HELPERS_AFTER_EVERYTHING.replace("{without}", repr(without))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(drgn_zonedev.__all__)


@pytest.mark.parametrize("name", drgn_zonedev.__all__)
def test_every_public_name_has_a_home(name: str) -> None:
    assert name in drgn_zonedev._HOME


def test_the_book_describes_every_room_and_every_file() -> None:
    text = (PACKAGE.parent / "docs" / "inside.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", text, flags=re.MULTILINE))
    assert ROOMS - set(rows) == set()
    for path in MODULES:
        room = path.parent.relative_to(PACKAGE).as_posix()
        if room != "." and path.stem != "__init__":
            assert f"`{path.stem}`" in rows[room], path
