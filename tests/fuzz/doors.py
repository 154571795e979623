# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What else comes from outside, drawn at random, each a command in a process with limits:
program headers and VMCOREINFO, vmlinux, QMP servers, file names, logs, and how much memory,
disk and how many descriptors there are.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.damagedheaders import FIELDS, headers, loads, with_headers
from support.liars import GREETING, LIES, Liar

from drgn_zonedev.opening import guest

from .image import Image
from .limited import Tried, try_command
from .logs import damaged_log

__all__ = ("DOORS", "DOOR_SHARE", "Attempt", "fuzz_doors")

# One in so many inputs, through each door.
DOOR_SHARE = 100

_SECONDS = 5.0
_NUMBERS = (0, 1, 7, 8, 4095, 4096, 1 << 31, 1 << 32, 1 << 47, 1 << 63, (1 << 64) - 1)
_COMMANDS = ("check", "ranges", "sections", "pgmaps", "pfn 0x24400", "walkers", "proposal")
_MIB = 1 << 20
# Where it costs nothing to have everything on the disk.
_SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Attempt:
    """A command line, what its process does first, and what was drawn, in words."""

    argv: tuple[str, ...]
    what: str
    before: Callable[[], None] = lambda: None


Door = Callable[[random.Random, Image, Path], Attempt]


def _command(rng: random.Random) -> tuple[str, ...]:
    return tuple(rng.choice(_COMMANDS).split())


def _vmcore(rng: random.Random, image: Image, work: Path) -> Attempt:
    data = image.contents()
    if rng.randrange(2):
        table = headers(data)
        rows = loads(table)
        chosen = rng.choice((rows, [rng.choice(rows.tolist())]))
        field, number = rng.choice(FIELDS), rng.choice((*_NUMBERS, rng.getrandbits(64)))
        table[field][chosen] = number
        data, what = with_headers(data, table), f"{field} {number:#x} of {len(chosen)} headers"
    else:
        # VMCOREINFO is lines of KEY=VALUE.
        start = data.index(b"OSRELEASE=")
        at = start + rng.randrange(2000)
        new = rng.choice((b"9", b"\0", b"=", b"\n", b"f", b"-", rng.randbytes(1))) * rng.choice(
            (1, 2, 16)
        )
        data, what = data[:at] + new + data[at + len(new) :], f"VMCOREINFO + {at - start}: {new!r}"
    (work / "vmcore").write_bytes(data)
    return Attempt(("-c", str(work / "vmcore"), "-s", str(image.vmlinux), *_command(rng)), what)


def _sections(data: bytes) -> Iterator[tuple[str, int, int]]:
    (table,), (count, names) = (
        struct.unpack_from("<Q", data, 40),
        struct.unpack_from("<HH", data, 60),
    )
    rows = [struct.unpack_from("<IIQQQQ", data, table + 64 * nr) for nr in range(count)]
    for name, kind, _, _, offset, size in rows:
        start = rows[names][4] + name
        if kind != 8 and size:
            yield data[start : data.index(b"\0", start)].decode(), offset, size
    yield "section headers", table, 64 * count


def _vmlinux(rng: random.Random, image: Image, work: Path) -> Attempt:
    data = bytearray(image.vmlinux.read_bytes())
    name, offset, size = rng.choice([*_sections(bytes(data))])
    for _ in range(rng.choice((1, 1, 3, 20))):
        at, width = offset + rng.randrange(size), rng.choice((1, 1, 2, 4, 8))
        word = rng.choice((*_NUMBERS, rng.getrandbits(64))) & ((1 << 8 * width) - 1)
        data[at : at + width] = word.to_bytes(width, "little")
    (work / "vmlinux").write_bytes(data)
    vmcore = image.vmlinux.with_name("vmcore")
    return Attempt(("-c", str(vmcore), "-s", str(work / "vmlinux"), *_command(rng)), name)


def _impatient() -> None:
    guest._OPENING_SECONDS = 0.2


def _qmp(rng: random.Random, image: Image, work: Path) -> Attempt:
    lies = [lie for lie in LIES if "GiB" not in lie]
    lie = rng.choice((*lies, "drawn"))
    if lie == "drawn":
        parts = (b'{"return": {}}', b"[]", b"{}", b'{"error": ', b"\xff", b"\0", b'"', b"1e999")
        lines = [rng.choice(parts) + rng.choice((b"", b"\r\n", b"}")) for _ in range(20)]
        LIES["drawn"] = lambda: iter([GREETING, *lines])
    Liar(work / "qmp", lie)
    pause = ("--pause",) * rng.randrange(2)
    return Attempt(("--qemu", str(work / "qmp"), *pause, *_command(rng)), lie, _impatient)


