# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tables of docs/proposal.md are those of the stored dumps."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.export.store import stored_dumps
from drgn_zonedev.lab.store import STORED_ONCE
from scripts.proposal_tables import measure, with_tables

ROOT = Path(__file__).parents[1]


def test_the_tables_are_what_real_kernels_answer() -> None:
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    measured = measure(stored_dumps(ROOT / "vmcores"))
    assert text == with_tables(text, measured), "run scripts/write-proposal"


def test_every_kernel_answers_alike() -> None:
    # What the document says below the tables is said of all of them.
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    scenarios = {dump.name.partition("-")[2] for dump in stored_dumps(ROOT / "vmcores")}
    scenarios = {name for name in scenarios if not name.startswith("arm64-")} - set(STORED_ONCE)
    rows = [line for line in text.splitlines() if "| 5.10, 6.1, 6.12, 7.2, 7.3 |" in line]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == scenarios


def test_what_the_document_says_of_the_second_bit() -> None:
    # Half of a section is 0x4000 pages.
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    table = text.partition("<!-- measured: online -->")[2].partition("<!--")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    cells = {row[0]: dict(zip(header, row)) for row in rows}
    for scenario, row in cells.items():
        assert row["`early-bit`"] == row["`two-bits`"] == "exact"
        wrong = f"+{0x4000} teardown"
        assert row["`taint+pgmap`"] == (wrong if scenario == "teardown" else "exact")
    assert "teardown" in cells
    assert cells["init-in-flight"]["`late-bit`"].startswith(f"+{0x4000 - 0x400} initializing")


def test_a_document_without_a_place_for_tables() -> None:
    with pytest.raises(ValueError, match="measured: answers"):
        with_tables("# A document", [])
