# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import shutil

import pytest

from drgn_zonedev.lab.machine.xfs import nonzero_runs, xfs_files

BLOCK = 4096


@pytest.mark.parametrize(
    ("blocks", "runs"),
    [
        ("", []),
        ("..", []),
        ("x", [(0, 1)]),
        (".xx.x", [(1, 2), (4, 1)]),
        ("xx..xxx.", [(0, 2), (4, 3)]),
    ],
)
def test_runs_of_blocks_that_are_not_zero(blocks: str, runs: list[tuple[int, int]]) -> None:
    image = b"".join(bytes(BLOCK) if b == "." else bytes(BLOCK - 1) + b"x" for b in blocks)
    assert list(nonzero_runs(image)) == runs


def test_the_blocks_of_a_file_system_are_few() -> None:
    if shutil.which("mkfs.xfs", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("xfsprogs is not installed")
    files = xfs_files(320)
    runs = [tuple(map(int, line.split())) for line in files["xfs/runs"].decode().splitlines()]
    assert runs[0][0] == 0
    assert sum(count for _, count in runs) * BLOCK == len(files["xfs/blocks"]) < 1 << 20
    assert files["xfs/blocks"].startswith(b"XFSB")
