# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Packed exports, damaged at random: the xz stream, the tar archive in it, or what that
says of its members. Each is asked about with ``check`` in a process with limits.
"""

from __future__ import annotations

import hashlib
import lzma
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .limited import MEMORY, Tried, try_command

__all__ = ("SHARE", "draw_archive", "fuzz_archives", "try_archive")

# One in so many inputs is a packed export.
SHARE = 20

_BLOCK = 512
_SECONDS, _MEMORY = 2, MEMORY
_FIELDS = ((0, 100), (100, 8), (124, 12), (136, 12), (148, 8), (156, 1), (257, 8), (345, 155))
_KINDS = b"\x0001234567xgLKSMVDN"
_SIZES = (-512, -1, 0, 511, 512, 1 << 33, 1 << 63, 1 << 80)

Mutation = Callable[[random.Random, bytearray], bytes]


def _headers(tar: bytes | bytearray) -> list[int]:
    found, at = [], 0
    while at < len(tar) and tar[at]:
        found.append(at)
        size = int(tar[at + 124 : at + 135], 8)
        at += _BLOCK + size + -size % _BLOCK
    return found


def _with_checksum(tar: bytearray, at: int) -> None:
    tar[at + 148 : at + 156] = b" " * 8
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + _BLOCK])


def _number(number: int) -> bytes:
    if 0 <= number < 1 << 33:
        return b"%011o\0" % number
    data = bytearray(number.to_bytes(12, "big", signed=True))
    data[0] |= 0x80
    return bytes(data)


def _field(rng: random.Random, tar: bytearray) -> bytes:
    at = rng.choice(_headers(tar))
    start, size = rng.choice(_FIELDS)
    tar[at + start : at + start + size] = rng.randbytes(size)
    if rng.randrange(4):
        _with_checksum(tar, at)
    return lzma.compress(tar, preset=0)


def _size(rng: random.Random, tar: bytearray) -> bytes:
    at = rng.choice(_headers(tar))
    tar[at + 124 : at + 136] = _number(rng.choice(_SIZES))
    _with_checksum(tar, at)
    return lzma.compress(tar, preset=0)


def _kind(rng: random.Random, tar: bytearray) -> bytes:
    at = rng.choice(_headers(tar))
    tar[at + 156] = rng.choice(_KINDS)
    _with_checksum(tar, at)
    return lzma.compress(tar, preset=0)


def _extension(rng: random.Random, tar: bytearray) -> bytes:
    # Any number of headers of any kind, in front of any other.
    at = rng.choice(_headers(tar))
    header = bytearray(tar[at : at + _BLOCK])
    header[156] = rng.choice(_KINDS)
    header[124:136] = _number(rng.choice(_SIZES))
    _with_checksum(header, 0)
    tar[at:at] = header * rng.choice((1, 2, 16, 20000))
    return lzma.compress(tar, preset=0)


def _cut(rng: random.Random, tar: bytearray) -> bytes:
    return lzma.compress(tar[: rng.randrange(len(tar))], preset=0)


def _zeros(rng: random.Random, tar: bytearray) -> bytes:
    at = rng.choice((*_headers(tar), len(tar)))
    tar[at:at] = bytes(rng.choice((1, _BLOCK, 2 * _BLOCK, 1 << 20, 64 << 20)))
    return lzma.compress(tar, preset=0)


def _stream(rng: random.Random, tar: bytearray) -> bytes:
    data = bytearray(lzma.compress(tar, preset=0))
    for _ in range(rng.choice((1, 1, 2, 8))):
        near = rng.choice((32, len(data)))
        data[rng.randrange(near)] = rng.randrange(256)
    return bytes(data)


def _stream_cut(rng: random.Random, tar: bytearray) -> bytes:
    data = lzma.compress(tar, preset=0)
    return data[: rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, 33)))]


def _streams(rng: random.Random, tar: bytearray) -> bytes:
    data = lzma.compress(tar, preset=0)
    more = (data, rng.randbytes(rng.randrange(1, 100)), bytes(4), lzma.compress(b""))
    return data + rng.choice(more)


_MUTATIONS: tuple[Mutation, ...] = (
    *(_field, _size, _kind, _extension, _cut, _zeros, _stream, _stream_cut, _streams),
)


def draw_archive(rng: random.Random, archive: bytes) -> tuple[str, bytes]:
    """Draw a damaged archive, and what was done to it."""
    mutation = rng.choice(_MUTATIONS)
    return mutation.__name__.strip("_"), mutation(rng, bytearray(lzma.decompress(archive)))


def try_archive(archive: Path) -> Tried:
    """Check an archive, with limits of processor time, memory and disk."""
    return try_command(["-c", str(archive), "check"], _SECONDS, _MEMORY)


def fuzz_archives(seed: int, count: int, archives: list[Path], keep: Path) -> int:
    """Draw and try damaged archives, keep what fails, and return how many do."""
    rng, statuses, failed = random.Random(seed), Counter[int](), 0
    slowest = largest = 0.0
    with tempfile.TemporaryDirectory(prefix="zonedev-fuzz-") as directory:
        path = Path(directory) / "damaged.tar.xz"
        for _ in range(count):
            what, data = draw_archive(rng, rng.choice(archives).read_bytes())
            path.write_bytes(data)
            tried = try_archive(path)
            statuses[tried.status] += 1
            slowest, largest = max(slowest, tried.seconds), max(largest, tried.memory)
            if tried.failures:
                failed += 1
                print(
                    f"FAILED {_kept(keep, data)}: {what}: {'; '.join(tried.failures)}", flush=True
                )
    print(
        f"{count} packed exports: "
        + ", ".join(f"{n} with status {s}" for s, n in sorted(statuses.items()))
        + f"; slowest {slowest:.2f} s, largest {int(largest) >> 20} MiB, {failed} failures"
    )
    return failed


def _kept(directory: Path, data: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{hashlib.sha256(data).hexdigest()[:12]}.tar.xz"
    path.write_bytes(data)
    return path
