# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tables of docs/proposal.md are those of the stored dumps, and of what guests counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.export.store import stored_dumps
from drgn_zonedev.lab import SCENARIOS
from drgn_zonedev.lab.store import STORED_ONCE
from drgn_zonedev.lab.targets.executed import CONTROLS, COUNTED_KERNELS
from drgn_zonedev.lab.targets.races import RACE_KERNELS
from drgn_zonedev.pfn_proposal.variants import VARIANTS
from scripts.proposal_tables import (
    COUNTED,
    MEASURED,
    RANGES,
    measure,
    read_measured,
    with_tables,
    write_measured,
)

ROOT = Path(__file__).parents[1]


def test_the_tables_are_what_real_kernels_answer() -> None:
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    measured = measure(stored_dumps(ROOT / "vmcores"))
    counted = read_measured(MEASURED)
    assert text == with_tables(text, measured, counted), "run scripts/write-proposal"


def test_every_kernel_answers_alike() -> None:
    # What the document says below the tables is said of all of them.
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    scenarios = {dump.name.partition("-")[2] for dump in stored_dumps(ROOT / "vmcores")}
    scenarios = {name for name in scenarios if name in SCENARIOS} - set(STORED_ONCE)
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


def test_figures_in_the_text_are_those_that_were_counted() -> None:
    text = " ".join((ROOT / "docs" / "proposal.md").read_text(encoding="utf-8").split())
    cost = read_measured(MEASURED)["cost"]

    def counted(kernel: str, lookup: str, range_: str, column: str = "instructions") -> list[int]:
        (row,) = (r for r in cost[kernel] if (r["lookup"], r["range"]) == (lookup, range_))
        return list(row[column])

    pfns = {row["range"]: row["pfns"] for row in cost["7.3-proposal"]}
    assert f"each lookup for every PFN of the ranges, {sum(pfns.values()):,} of them" in text
    bits = {tuple(counted("7.3-proposal", "pfn_zone_device", r)) for r in set(RANGES) - {"absent"}}
    loads = counted("7.3-proposal", "pfn_zone_device", "device", "loads")
    assert bits == {(46, 46)}
    assert loads == [7, 7]
    assert "46 instructions and 7 loads for every PFN of a section that exists" in text
    reference = "7.3-taint", "pfn_zone_device_claimed", "device"
    following = "7.3-taint", "next_in_range", "device"
    assert counted(*reference) + counted(*reference, "loads") == [175, 175, 26, 26]
    assert counted(*following) + counted(*following, "loads") == [10, 10, 3, 3]
    assert "175 and 26 for the first PFN of a range, and 10 and 3 for each further one" in text
    assert counted("7.3-section-flag", "pfn_zone_device", "device") == [184, 184]
    assert counted("7.3-taint", "pfn_zone_device", "shared-device") == [341, 383]
    assert "184 instructions for a flag" in text
    assert "341 to 383 for what exists" in text
    online = [
        counted(kernel, "next_by_taint", range_)[0]
        for range_ in ("shared-ram", "ram")
        for kernel in ("7.3-taint", "7.3-proposal")
    ]
    assert online == [203, 82, 85, 82]
    assert "203 instructions, and 82 with an early bit; RAM elsewhere takes 85 and 82" in text


def test_a_document_without_a_place_for_tables() -> None:
    with pytest.raises(ValueError, match="measured: summary"):
        with_tables("# A document", [], {})


def test_sequences_that_are_known_were_counted_right() -> None:
    cost = read_measured(MEASURED)["cost"]
    assert list(cost) == list(COUNTED_KERNELS)
    for rows in cost.values():
        known = [row for row in rows if row["lookup"] in CONTROLS]
        assert len(known) == len(CONTROLS) * len(RANGES)
        for row in known:
            columns = [row[name] for name in ("instructions", "loads", "stores", "lines")]
            assert columns == [[n, n] for n in CONTROLS[row["lookup"]]]


def test_every_variant_and_every_range_was_counted() -> None:
    cost = read_measured(MEASURED)["cost"]
    assert list(COUNTED) == [variant.name for variant in VARIANTS]
    for kernel, *lookups in COUNTED.values():
        for lookup in lookups:
            ranges = [row["range"] for row in cost[kernel] if row["lookup"] == lookup]
            assert sorted(ranges) == sorted(RANGES)


def test_what_was_counted_was_the_right_answer() -> None:
    # The ranges that are right for two bits are the data, wherever it is.
    cost = read_measured(MEASURED)["cost"]
    for row in cost["7.3-proposal"]:
        if row["lookup"] == "pfn_zone_device":
            is_data = row["range"] in ("device", "shared-device")
            assert row["yes"] == (row["pfns"] if is_data else 0)


def test_the_mail_fits_on_two_pages() -> None:
    text = (ROOT / "docs" / "proposal.md").read_text(encoding="utf-8")
    mail = text.partition("## The question")[2].partition("# Appendix")[0]
    assert len(mail.splitlines()) <= 2 * 60


def test_variants_in_kernels_answered_as_their_models_do() -> None:
    answers = read_measured(MEASURED)["answers"]
    assert list(answers) == list(COUNTED_KERNELS[1:])
    for verdicts in answers.values():
        assert set(verdicts.values()) == {"agrees"}
        # All that the tables have.
        assert len(verdicts) == 17


def test_two_bits_let_nothing_pass_that_is_not_initialised() -> None:
    runs = read_measured(MEASURED)["races"]
    done = {(run["kernel"], run["processors"]) for run in runs}
    assert done == {(kernel, processors) for kernel in RACE_KERNELS for processors in (1, 2)}
    for run in runs:
        bad = dict.fromkeys((race["lookup"] for race in run["races"]), 0)
        for race in run["races"]:
            bad[race["lookup"]] += race["poisoned"] + race["unmapped"]
        # What can be seen, and what a reference keeps.
        assert bad["pfn_valid"] > 0
        assert bad["reference"] == 0
        if run["kernel"] == "7.3-raced":
            assert bad["pfn_zone_device"] == bad["pfn_to_online_page"] == 0
        else:
            assert bad["pfn_zone_device"] > 0


def test_what_was_measured_is_written_a_line_for_each_row(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    assert read_measured(file) == {}
    measured = {"cost": {"k": [{"lookup": "a", "loads": [1, 2]}] * 3}, "answers": {"k": {"s": "x"}}}
    write_measured(file, measured)
    assert read_measured(file) == measured
    assert file.read_text().count("lookup") == 3
    assert all(line.count("lookup") < 2 for line in file.read_text().splitlines())
