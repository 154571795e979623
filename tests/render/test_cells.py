# SPDX-License-Identifier: LGPL-2.1-or-later

"""The words and tables that every view has in common."""

from __future__ import annotations

import dataclasses

import pytest
from support.machines import finding, pgmap

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Case, PgmapDevice, RefState
from drgn_zonedev.render.cells import (
    advice_lines,
    case_text,
    device_text,
    finding_line,
    fitted_table,
    span,
    state_text,
    table,
    type_text,
)
from drgn_zonedev.render.screen import Screen

PGMAP = pgmap(0xFFFF888000000000, 0x40000, 0x48000)


def screen(columns: int | None) -> Screen:
    return Screen(24, columns)


def test_ranges_are_half_open() -> None:
    assert span(0x24000, 0x30000) == "[0x24000, 0x30000)"


def test_cases_of_the_mail_keep_their_numbers() -> None:
    # seed-email.txt has five.
    numbered = {case_text(case) for case in Case if "(" in case_text(case)}
    assert numbered == {
        *("offline (1)", "device (2)", "partial (3)", "initializing (4)", "reserved (5)")
    }
    assert case_text(Case.ONLINE) == "online"


def test_type_loses_its_prefix() -> None:
    assert type_text(PGMAP) == "GENERIC"


def test_state_is_that_of_the_reference_once_all_is_initialised() -> None:
    assert state_text(PGMAP) == "live"
    dying = dataclasses.replace(PGMAP, ref=RefState("dead", "atomic", 1))
    assert state_text(dying) == "dead"
    assert state_text(dataclasses.replace(dying, in_progress=True)) == "initializing"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (None, None),
        (PgmapDevice("dax0.0", "dax", 1), "dax0.0"),
        (PgmapDevice("namespace0.0", "nd", 1, "pmem0"), "namespace0.0 (pmem0)"),
    ],
)
def test_device_is_named_with_its_disk(device: PgmapDevice | None, text: str | None) -> None:
    assert device_text(dataclasses.replace(PGMAP, device=device)) == text


def test_finding_is_a_line() -> None:
    found = finding("device-page-zone", Case.DEVICE, 0x40000, 0x40001, None)
    line = finding_line(dataclasses.replace(found, message="two\nlines\x1b[2J"))
    assert line == "error: device-page-zone [0x40000, 0x40001): two\\nlines\\x1b[2J"


@pytest.mark.parametrize("slug", KINDS)
def test_every_kind_has_advice(slug: str) -> None:
    why, cure = advice_lines(finding(slug, Case.DEVICE, 0, 1, None))
    assert why.startswith("    why: ")
    assert cure.startswith("    cure: ")
    assert len(why) > 20
    assert len(cure) > 20


ROWS = [("0x40000", "a" * 10, "live", "b" * 40), ("0x48000", "c", "dead", "d")]
HEADERS = ("pfn", "name", "state", "reason")


def test_table_escapes_what_a_terminal_would_take_for_more() -> None:
    assert table(["a"], [["x\x1b[2J"], [0x10]]).splitlines()[1:] == ["x\\x1b[2J", "16"]


def test_without_a_screen_nothing_is_left_out() -> None:
    whole = table(HEADERS, ROWS)
    assert fitted_table(HEADERS, ROWS, None, least=("state",)) == whole
    assert fitted_table(HEADERS, ROWS, screen(None), least=("state",)) == whole
    assert fitted_table(HEADERS, ROWS, screen(200), least=("state",)) == whole


@pytest.mark.parametrize("columns", [20, 30, 40, 50, 60, 70])
def test_lines_do_not_wrap(columns: int) -> None:
    text = fitted_table(HEADERS, ROWS, screen(columns), least=("state", "name"))
    assert max(len(line) for line in text.splitlines()) <= columns


def test_columns_go_in_order_of_what_they_are_worth() -> None:
    kept = [
        tuple(
            fitted_table(HEADERS, ROWS, screen(n), least=("state", "name")).splitlines()[0].split()
        )
        for n in range(70, 10, -1)
    ]
    seen = list(dict.fromkeys(kept))
    assert seen[0] == HEADERS
    assert ("pfn", "name", "reason") in seen
    assert seen.index(("pfn", "name", "reason")) < seen.index(("pfn", "reason"))
    assert all("state" not in headers for headers in seen if "name" not in headers)
