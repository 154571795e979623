# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Store of a Survey
---------------------

One SQLite file. A survey that ends at any moment leaves it as it was after some dump. See
``schema.sql`` and docs/fleet.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from drgn_zonedev.fleet.check_alone import LIMITED, Checked, Ending, Limits
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.util.strings import printable
from drgn_zonedev.vmcore.vmcoreinfo_words import DumpedKernel

__all__ = ("SCHEMA_VERSION", "DumpRecord", "Store", "StoreError", "opened_store")

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x7A646576  # "zdev"
_LONGEST_WAIT = 60
_LARGEST = (1 << 63) - 1
# Columns that all rows of a report have.
_Row = tuple[Any, ...]


class StoreError(Exception):
    """A file is not a store that this version reads; the message says what to do."""


@dataclass(frozen=True)
class DumpRecord:
    """
    What is known of a dump.

    :ivar quick_key: Of :func:`.quick_key()`.
    :ivar content: Of :func:`.content_hash()`.
    :ivar question: What was asked, as JSON.
    :ivar same_as: The dump whose report this is, because all bytes are the same.
    """

    found: Found
    quick_key: str
    content: str | None
    kernel: DumpedKernel
    question: str
    limits: Limits
    checked: Checked
    same_as: int | None = None


@contextlib.contextmanager
def opened_store(path: Path, *, create: bool) -> Iterator[Store]:
    """
    Open a store.

    :param create: Make it if it does not exist.
    :raises StoreError: if it does not exist, or is anything else
    """
    if not create and not path.exists():
        raise StoreError(f"there is no store {path}: zonedev survey PATH makes one")
    try:
        connection = sqlite3.connect(
            path, timeout=_LONGEST_WAIT, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as e:
        raise StoreError(f"cannot open {path}: {e}: choose another place for --store") from e
    with contextlib.closing(connection):
        try:
            _prepare(connection, path)
            yield Store(connection)
        except sqlite3.Error as e:
            raise StoreError(f"{path}: {e}: choose another --store") from e


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not version:
        _make_tables(connection)
    elif application != _APPLICATION_ID:
        raise StoreError(f"{path} is a database of something else: choose another --store")
    elif version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, not {SCHEMA_VERSION}: choose another --store, or use "
            "the version of zonedev that made it"
        )


def _make_tables(connection: sqlite3.Connection) -> None:
    schema = resources.files("drgn_zonedev.fleet").joinpath("schema.sql").read_text("utf-8")
    # All of it, or nothing. Two surveys may start at once.
    connection.executescript(
        f"BEGIN IMMEDIATE; {schema}"
        f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )


