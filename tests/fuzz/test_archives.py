# SPDX-License-Identifier: LGPL-2.1-or-later

"""Damaged packed exports, and those that once broke something: scripts/fuzz at length."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.archives import draw_archive
from fuzz.run import CORPUS

TESTS = Path(__file__).parents[1]
ARCHIVES = sorted((TESTS.parent / "vmcores").glob("*/dump.tar.xz"))

# A process of its own, as the tests' has drgn's threads, which do not survive a fork.
_FUZZ = """
import sys
from pathlib import Path
from fuzz.archives import fuzz_archives, try_archive
count, keep, *archives = sys.argv[1:]
archives = [Path(name) for name in archives]
if int(count):
    sys.exit(fuzz_archives(1, int(count), archives, Path(keep)))
for archive in archives:
    print(try_archive(archive).failures)
"""


def fuzz(count: int, keep: Path, *archives: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", _FUZZ, str(count), str(keep), *map(str, archives)]
    return subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, check=False)


def test_damaged_archives_are_answered(tmp_path: Path) -> None:
    done = fuzz(30, tmp_path / "keep", *ARCHIVES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("30 packed exports: ")
    assert not (tmp_path / "keep").exists()


def test_damage_that_once_broke_something(tmp_path: Path) -> None:
    kept = sorted((CORPUS / "archives").glob("*.tar.xz"))
    done = fuzz(0, tmp_path, *kept, ARCHIVES[0])
    assert done.stdout.splitlines() == ["()"] * (len(kept) + 1), done.stderr


def test_greed_is_a_failure(tmp_path: Path) -> None:
    code = _FUZZ.replace("count, keep", "import fuzz.archives as a; a._MEMORY = 1; count, keep")
    argv = [sys.executable, "-c", code, "1", str(tmp_path), str(ARCHIVES[0])]
    done = subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "memory: " in done.stdout
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("seed", range(20))
def test_draws_say_the_same_twice(seed: int) -> None:
    archive = ARCHIVES[0].read_bytes()
    first, second = (draw_archive(random.Random(seed), archive) for _ in range(2))
    assert first == second
    assert first[1] != archive
