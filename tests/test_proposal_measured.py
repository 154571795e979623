# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tables of docs/proposal.md are those of the stored dumps."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.proposal.measured import measure, with_tables
from drgn_zonedev.stored import stored_dumps

ROOT = Path(__file__).parents[1]


def test_the_tables_are_what_real_kernels_answer() -> None:
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    measured = measure(stored_dumps(ROOT / "vmcores"))
    assert text == with_tables(text, measured), "run scripts/write-proposal"


def test_every_kernel_answers_alike() -> None:
    # What the document says below the tables is said of all of them.
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    scenarios = {dump.name.partition("-")[2] for dump in stored_dumps(ROOT / "vmcores")}
    rows = [line for line in text.splitlines() if "| 5.10, 6.1, 6.12, 7.2, 7.3 |" in line]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == scenarios


def test_a_document_without_a_place_for_tables() -> None:
    with pytest.raises(ValueError, match="measured: begin"):
        with_tables("# A document", [])
