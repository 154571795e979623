# SPDX-License-Identifier: LGPL-2.1-or-later

"""
An empty XFS for a guest, which has no mkfs.xfs: the few of its blocks that are not zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from drgn_zonedev.lab.host.tools import run_tool

__all__ = ("nonzero_runs", "xfs_files")

_BLOCK = 4096
# What every kernel of the lab mounts with DAX: v5.10 takes no reflink with it.
_FEATURES = "crc=1,reflink=0,bigtime=0,inobtcount=0,rmapbt=0"


def nonzero_runs(image: bytes) -> Iterator[tuple[int, int]]:
    """Get the runs of blocks of an image that are not zero: the first, and how many."""
    zeros, start = bytes(_BLOCK), None
    count = len(image) // _BLOCK
    for block in range(count + 1):
        data = image[block * _BLOCK : (block + 1) * _BLOCK]
        if block < count and data != zeros:
            start = block if start is None else start
        elif start is not None:
            yield start, block - start
            start = None


def xfs_files(mib: int) -> dict[str, bytes]:
    """
    Return the files that the guest makes an XFS of: its blocks, and where each run of them goes.

    :param mib: size of the file system, at least 300
    """
    with tempfile.TemporaryDirectory(prefix="zonedev-lab-") as directory:
        path = Path(directory) / "image"
        with path.open("wb") as f:
            f.truncate(mib << 20)
        run_tool("mkfs.xfs", "-q", "-m", _FEATURES, str(path))
        image = path.read_bytes()
    runs = list(nonzero_runs(image))
    blocks = b"".join(image[first * _BLOCK : (first + n) * _BLOCK] for first, n in runs)
    lines = "".join(f"{first} {n}\n" for first, n in runs)
    return {"xfs/blocks": blocks, "xfs/runs": lines.encode()}
