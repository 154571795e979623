# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A vmlinux of another build, where the build ID that drgn compares is not known, and what is
imported while drgn indexes one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from drgn import Program

from drgn_zonedev import (
    check,
    classify,
    explain,
    find_pins,
    page_census,
    proposal,
    walkers,
)
from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.opening.core import open_core, open_core_unread
from drgn_zonedev.opening.failures import CannotJudgeError
from drgn_zonedev.opening.symbols import MissingSymbolsError, index_symbols, load_symbols

# With each limit, a process of its own: what becomes of a thread that gets no memory.
_LIMITED = """
import os, resource, signal, sys
from pathlib import Path
import drgn, numpy
from drgn_zonedev.opening.symbols import index_symbols
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for step in range(0, 100 << 10, 4 << 10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        resource.setrlimit(resource.RLIMIT_AS, (size + step, size + step))
        try:
            index_symbols(drgn.Program(), ["json"])
        except MemoryError:
            pass
        finally:
            os._exit(0)
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"{step} bytes more: it waits")
"""


def unpack_dump(directory: Path, name: str) -> Path:
    dumps = default_directory()
    assert dumps is not None
    directory.mkdir()
    unpack(dumps / name / ARCHIVE, directory)
    return directory


def without_build_id(vmcore: Path) -> bytes:
    text = open_core(str(vmcore))["VMCOREINFO"].string_()
    without = re.sub(rb"BUILD-ID=.*\n", b"", text)
    assert without != text
    return without


def test_vmlinux_of_the_same_build_is_taken(tmp_path: Path) -> None:
    dump = unpack_dump(tmp_path / "dump", "6.1-empty")
    vmcoreinfo = without_build_id(dump / "vmcore")
    prog = open_core(str(dump / "vmcore"), vmcoreinfo=vmcoreinfo)
    load_symbols(prog, [str(dump / "vmlinux")])
    assert prog["node_data"].address_ == prog.symbol("node_data").address


def test_vmlinux_of_another_build_is_refused_by_its_addresses(tmp_path: Path) -> None:
    dump = unpack_dump(tmp_path / "dump", "6.1-empty")
    other = unpack_dump(tmp_path / "other", "6.12-empty") / "vmlinux"
    prog = open_core(str(dump / "vmcore"), vmcoreinfo=without_build_id(dump / "vmcore"))
    with pytest.raises(CannotJudgeError, match=f"{other} is of another build: it has node_data"):
        load_symbols(prog, [str(other)])


def test_thread_that_gets_no_memory_is_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_thread_that_cannot_be_had_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    index_symbols(Program(), ["json"])


def test_loading_and_indexing_read_no_memory(tmp_path: Path) -> None:
    # What the headers of a dump contradict each other about is only known afterwards.
    dump = unpack_dump(tmp_path / "dump", "6.1-empty")
    prog = open_core_unread(str(dump / "vmcore"))
    reads: list[int] = []

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        reads.append(address)
        return bytes(size)

    for physical in (False, True):
        prog.add_memory_segment(0, (1 << 64) - 1, read, physical)
    load_symbols(prog, [str(dump / "vmlinux")])
    index_symbols(prog, [])
    assert not reads
    assert prog["max_pfn"].value_() == 0
    assert reads


@pytest.mark.parametrize(
    "analyse", [check, classify, page_census, find_pins, proposal, walkers, lambda p: explain(p, 0)]
)
def test_python_says_what_the_shell_says_without_symbols(
    analyse: Callable[[Program], object], without_symbols: tuple[Program, str]
) -> None:
    prog, said = without_symbols
    with pytest.raises(MissingSymbolsError) as raised:
        analyse(prog)
    assert str(raised.value) == said
    # Callers who know of drgn's exceptions know it, too.
    assert isinstance(raised.value, LookupError)


@pytest.fixture(scope="module")
def without_symbols(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, str]:
    """A program of a dump alone, and what the shell says if it is given that."""
    vmcore = unpack_dump(tmp_path_factory.mktemp("alone") / "dump", "6.1-empty") / "vmcore"
    vmcore.with_name("vmlinux").unlink()
    with pytest.raises(MissingSymbolsError) as raised:
        load_symbols(open_core_unread(str(vmcore)), [])
    prog = Program()
    prog.set_core_dump(vmcore)
    return prog, str(raised.value)
