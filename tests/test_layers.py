# SPDX-License-Identifier: LGPL-2.1-or-later

"""A room imports only from rooms below it, and import-linter notices if one does not."""

from __future__ import annotations

import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
LAYERS, CIRCLES = "A room imports only from rooms below it", "Within a room, no circle"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, to plant something in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = ROOT / "drgn_zonedev"
    for path in package.rglob("*.py"):
        target = tmp_path / "drgn_zonedev" / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_no_module_is_part_of_a_circle() -> None:
    graph = grimp.build_graph("drgn_zonedev", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(tuple(graphlib.TopologicalSorter(imports).static_order())) == len(imports)


def test_contracts_are_kept(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{LAYERS} KEPT" in done.stdout
    assert f"{CIRCLES} KEPT" in done.stdout


UPWARD = "from drgn_zonedev.report import check\n"


@pytest.mark.parametrize(
    ("module", "planted", "broken"),
    [
        ("kernel/masks.py", UPWARD, LAYERS),
        ("kernel/masks.py", f"def late() -> None:\n    {UPWARD}", LAYERS),
        (
            "kernel/masks.py",
            f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {UPWARD}",
            LAYERS,
        ),
        ("consistency/claims.py", "from drgn_zonedev.verification import runs\n", LAYERS),
        ("attic/__init__.py", "", LAYERS),
        ("kernel/masks.py", "from drgn_zonedev.kernel import zones\n", CIRCLES),
        ("lab/host/tools.py", "from drgn_zonedev.lab.verdict import proofs\n", CIRCLES),
    ],
    ids=["upward", "lazy", "for-typing", "sideways", "new-room", "circle", "circle-of-rooms"],
)
def test_violation_is_found(copy: Path, module: str, planted: str, broken: str) -> None:
    path = copy / "drgn_zonedev" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as f:
        f.write(planted)
    done = lint(copy)
    assert done.returncode != 0
    assert f"{broken} BROKEN" in done.stdout