class Store:
    """
    An open store. Any thread of the process may read; one writes.

    :ivar connection: For queries.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()

    def begin_run(self, question: str) -> int:
        """Begin a run, or continue an interrupted one that asked the same."""
        last = self.connection.execute(
            "SELECT id, question, ended FROM runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if last and last[1:] == (question, None):
            return int(last[0])
        with self._transaction():
            cursor = self.connection.execute(
                "INSERT INTO runs (question, started) VALUES (?, ?)", (question, _now())
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def end_run(self, run: int) -> None:
        """Record that a run has checked all dumps."""
        with self._transaction():
            self.connection.execute("UPDATE runs SET ended = ? WHERE id = ?", (_now(), run))

    def knows(self, found: Found, quick_key: str, question: str, limits: Limits) -> bool:
        """Return whether the stored answer about a dump is still valid."""
        with self._lock:
            row = self.connection.execute(
                "SELECT quick_key, question, ending, limits FROM dumps WHERE location = ?",
                (os.fsencode(found.path),),
            ).fetchone()
        if row is None or row[:2] != (quick_key, question):
            return False
        ending = Ending(row[2])
        is_limited = ending in LIMITED and row[3] != _limits_text(limits)
        # A file that was being written may be complete now.
        return ending is not Ending.CHANGED and not is_limited

    def same_content(self, content: str, question: str) -> tuple[int, Checked] | None:
        """Find a judged dump with the same bytes, for the same question."""
        with self._lock:
            row = self.connection.execute(
                "SELECT dumps.id, reason, document, seconds, peak FROM dumps"
                " JOIN reports ON reports.dump = dumps.id"
                " WHERE content = ? AND question = ? AND ending = ? AND same_as IS NULL LIMIT 1",
                (content, question, Ending.JUDGED.value),
            ).fetchone()
        if row is None:
            return None
        number, reason, document, seconds, peak = row
        return number, Checked(Ending.JUDGED, reason, zlib.decompress(document), seconds, peak)

    def see(self, found: Found, run: int) -> None:
        """Note that a dump is still there."""
        with self._transaction():
            self.connection.execute(
                "UPDATE dumps SET seen_run = ? WHERE location = ?", (run, os.fsencode(found.path))
            )

    def put(self, entry: DumpRecord, run: int) -> None:
        """Store what is known of a dump, replacing what was known before."""
        report = entry.checked.report
        document = json.loads(report) if report else None
        with self._transaction():
            dump = self._put_dump(entry, run, document)
            before = self._findings_before(dump)
            for table in ("known_bugs", "findings", "ranges", "pgmaps", "reports"):
                self.connection.execute(f"DELETE FROM {table} WHERE dump = ?", (dump,))
            if report and document:
                self._insert("reports", [(dump, zlib.compress(report))])
                self._insert("pgmaps", _pgmap_rows(dump, document))
                self._insert("ranges", _range_rows(dump, document))
                self._insert("findings", _finding_rows(dump, document, before, run))
                self._insert("known_bugs", _bug_rows(dump, document))

    def _put_dump(self, entry: DumpRecord, run: int, document: Any) -> int:
        found, checked = entry.found, entry.checked
        values = {
            "location": os.fsencode(found.path),
            "path": printable(found.path),
            "format": found.format,
            "bytes": found.size,
            "quick_key": entry.quick_key,
            "content": entry.content,
            "kernel": self._kernel(entry.kernel, document),
            "crash_time": entry.kernel.crash_time,
            "question": entry.question,
            "ending": checked.ending.value,
            "reason": checked.reason,
            "seconds": checked.seconds,
            "peak": checked.peak,
            "limits": _limits_text(entry.limits),
            "same_as": entry.same_as,
            "page_size": document["kernel"]["page_size"] if document else None,
            "first_run": run,
            "checked_run": run,
            "seen_run": run,
        }
        kept = ("location", "first_run")
        updates = ", ".join(f"{name} = excluded.{name}" for name in values if name not in kept)
        self.connection.execute(
            f"INSERT INTO dumps ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
            f" ON CONFLICT (location) DO UPDATE SET {updates}",
            tuple(values.values()),
        )
        # RETURNING is new in SQLite 3.35.
        (number,) = self.connection.execute(
            "SELECT id FROM dumps WHERE location = ?", (values["location"],)
        ).fetchone()
        # Dumps that were the same as this one before may differ from it now.
        self.connection.execute(
            "UPDATE dumps SET same_as = NULL WHERE same_as = ? AND content IS NOT ?",
            (number, entry.content),
        )
        return int(number)

    def _kernel(self, kernel: DumpedKernel, document: Any) -> int | None:
        release = kernel.release or (_text(document["kernel"]["release"]) if document else "")
        if not release:
            return None
        key = release, kernel.build_id
        self.connection.execute(
            "INSERT INTO kernels (release, build_id) VALUES (?, ?) ON CONFLICT DO NOTHING", key
        )
        (number,) = self.connection.execute(
            "SELECT id FROM kernels WHERE release = ? AND build_id = ?", key
        ).fetchone()
        return int(number)

    def _findings_before(self, dump: int) -> dict[_Row, int]:
        rows = self.connection.execute(
            "SELECT slug, page_case, start_pfn, end_pfn, first_run FROM findings WHERE dump = ?",
            (dump,),
        )
        return {row[:4]: row[4] for row in rows}

    def _insert(self, table: str, rows: Iterable[_Row]) -> None:
        rows = list(rows)
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _limits_text(limits: Limits) -> str:
    return f"{limits.seconds:g} {limits.memory}"


def _text(value: Any) -> str:
    return printable(str(value))


def _number(value: Any) -> int:
    # A number in a damaged structure may be too large for SQLite.
    return min(int(value), _LARGEST)


def _pgmap_rows(dump: int, document: Any) -> Iterator[_Row]:
    for number, pgmap in enumerate(document["pgmaps"]):
        device = pgmap["device"] or {}
        pages = sum(max(r["end_pfn"] - r["start_pfn"], 0) for r in pgmap["ranges"])
        name, kind = device.get("name"), device.get("kind")
        in_progress, altmap = bool(pgmap["in_progress"]), pgmap["altmap"] is not None
        yield (dump, number, pgmap["address"], _text(pgmap["type"]), _number(pages), in_progress,
               altmap, name and _text(name), kind and _text(kind))  # fmt: skip


def _range_rows(dump: int, document: Any) -> Iterator[_Row]:
    for number, r in enumerate(document["ranges"]):
        span = _number(r["start_pfn"]), _number(r["end_pfn"])
        yield (dump, number, *span, r["case"], r["memmap"], r["pgmap"])


def _finding_rows(dump: int, document: Any, before: dict[_Row, int], run: int) -> Iterator[_Row]:
    for number, f in enumerate(document["findings"]):
        span = _number(f["start_pfn"]), _number(f["end_pfn"])
        first = before.get((f["slug"], f["case"], *span), run)
        yield (dump, number, f["slug"], f["severity"], f["case"], *span, _number(f["count"]),
               f["pgmap"], _text(f["message"]), first)  # fmt: skip


def _bug_rows(dump: int, document: Any) -> Iterator[_Row]:
    for number, finding in enumerate(document["findings"]):
        for bug in finding.get("known_bugs", ()):
            yield dump, number, bug
