# SPDX-License-Identifier: LGPL-2.1-or-later

"""Large devices: how much of their memmap is read, and how much memory that takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.largedevice import LargeDevice

import drgn_zonedev
from drgn_zonedev.model import Case
from drgn_zonedev.report import check


@pytest.mark.parametrize(("gib", "shift", "share"), [(2, 9, 3), (4, 18, 100)])
def test_shared_vmemmap_is_read_once(gib: int, shift: int, share: int) -> None:
    device = LargeDevice(gib, shift)
    report = check(device.program())
    assert not report.findings
    assert not report.unjudged
    unique = 128 * (device.pages >> shift)
    assert report.coverage.by_case[Case.DEVICE].verified == device.pages
    assert report.coverage.aliases_skipped == device.pages - unique
    # Page tables, and whatever else was read of the memmap, are counted too.
    assert device.memmap_bytes >= 64 * unique
    assert device.memmap_bytes + device.table_bytes <= 64 * device.pages // share


def test_each_page_table_is_read_once_per_walk() -> None:
    device = LargeDevice(2, 9)
    check(device.program())
    # 8192 pages of vmemmap, 512 to a table: what shares them is looked for, and where they are.
    assert +device.leaf_reads == dict.fromkeys(+device.leaf_reads, 2)
    assert len(+device.leaf_reads) == 8192 // 512


@pytest.mark.parametrize(("gib", "shift"), [(16, 0), (1024, 18)])
def test_memory_does_not_grow_with_the_device(gib: int, shift: int) -> None:
    program = Path(__file__).parent / "support" / "largedevice.py"
    root = Path(drgn_zonedev.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(program), str(gib), str(shift)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages, kib = map(int, done.stdout.split())
    assert pages == gib << 18
    assert kib <= 100 << 10
