# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which files are dumps of kernels."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from support.cellar import copy_stored
from support.dumpfiles import Machine, write_elf, write_kdump
from support.processcore import write_process_core

from drgn_zonedev.fleet.find import find_dumps


def find(*words: str | Path) -> tuple[list[str], list[str]]:
    complaints: list[str] = []
    return [f.path for f in find_dumps(map(str, words), complaints.append)], complaints


@pytest.fixture
def cellar(tmp_path: Path) -> Path:
    directory = tmp_path / "cellar"
    (directory / "a" / "b").mkdir(parents=True)
    write_elf(Machine(), directory / "a" / "vmcore")
    write_kdump(Machine(), directory / "a" / "b" / "vmcore")
    copy_stored("6.1-empty", directory / "c.tar.xz")
    (directory / "a" / "vmlinux").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\2\0")
    (directory / "a" / "dmesg.txt").write_text("Oops")
    (directory / "nothing").touch()
    return directory


def test_dumps_are_told_from_other_files(cellar: Path) -> None:
    found, complaints = find(cellar)
    assert found == [f"{cellar}/c.tar.xz", f"{cellar}/a/vmcore", f"{cellar}/a/b/vmcore"]
    assert complaints == []


def test_formats(cellar: Path) -> None:
    formats = {
        f.path.rpartition("/")[2]: f.format for f in find_dumps([str(cellar / "a/b")], print)
    }
    assert formats == {"vmcore": "kdump"}
    assert [f.format for f in find_dumps([str(cellar / "c.tar.xz")], print)] == ["export"]
    assert [f.format for f in find_dumps([str(cellar / "a/vmcore")], print)] == ["ELF"]


def test_pattern_and_list_name_dumps(cellar: Path) -> None:
    assert find(f"{cellar}/**/vmcore")[0] == [f"{cellar}/a/b/vmcore", f"{cellar}/a/vmcore"]
    names = cellar / "names"
    names.write_text(f"# Tuesday's\n\n{cellar}/a/vmcore\n{cellar}/*.tar.xz\n{cellar}/gone\n")
    found, complaints = find(f"@{names}")
    assert found == [f"{cellar}/a/vmcore", f"{cellar}/c.tar.xz"]
    assert complaints == [f"cannot read {cellar}/gone: No such file or directory"]


def test_what_was_named_and_is_no_dump_is_reported(cellar: Path) -> None:
    found, complaints = find(cellar / "a" / "dmesg.txt", f"{cellar}/*.gz", f"@{cellar}/a/vmcore")
    assert found == []
    assert complaints == [
        f"{cellar}/a/dmesg.txt is not a dump of a kernel",
        f"nothing matches {cellar}/*.gz",
        f"{cellar}/a/vmcore is not a list of paths",
    ]


def test_core_of_a_process_is_no_dump_of_a_kernel(tmp_path: Path) -> None:
    note = b"\5\0\0\0\0\0\0\0\6\0\0\0CORE\0\0\0\0"
    write_process_core(tmp_path / "core")
    data = bytearray((tmp_path / "core").read_bytes())
    data[64 + 32 : 64 + 40] = len(note).to_bytes(8, "little")
    (tmp_path / "core").write_bytes(bytes(data) + note)
    assert find(tmp_path)[0] == []


def test_links_lead_into_no_loop_and_to_no_dump_twice(cellar: Path) -> None:
    (cellar / "a" / "up").symlink_to("..")
    (cellar / "a" / "itself").symlink_to("itself")
    (cellar / "latest").symlink_to("a/b/vmcore")
    os.link(cellar / "a" / "vmcore", cellar / "hard")
    found, complaints = find(cellar, cellar / "latest")
    assert len(found) == 3
    assert f"{cellar}/a/b/vmcore" in found
    assert complaints == []


def test_link_leads_to_a_directory_elsewhere(cellar: Path, tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "link").symlink_to(cellar / "a")
    assert len(find(tmp_path / "entry")[0]) == 2


def test_devices_and_pipes_are_not_opened(cellar: Path) -> None:
    os.mkfifo(cellar / "a" / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(cellar / "socket"))
        assert len(find(cellar)[0]) == 3
    assert find(cellar / "a" / "fifo", "/dev/zero") == (
        [],
        [f"{cellar}/a/fifo is not a regular file", "/dev/zero is not a regular file"],
    )


def test_files_of_the_running_kernel_are_no_dumps() -> None:
    assert find("/proc/self", "/sys/kernel")[0] == []


def test_directory_may_be_deep(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    write_elf(Machine(), deep / "vmcore")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(150)
    try:
        found = [f.path for f in find_dumps([str(tmp_path)], print)]
    finally:
        sys.setrecursionlimit(limit)
    assert found == [f"{deep}/vmcore"]


def test_cut_off_export_is_a_dump(tmp_path: Path) -> None:
    whole = copy_stored("6.1-empty", tmp_path / "whole.tar.xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[:1000])
    assert len(find(tmp_path / "cut.tar.xz")[0]) == 1
