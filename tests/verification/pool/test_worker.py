# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a worker answers over its socket, message by message; here in a thread of its own."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from drgn import Program

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.opening.core import Dump, dump_of, open_dump
from drgn_zonedev.verification.pool.worker import main
from drgn_zonedev.verification.promises import MetadataPages
from drgn_zonedev.verification.scan import scan, scanning
from drgn_zonedev.verification.work import Work

_SECONDS = 60


@pytest.fixture(scope="module")
def prog() -> Iterator[Program]:
    directory = default_directory()
    assert directory is not None
    with StoredDump(directory / "6.1-fsdax-collision").files() as files:
        yield open_dump(files / "vmcore", files / "vmlinux")


Connect = Callable[[], Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Start workers, which must end when their connections are closed."""
    started: list[tuple[Connection, threading.Thread]] = []

    def start() -> Connection:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=main, args=(theirs.detach(),), daemon=True)
        thread.start()
        connection = Connection(ours.detach())
        started.append((connection, thread))
        return connection

    yield start
    for connection, thread in started:
        connection.close()
        thread.join(_SECONDS)
        assert not thread.is_alive()


def answer(connection: Connection) -> object:
    assert connection.poll(_SECONDS)
    return connection.recv()


def metadata(prog: Program, *, shift: int = 0) -> Work:
    """The pages that hold the memmap of the device, moved by some PFNs."""
    pgmap = take_snapshot(prog).pgmaps[0]
    assert pgmap.altmap is not None
    start = pgmap.altmap.base_pfn + pgmap.altmap.reserve + shift
    return Work(MetadataPages(nodes=(0,)), np.array([[start, start + 64]]))


def test_dump_that_opens_is_answered_with_nothing(prog: Program, connect: Connect) -> None:
    connection = connect()
    connection.send(dump_of(prog))
    assert answer(connection) == ""


def test_pieces_are_answered_in_order_with_their_numbers(prog: Program, connect: Connect) -> None:
    connection = connect()
    connection.send(dump_of(prog))
    assert answer(connection) == ""
    layout = page_layout(prog)
    # The second one is not what it is held against: pages of the device behind its metadata.
    works = [metadata(prog), metadata(prog, shift=0x8000), metadata(prog, shift=64)]
    connection.send(scanning(layout).begin)
    for number, work in enumerate(works, 7):
        connection.send((number, work))
    found = []
    for number, work in enumerate(works, 7):
        done = scan(prog, layout, work)
        assert answer(connection) == (number, done)
        found.append(bool(done.runs))
    assert found == [False, True, False]


def test_dump_that_is_gone_is_answered_with_the_reason(
    prog: Program, connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.send(dataclasses.replace(dump_of(prog), path=str(tmp_path / "missing")))
    reason = answer(connection)
    assert isinstance(reason, str)
    assert "No such file" in reason


def test_another_dump_of_the_same_name_is_refused(prog: Program, connect: Connect) -> None:
    connection = connect()
    dump: Dump = dump_of(prog)
    connection.send(dataclasses.replace(dump, vmcoreinfo=dump.vmcoreinfo + b"X=1\n"))
    assert answer(connection) == f"{dump.path} was replaced by another dump"


def test_worker_ends_when_the_connection_does(prog: Program, connect: Connect) -> None:
    # Before the first message, and between two: the fixture waits for the end.
    connect()
    connect().send(dump_of(prog))
