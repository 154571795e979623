# SPDX-License-Identifier: LGPL-2.1-or-later

"""Logs of oopses, damaged at random: lines, digits, bytes, and what mailers do, once more."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from support.mangling import MANGLERS

__all__ = ("damaged_log",)

_CORPUS = Path(__file__).parents[1] / "oops_log" / "corpus"

# What makes a regular expression go far, and what none of them expects.
_PIECES = (
    b"0" * 16, b"f" * 300, b"raw: ", b"head: ", b"flags: 0x1(", b"page:", b"> ", b"[ 1.0] ",
    b"\x1b[31m", b"=\n", b"=3D", b"\r", b"\0", b"\xff\xfe", b"((((((((", b"Linux version 6.1 ",
    b"RAX: ", b"pfn:0x", b"BUG: Bad page state in process x  pfn:ffffffffffffffff", b"GPR00: ",
    b"Krnl GPRS: ", b"&#1114112;", b"PHYS_OFFSET: 0xffffffffffffffff ", b"\n",
    b"pgtable: 4k pages, 99-bit VAs", b"PAGE_SIZE=0K ",
)  # fmt: skip


def damaged_log(rng: random.Random) -> tuple[bytes, str]:
    """Draw a log, and say in words which."""
    path = rng.choice(sorted(_CORPUS.glob("*.log")))
    data, done = path.read_bytes(), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(sorted(_CHANGES))
        data = _CHANGES[name](rng, data)
        done.append(name)
    return data, f"{path.stem}: {', '.join(done)}"


def _insert(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(_PIECES) * rng.choice((1, 1, 2, 50)) + data[at:]
    return data


def _digits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 10, 200))):
        at = rng.randrange(len(data) or 1)
        if changed[at : at + 1].isalnum():
            changed[at] = rng.choice(b"0123456789abcdefg")
    return bytes(changed)


def _bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 10, 200))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[rng.randrange(len(data) + 1) :][: rng.randrange(len(data) + 1)]


def _shuffled(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def _mangled(rng: random.Random, data: bytes) -> bytes:
    lines = data.decode("utf-8", "replace").splitlines()
    return MANGLERS[rng.choice(sorted(MANGLERS))](lines)


def _another(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice(sorted(_CORPUS.glob("*.log"))).read_bytes()


_CHANGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "insert": _insert,
    "digits": _digits,
    "bytes": _bytes,
    "cut": _cut,
    "shuffled": _shuffled,
    "mangled": _mangled,
    "another": _another,
}
