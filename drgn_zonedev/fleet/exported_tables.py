# SPDX-License-Identifier: LGPL-2.1-or-later

"""The tables of a store as files, for other databases: JSON lines, or Parquet."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drgn_zonedev.util.directories import new_directory

__all__ = ("EXPORT_FORMATS", "MissingPyarrowError", "export_tables")

EXPORT_FORMATS = ("jsonl", "parquet")
TABLES = ("runs", "kernels", "dumps", "pgmaps", "ranges", "findings", "known_bugs")
_ROWS_AT_ONCE = 10_000
# Neither format has a column of bytes in every reader; ``path`` says the same.
_LEFT_OUT = "BLOB"


class MissingPyarrowError(Exception):
    """Parquet takes pyarrow, which is not installed."""


def export_tables(connection: sqlite3.Connection, form: str, target: Path) -> None:
    """
    Write a file for each table into a directory, which is new or holds an earlier export.

    :param form: One of :data:`EXPORT_FORMATS`.
    :raises MissingPyarrowError: if that is ``parquet``, and there is no pyarrow
    :raises OSError: if the directory cannot be made, or holds anything else
    """
    write = _write_jsonl if form == "jsonl" else _parquet_writer()
    names = [f"{table}.{form}" for table in TABLES]
    before = [name for name in names if (target / name).exists()]
    with new_directory(target, replaced=before) as directory:
        for table in TABLES:
            write(connection, table, directory / f"{table}.{form}")


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    rows = connection.execute(f"PRAGMA table_info({table})")
    return {row[1]: row[2] for row in rows if row[2] != _LEFT_OUT}


def _batches(
    connection: sqlite3.Connection, table: str, columns: list[str]
) -> Iterator[list[tuple[Any, ...]]]:
    cursor = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield rows


def _write_jsonl(connection: sqlite3.Connection, table: str, path: Path) -> None:
    columns = list(_columns(connection, table))
    with path.open("x", encoding="utf-8") as f:
        for rows in _batches(connection, table, columns):
            f.writelines(f"{json.dumps(dict(zip(columns, row)))}\n" for row in rows)


def _parquet_writer() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise MissingPyarrowError(
            "parquet needs pyarrow: pip install 'drgn-zonedev[fleet]', or choose jsonl"
        ) from e
    types = {"INTEGER": pyarrow.int64(), "REAL": pyarrow.float64(), "TEXT": pyarrow.string()}

    def write(connection: sqlite3.Connection, table: str, path: Path) -> None:
        columns = _columns(connection, table)
        schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for rows in _batches(connection, table, list(columns)):
                arrays = [pyarrow.array(values, f.type) for values, f in zip(zip(*rows), schema)]
                writer.write_table(pyarrow.table(arrays, schema=schema))

    return write
