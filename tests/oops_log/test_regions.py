# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import mmap
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drgn_zonedev.oops_log.regions import regions

NOISE = [f"usb 1-{i}: new device, nothing of interest" for i in range(3000)]
HIT = "RAX: ffffea0000000040 RBX: 0000000000000000"


def found(lines: list[str]) -> list[tuple[int, bytes]]:
    data = "".join(f"{line}\n" for line in lines).encode()
    return [numbered for region in regions(data) for numbered in region]


def test_a_log_without_addresses_has_no_regions() -> None:
    assert found(NOISE) == []
    assert found([]) == []


@pytest.mark.parametrize("at", [0, 1, 1500, 2998, 2999])
def test_what_is_around_an_address_is_there_under_its_number(at: int) -> None:
    lines = [*NOISE[:at], HIT, *NOISE[at:]]
    numbered = dict(found(lines))
    assert numbered[at + 1] == HIT.encode()
    assert len(numbered) < len(lines)
    for number, line in numbered.items():
        assert line.decode() == lines[number - 1]
    # An oops is longer behind its registers than before them.
    assert all(n in numbered for n in range(max(at - 10, 1), min(at + 60, len(lines)) + 1))


def test_regions_are_in_order_and_do_not_overlap() -> None:
    lines = []
    for i in range(0, 3000, 150):
        lines += [*NOISE[i : i + 150], *([HIT] * (i % 7))]
    numbers = [number for number, _ in found(lines)]
    assert numbers == sorted(set(numbers))
    hits = [i for i, line in enumerate(lines, 1) if line == HIT]
    assert set(hits) <= set(numbers)


def test_the_banner_of_a_boot_is_a_region() -> None:
    lines = [*NOISE, "Linux version 6.1.0 (x@y)", "Command line: nokaslr", *NOISE]
    numbers = dict(found(lines))
    assert {3001, 3002} <= set(numbers)


def test_a_mapped_file_is_read_like_bytes(tmp_path: Path) -> None:
    data = "\n".join([*NOISE, HIT, *NOISE]).encode()
    path = tmp_path / "log"
    path.write_bytes(data)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert list(regions(mapped)) == list(regions(data))


def test_a_line_without_an_end_is_read() -> None:
    assert [list(r) for r in regions(HIT.encode())] == [[(1, HIT.encode())]]


def cpu_seconds(command: list[str]) -> float:
    """
    CPU time of a command, whatever it finds: that of a loaded machine says little else, and the
    least of three says most.
    """
    return min(_cpu_seconds(command) for _ in range(3))


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # With /dev/null for its output, grep ends at the first hit.
    subprocess.run(command, capture_output=True, check=False, env={"LC_ALL": "C"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.long("a log of 100 MB; smaller ones are in every run")
def test_a_large_log_takes_little_more_than_a_search_for_the_same(tmp_path: Path) -> None:
    oops = [
        "BUG: unable to handle page fault for address: ffffea0012345678",
        "RIP: 0010:stable_page_flags+0x10/0x200",
        HIT,
    ]
    million = "".join(f"[{i:12.6f}] {line}\n" for i, line in enumerate(NOISE * 7)).encode()
    million += "".join(f"{line}\n" for line in oops).encode()
    grep = [str(shutil.which("grep")), "-cE", "[0-9a-f]{16}|Linux version "]
    ours = [sys.executable, "-m", "drgn_zonedev", "oops"]
    small, large = tmp_path / "small.log", tmp_path / "large.log"
    small.write_bytes(million * (25_000_000 // len(million)))
    large.write_bytes(million * (100_000_000 // len(million)))
    taken = cpu_seconds([*ours, str(large)])
    assert taken <= 5 * cpu_seconds([*grep, str(large)])
    # Linear.
    assert taken <= 5 * cpu_seconds([*ours, str(small)])