def _file_name(rng: random.Random) -> str:
    name = bytearray(rng.randbytes(rng.choice((1, 2, 8, 100))))
    if not rng.randrange(4):
        name *= 100
    return os.fsdecode(
        bytes(name).replace(b"\0", b"\xff").replace(b"/", b"\n").lstrip(b"-") or b"x"
    )


def _names(rng: random.Random, image: Image, work: Path) -> Attempt:
    odd = work / _file_name(rng)
    with contextlib.suppress(OSError):
        shutil.copytree(image.vmlinux.parent, odd)
    there = str(image.vmlinux.parent)
    argv = rng.choice((
        ("-c", str(odd), "check"),
        ("-c", str(odd / "vmcore"), "-s", str(odd / "vmlinux"), "check", "--format", "json"),
        ("-c", str(odd / "nothing"), "check"),
        ("-c", there, "-s", str(odd), "check"),
        ("-c", there, "check", "-o", str(odd / "report")),
        ("-c", there, "check", "--format", "junit", "-o", str(odd)),
        ("-c", there, "export", str(odd / "out")),
        ("-c", there, "export", f"{odd}.tar.xz"),
        ("-c", str(odd), "export", "--force", str(odd)),
        ("demo", "--vmcores", str(odd)),
        ("--qemu", str(odd), "check"),
        ("-c", there, "pfn", odd.name),
        ("lab", "run", "--kernel", str(odd), "--vmlinux", str(odd)),
    ))  # fmt: skip
    return Attempt(argv, repr(odd.name)[:60])


def _limits(rng: random.Random, image: Image, work: Path) -> Attempt:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit, number = rng.choice((
        (resource.RLIMIT_AS, size + rng.choice((0, 1, 32, 64, 112, 128, 160, 256)) * _MIB),
        (resource.RLIMIT_FSIZE, rng.choice((0, 1, 4096, 100_000, _MIB))),
        (resource.RLIMIT_NOFILE, rng.randrange(3, 16)),
    ))  # fmt: skip

    def before() -> None:
        # As Python does for the command line.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(limit, (number, number))

    command = rng.choice((
        _command(rng), ("check", "-o", str(work / "report")), ("export", str(work / "out")),
        ("export", str(work / "out.tar.xz")), ("check", "-j", "2"),
    ))  # fmt: skip
    return Attempt(("-c", str(image.vmlinux.parent), *command), f"limit {limit}: {number}", before)


def _logs(rng: random.Random, image: Image, work: Path) -> Attempt:
    data, what = damaged_log(rng)
    (work / "log").write_bytes(data)
    dump = rng.choice(((), (), ("-c", str(image.vmlinux.parent)), ("-s", str(image.vmlinux))))
    form = rng.choice(((), ("--all",), ("--format", "json")))
    return Attempt((*dump, "oops", str(work / "log"), *form), what)


DOORS: dict[str, Door] = {
    "headers and VMCOREINFO": _vmcore,
    "vmlinux": _vmlinux,
    "QMP servers": _qmp,
    "file names": _names,
    "limits": _limits,
    "logs": _logs,
}


def _try(door: Door, rng: random.Random, image: Image) -> tuple[str, Tried]:
    with tempfile.TemporaryDirectory(prefix="zonedev-door-", dir=_SCRATCH) as work:
        attempt = door(rng, image, Path(work))
        return attempt.what, try_command(attempt.argv, _SECONDS, before=attempt.before)


def fuzz_doors(seed: int, count: int, images: list[Image]) -> int:
    """Try each door so many times, and return how many of the tries fail."""
    failed = 0
    for name, door in DOORS.items():
        statuses, slowest, largest, bad = Counter[int](), 0.0, 0, 0
        for nr in range(count):
            # Each is a seed of its own, which says what to draw again.
            rng = random.Random(f"{seed} {name} {nr}")
            image = rng.choice(images)
            what, tried = _try(door, rng, image)
            statuses[tried.status] += 1
            slowest, largest = max(slowest, tried.seconds), max(largest, tried.memory)
            if tried.failures:
                bad += 1
                why = "; ".join(tried.failures)
                print(f"FAILED {name} {nr} of seed {seed}: {image.name}: {what}: {why}", flush=True)
        print(
            f"{count} {name}: "
            + ", ".join(f"{n} with status {s}" for s, n in sorted(statuses.items()))
            + f"; slowest {slowest:.2f} s, largest {largest >> 20} MiB, {bad} failures"
        )
        failed += bad
    return failed
