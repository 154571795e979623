# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tables of a store as files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drgn_zonedev.fleet.exported_tables import EXPORT_FORMATS, TABLES, export_tables
from drgn_zonedev.fleet.store import opened_store


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with opened_store(tmp_path / "s.db", create=True) as store:
        c = store.connection
        c.execute("INSERT INTO runs VALUES (1, 'q', 'now', NULL)")
        c.execute("INSERT INTO kernels VALUES (1, '6.1', 'ff')")
        for number in range(1, 4):
            c.execute(
                "INSERT INTO dumps VALUES (?, ?, ?, 'ELF', 9, '', NULL, 1, NULL, 'q', 'judged', '',"
                " 1.5, 7, '', NULL, 4096, 1, 1, 1)",
                (number, b"/\xff%d" % number, f"/\\xff{number}"),
            )
            c.execute(
                "INSERT INTO findings VALUES (?, 0, 's', 'error', 'device', ?, ?, 1, NULL, 'm', 1)",
                (number, (1 << 63) - 2, (1 << 63) - 1),
            )
        yield c


def read_files(directory: Path, form: str) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for table in TABLES:
        path = directory / f"{table}.{form}"
        if form == "jsonl":
            found[table] = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            found[table] = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return found


def stored_rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
    names = [column[0] for column in cursor.description]
    return [
        {n: v for n, v in zip(names, row) if not isinstance(v, bytes)} for row in cursor.fetchall()
    ]


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_files_hold_what_the_store_holds(
    connection: sqlite3.Connection, tmp_path: Path, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'drgn-zonedev[fleet]'")
    for _ in range(2):
        # The second one takes the place of the first.
        export_tables(connection, form, tmp_path / "out")
    found = read_files(tmp_path / "out", form)
    assert found == {table: stored_rows(connection, table) for table in TABLES}
    assert len(found["findings"]) == 3


def test_every_table_but_the_reports_is_exported(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    assert {row[0] for row in rows} == {*TABLES, "reports"}


def test_other_files_are_not_replaced(connection: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis").touch()
    with pytest.raises(FileExistsError):
        export_tables(connection, "jsonl", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis"]
