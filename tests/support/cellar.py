# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A cellar of dumps: copies of the stored ones, with or without a defect, and dumps whose check
hangs, crashes or takes all memory.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fuzz.image import Image
from fuzz.mutation import apply, draw_recipe

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.fleet.store import Store, opened_store

# What the check of a dump of that name does, when it imports what reads dumps.
MISBEHAVIOUR = """
import os, signal, sys, time
class Misbehaving:
    def find_spec(self, name, path=None, target=None):
        if name == "drgn" and "child.py" in " ".join(sys.orig_argv):
            misbehave(" ".join(sys.orig_argv))
        return None
def misbehave(arguments):
    if "hang-" in arguments:
        time.sleep(600)
    if "crash-" in arguments:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "eat-" in arguments:
        eaten = []
        while True:
            eaten.append(bytearray(b"x" * (1 << 22)))
    if "grow-" in arguments:
        with open(arguments.split(" -c ")[1].split(" check ")[0], "ab") as f:
            f.write(b"more")
sys.meta_path.insert(0, Misbehaving())
"""


def stored(name: str) -> Path:
    """The packed export of a stored dump."""
    directory = default_directory()
    assert directory
    return directory / name / ARCHIVE


def unpack_stored(name: str, target: Path) -> Path:
    """Unpack a stored dump into a new directory; returns its ``vmcore``."""
    target.mkdir(parents=True)
    unpack(stored(name), target)
    return target / "vmcore"


def copy_stored(name: str, target: Path) -> Path:
    """Copy the packed export of a stored dump."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(stored(name), target)
    return target


def damaged_copies(name: str, directory: Path, count: int, seed: int) -> list[Path]:
    """Make copies of a stored dump with one mutation each."""
    image = Image(name, unpack_stored(name, directory / "sound").parent)
    contents, rng, made = image.contents(), random.Random(seed), []
    for number in range(count):
        copy = directory / str(number)
        copy.mkdir()
        shutil.copyfile(image.vmlinux, copy / "vmlinux")
        recipe = draw_recipe(rng, image, contents)
        (copy / "vmcore").write_bytes(apply(contents, recipe))
        made.append(copy / "vmcore")
    return made


@dataclass(frozen=True)
class Alone:
    """What ``zonedev -c DUMP check --format json`` prints, and its exit status."""

    status: int
    report: bytes
    errors: str


def check_of(path: Path) -> Alone:
    """Check one dump as anybody would."""
    command = [sys.executable, "-m", "drgn_zonedev", "-c", str(path), "check", "--format", "json"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=300)
    return Alone(done.returncode, done.stdout.rstrip(b"\n"), done.stderr.decode())


@contextlib.contextmanager
def survey_store(path: Path) -> Iterator[Store]:
    """Open the store that a survey made."""
    with opened_store(path, create=False) as store:
        yield store


def let_dumps_misbehave(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the checks of dumps called ``hang-…``, ``crash-…``, ``eat-…``, ``grow-…`` do so."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(MISBEHAVIOUR)
    monkeypatch.setenv("PYTHONPATH", str(directory))
