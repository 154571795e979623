# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Stored Dumps
------------

Directories of exports that are kept to be checked again. Each dump is a directory with
``dump.tar.xz``, or its contents (``vmcore``, ``vmlinux`` and ``meta.json``), and with
``expected.json``, which says what a check must find in the dump.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drgn import Program

from drgn_zonedev.export.archive import is_archive_name, unpack
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.util.directories import temporary_directory

__all__ = (
    "ARCHIVE",
    "EXPECTED",
    "EXPECTED_SCHEMA",
    "StoredDump",
    "default_directory",
    "is_export",
    "stored_dumps",
    "unpacked",
)

EXPECTED_SCHEMA = "drgn-zonedev/expected/1"
ARCHIVE, EXPECTED = "dump.tar.xz", "expected.json"


@dataclass(frozen=True)
class StoredDump:
    """One of these dumps."""

    path: Path

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.path.name

    def expected(self) -> dict[str, Any]:
        """
        Read what a check must find in the dump.

        :raises ValueError: if it is not JSON, or has another schema
        """
        try:
            document = json.loads((self.path / EXPECTED).read_text(encoding="utf-8"))
        except RecursionError as e:
            raise ValueError(f"{self.path / EXPECTED} is nested too deeply") from e
        if not isinstance(document, dict) or document.get("schema") != EXPECTED_SCHEMA:
            raise ValueError(f"{self.path / EXPECTED} is not of schema {EXPECTED_SCHEMA}")
        return document

    def files(self) -> contextlib.AbstractContextManager[Path]:
        """Yield a directory with its ``vmcore`` and ``vmlinux``, unpacked if need be."""
        return unpacked(self.path)

    @contextlib.contextmanager
    def program(self) -> Iterator[Program]:
        """Open the dump with its symbols."""
        with self.files() as files:
            yield open_dump(files / "vmcore", files / "vmlinux")


def is_export(path: Path) -> bool:
    """Return whether a path is an export: a directory, or an archive."""
    if os.path.isdir(path):
        return any(os.path.exists(path / name) for name in (ARCHIVE, "vmcore"))
    return is_archive_name(path) and os.path.exists(path)


@contextlib.contextmanager
def unpacked(export: Path) -> Iterator[Path]:
    """
    Yield the directory that holds the files of an export.

    :raises drgn_zonedev.export.archive.ArchiveError: if it is packed and damaged
    """
    archive = export / ARCHIVE if export.is_dir() else export
    if not archive.exists():
        yield export
        return
    with temporary_directory("zonedev-") as directory:
        unpack(archive, directory)
        yield directory


def stored_dumps(directory: Path) -> list[StoredDump]:
    """Find all stored dumps in a directory."""
    return [StoredDump(path.parent) for path in sorted(directory.glob(f"*/{EXPECTED}"))]


def default_directory() -> Path | None:
    """Find the dumps that come with this package: in the package, or in its checkout."""
    package = Path(__file__).parents[1]
    places = (package / "vmcores", package.parent / "vmcores")
    return next(filter(stored_dumps, places), None)
