# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dumps in kdump Format
---------------------

Reads from the bitmap of a dump in makedumpfile's own format which page frames the dump
contains. libkdumpfile decides by the same bits; it reads all of them when it opens the
dump, this module only those that are asked for.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Import numpy late: the command line first asks whether the dump is whole.
if TYPE_CHECKING:
    import numpy as np

__all__ = ("KdumpFile", "lacks_its_bitmaps", "read_kdump_header")

_SIGNATURE = b"KDUMP   "
# struct disk_dump_header of 64-bit machines: header_version, and block_size,
# sub_hdr_size, bitmap_blocks and max_mapnr.
_VERSION, _VERSION_OFFSET = struct.Struct("<i"), 8
_BLOCKS, _BLOCKS_OFFSET = struct.Struct("<iiII"), 428
_HEADER_SIZE = _BLOCKS_OFFSET + _BLOCKS.size
# struct kdump_sub_header, in the next block: split, start_pfn and end_pfn since
# header_version 2; start_pfn_64, end_pfn_64 and max_mapnr_64 since 6.
_SPLIT, _SPLIT_OFFSET = struct.Struct("<iQQ"), 12
_WIDE, _WIDE_OFFSET = struct.Struct("<QQQ"), 80
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 12, 1 << 18
# Bytes to read at once: the bits of 128 MiB of memory.
_PART_ORDER = 12


@dataclass(frozen=True)
class KdumpFile:
    """
    Where the bitmap is in the file.

    The bits of frames below ``max_pfn`` begin at ``offset``. A part of a split dump has
    ``is_part``, and contains ``[start_pfn, end_pfn)``.
    """

    path: Path
    page_size: int
    offset: int
    max_pfn: int
    start_pfn: int
    end_pfn: int
    is_part: bool

    def absent_frames(self, frames: np.ndarray, page_size: int) -> np.ndarray:
        """Return which page frames the dump does not contain; none, if the bits cannot be read."""
        import numpy as np

        if page_size != self.page_size:
            return np.zeros(len(frames), bool)
        absent = (frames < self.start_pfn) | (frames >= self.end_pfn)
        rows = np.flatnonzero(~absent)
        absent[rows] = ~self._is_set(frames[rows].astype(np.int64))
        return absent

    def filtered_frames(self, frames: np.ndarray, page_size: int) -> np.ndarray:
        """Return which page frames the bitmap says are not in the dump, nor in another part."""
        absent = self.absent_frames(frames, page_size) & (frames < self.max_pfn)
        return absent & ~self.frames_in_other_parts(frames)

    def frames_in_other_parts(self, frames: np.ndarray) -> np.ndarray:
        """Return which page frames are in another part of a split dump."""
        import numpy as np

        outside = (frames < self.start_pfn) | (frames >= self.end_pfn)
        found = outside & (frames < self.max_pfn) & self.is_part
        rows = np.flatnonzero(found)
        found[rows] = self._is_set(frames[rows].astype(np.int64))
        return found

    def _is_set(self, bits: np.ndarray) -> np.ndarray:
        import numpy as np

        # Bits beyond the end of the file count as set, so that the frame is tried.
        found = np.ones(len(bits), bool)
        byte = bits >> 3
        numbers, part = np.unique(byte >> _PART_ORDER, return_inverse=True)
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return found
        try:
            for i, number in enumerate(numbers.tolist()):
                start = number << _PART_ORDER
                raw = os.pread(fd, 1 << _PART_ORDER, self.offset + start)
                values = np.full(1 << _PART_ORDER, 0xFF, np.uint8)
                values[: len(raw)] = np.frombuffer(raw, np.uint8)
                rows = np.flatnonzero(part == i) if len(numbers) > 1 else slice(None)
                found[rows] = values[byte[rows] - start] >> (bits[rows] & 7) & 1
        except OSError:
            return np.ones(len(bits), bool)
        finally:
            os.close(fd)
        return found


def read_kdump_header(path: Path) -> KdumpFile | None:
    """
    Read where the bitmap of a dump in kdump format is. ``None`` for any other file, for
    other machines than 64-bit little-endian ones, and if the header is damaged.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
            if not header.startswith(_SIGNATURE):
                return None
            (version,) = _VERSION.unpack_from(header, _VERSION_OFFSET)
            block_size, header_blocks, blocks, max_pfn = _BLOCKS.unpack_from(header, _BLOCKS_OFFSET)
            if not _LEAST_BLOCK <= block_size <= _LARGEST_BLOCK or header_blocks < 0:
                return None
            file.seek(block_size)
            sub_header = file.read(_WIDE_OFFSET + _WIDE.size)
        split, start_pfn, end_pfn = 0, 0, 0
        if version >= 2:
            split, start_pfn, end_pfn = _SPLIT.unpack_from(sub_header, _SPLIT_OFFSET)
        if version >= 6:
            start_pfn, end_pfn, max_pfn = _WIDE.unpack_from(sub_header, _WIDE_OFFSET)
    except (OSError, OverflowError, struct.error):
        return None
    offset = block_size * (1 + header_blocks)
    if max_pfn <= 8 * block_size * blocks // 2:
        # The first bitmap is of the pages of the machine, the second of those in the dump.
        blocks //= 2
        offset += block_size * blocks
    max_pfn = min(max_pfn, 8 * block_size * blocks)
    return KdumpFile(
        path=path,
        page_size=block_size,
        offset=offset,
        max_pfn=max_pfn,
        start_pfn=min(start_pfn, max_pfn) if split else 0,
        end_pfn=min(end_pfn, max_pfn) if split else max_pfn,
        is_part=bool(split),
    )


def lacks_its_bitmaps(path: Path) -> bool:
    """
    Return whether a dump in kdump format ends before the bitmaps of its pages do.

    libkdumpfile maps them without checking the size of the file, and opening such a dump
    ends in SIGBUS.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
            file_size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if not header.startswith(_SIGNATURE):
        return False
    try:
        block_size, header_blocks, bitmap_blocks, _ = _BLOCKS.unpack_from(header, _BLOCKS_OFFSET)
    except struct.error:
        return True
    return file_size < block_size * (1 + header_blocks + bitmap_blocks)
