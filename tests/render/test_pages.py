# SPDX-License-Identifier: LGPL-2.1-or-later

"""The census as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.fakekernel import collision
from support.fakekernel.ram import busy_ram
from support.schema import validated

from drgn_zonedev.census.grouping import By
from drgn_zonedev.census.total import Census, page_census
from drgn_zonedev.render.pages import census_csv, census_document, census_lines, census_text
from drgn_zonedev.render.screen import Screen

KEYS = ["kind", "node", "zone", "order", "pages"]


@pytest.fixture(scope="module")
def censuses() -> dict[By | None, Census]:
    prog = busy_ram("7.2").program()
    return {by: page_census(prog, by) for by in (None, *By)}


def test_documents_have_the_keys_that_are_promised(censuses: dict[By | None, Census]) -> None:
    for by, census in censuses.items():
        document = validated(census_document(census))
        assert list(document) == ["schema", "total_pages", "groups"]
        assert document["schema"] == "drgn-zonedev/pages/1"
        assert sum(group["pages"] for group in document["groups"]) == document["total_pages"]
        further = [by.key] if by and by is not By.ORDER else []
        assert all(list(group) == KEYS + further for group in document["groups"])
        has_orders = {group["order"] is not None for group in document["groups"]}
        assert has_orders == {by is By.ORDER}


def test_lines_and_csv_say_the_same(censuses: dict[By | None, Census]) -> None:
    for census in censuses.values():
        groups = census_document(census)["groups"]
        header, *lines = [json.loads(line) for line in census_lines(census).splitlines()]
        assert validated(header)["total_pages"] == census.total_pages
        assert [validated(line).pop("record") for line in lines] == ["group"] * len(groups)
        rows = list(csv.DictReader(io.StringIO(census_csv(census))))
        assert [int(row["pages"]) for row in rows] == [group["pages"] for group in groups]
        assert [row["kind"] for row in rows] == [group["kind"] for group in groups]


def test_pgmaps_are_named_in_json() -> None:
    document = validated(census_document(page_census(collision("6.1").program(), "pgmap")))
    (label,) = (group["pgmap"] for group in document["groups"] if group["kind"] == "device")
    assert (label["type"], label["in_use"]) == ("MEMORY_DEVICE_FS_DAX", False)


def test_text_has_all_pages_and_fits_the_screen(censuses: dict[By | None, Census]) -> None:
    for census in censuses.values():
        text = census_text(census)
        assert f"total       {census.total_pages:,}" in text
        screen = Screen(30, 90)
        lines = census_text(census, screen=screen).split("\n")
        assert len(lines) <= screen.lines
        assert max(map(len, lines)) <= 90


def test_bars_are_on_terminals_only(censuses: dict[By | None, Census]) -> None:
    census = censuses[None]
    assert "█" in census_text(census, screen=Screen(40, 90))
    assert "█" not in census_text(census, screen=Screen(40))
    assert "█" not in census_text(census)


def test_devices_are_listed_by_type() -> None:
    text = census_text(page_census(collision("6.1").program()))
    assert "device memory of type FS_DAX: 48,128 idle, 0 in use\n" in text
