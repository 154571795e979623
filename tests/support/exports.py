# SPDX-License-Identifier: LGPL-2.1-or-later

"""Opening exports as anybody would: with drgn alone."""

from __future__ import annotations

from pathlib import Path

from drgn import Program

from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check


def open_export(path: Path) -> Program:
    """Open the directory that ``zonedev export`` wrote."""
    return open_dump(path / "vmcore", path / "vmlinux")


def check_json(prog: Program) -> str:
    """Return what ``zonedev check --only devices --format json`` prints, but for its source."""
    document = as_json.report_document(check(prog, only="devices"))
    document.pop("provenance")
    return as_json.render(document)
