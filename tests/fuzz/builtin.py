# SPDX-License-Identifier: LGPL-2.1-or-later

"""
BTF and kallsyms, damaged at random: a kernel of a few types and symbols, which is asked for
all of them in a process with limits.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import struct
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drgn import FaultError, Object, Program, TypeKind
from support.builtinkernel import BTF, DATA, SYMBOLS, builtin_program, builtin_types, carried
from support.rawkallsyms import TEXT, Image

from drgn_zonedev.debuginfo import btf, btf_types, kallsyms_tables, kernel_image, kernel_objects
from drgn_zonedev.debuginfo.btf_types import has_size
from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.finders import register_builtin_finders

__all__ = ("SHARE", "draw_builtin", "fuzz_builtin", "try_builtin")

# Every input is a process of its own, forked from one that has everything imported.
_IMPORTED = (btf, btf_types, kallsyms_tables, kernel_image, kernel_objects)

# One in so many inputs is a kernel of this kind.
SHARE = 4

_SECONDS, _MEMORY = 2, 300 << 20
_BTF_AT = BTF - TEXT
_CONST, _VOLATILE, _TYPEDEF, _FWD, _FLOAT, _DECL_TAG, _TYPE_TAG = 10, 9, 8, 7, 16, 17, 18


def _types() -> bytes:
    # Something of every kind, one within another.
    writer = builtin_types()
    character, number = writer.integer("char", 1, 1), writer.integer("int", 4, 1)
    tagged = writer.add(_TYPE_TAG, "rcu", writer.add(_CONST, "", number))
    union = writer.compound(5, "", 8, [
        ("flags", writer.integer("_Bool", 1, 4), 0, 0),
        ("raw", writer.array(character, 8), 0, 0),
        ("next", writer.pointer(writer.add(_FWD, "page", 0)), 0, 0),
    ])  # fmt: skip
    page = writer.struct("page", 24, ("", union, 0), ("of", tagged, 64), ("ratio", number, 96))
    writer.compound(4, "slab", 8, [("inuse", number, 0, 15), ("frozen", number, 31, 1)])
    value = writer.add(_FLOAT, "double", 8)
    tail = [("nr", value, 0), ("pages", writer.array(page, 3), 64)]
    flexible = writer.struct("usage", 80, *tail, ("map", writer.array(number, 0), 640))
    writer.struct("holder", 160, ("usages", writer.array(flexible, 2), 0))
    writer.add(_TYPEDEF, "counter_t", writer.add(_VOLATILE, "", number))
    writer.enum64("large", True, BELOW=-1, BEYOND=1 << 40)
    writer.function("printk", number, ("fmt", writer.pointer(character)), ("", 0))
    writer.add(_DECL_TAG, "bpf_kfunc", writer.next_id - 1, 0xFFFFFFFF)
    return writer.bytes()


_TYPES = _types()
_WHOLE = carried(_TYPES, SYMBOLS)
_READABLE = DATA
_TABLES = tuple(address - TEXT for address in _WHOLE.tables.values())
_NAMES = (
    *("struct pglist_data", "struct zonelist", "struct zoneref", "union zonelist"),
    *("enum node_states", "enum zone_type", "nodemask_t", "unsigned long", "int"),
    *("struct page", "struct slab", "struct usage", "struct holder", "enum large", "counter_t"),
)
_OBJECTS = (
    *("max_pfn", "node_states", "node_data", "runs", "memremap_pages", "N_ONLINE", "BEYOND"),
    "_stext",
)
_EXPECTED = (DebugInfoError, LookupError, FaultError)

Mutation = Callable[[random.Random, bytearray], None]


def _words(rng: random.Random, data: bytearray) -> None:
    # Small numbers are types, and make cycles and chains.
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = _BTF_AT + rng.randrange(len(_TYPES) // 4) * 4
        value = rng.choice((rng.randrange(32), rng.getrandbits(32), 0xFFFFFFFF, 1 << 31))
        struct.pack_into("<I", data, at, value)


def _bytes(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[_BTF_AT + rng.randrange(len(_TYPES))] = rng.randrange(256)


def _cut(rng: random.Random, data: bytearray) -> None:
    at = _BTF_AT + rng.randrange(len(_TYPES))
    data[at : _BTF_AT + len(_TYPES)] = bytes(_BTF_AT + len(_TYPES) - at)


def _tables(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 4, 16))):
        at = rng.choice(_TABLES) + rng.randrange(64)
        data[at] = rng.choice((0, 0xFF, 0x80, rng.randrange(256)))


def _table_words(rng: random.Random, data: bytearray) -> None:
    value = rng.choice((0, 1, 0xFFFFFFFF, 1 << 31, 1 << 22, rng.getrandbits(32)))
    struct.pack_into("<I", data, rng.choice(_TABLES) + rng.randrange(4) * 4, value)


_MUTATIONS: tuple[Mutation, ...] = (_words, _words, _bytes, _cut, _tables, _table_words)


def draw_builtin(rng: random.Random) -> tuple[str, Image]:
    """Draw the image of a damaged kernel, and what was done to it."""
    mutation, data = rng.choice(_MUTATIONS), bytearray(_WHOLE.data)
    mutation(rng, data)
    # VMCOREINFO of old kernels does not say where kallsyms is.
    is_searched = not rng.randrange(10)
    what = mutation.__name__.strip("_") + ", searched" * is_searched
    return what, Image(bytes(data), {} if is_searched else _WHOLE.tables)


@dataclass(frozen=True)
class Tried:
    """What came of a kernel: ``failures`` is empty if everything held."""

    is_read: bool
    failures: tuple[str, ...]
    seconds: float
    memory: int


def try_builtin(image: Image) -> Tried:
    """Ask a kernel for its types and symbols, with limits of processor time and memory."""
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_child(image, said.fileno()))
            finally:
                os._exit(99)
        _, status, used = os.wait4(pid, 0)
        said.seek(0)
        lines = said.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss << 10
    failures = [f"killed by {signal.Signals(-code).name}"] if code < 0 else []
    failures += [lines or f"status {code}"] * (code not in (0, 1) and code >= 0)
    failures += [f"memory: {memory >> 20} MiB"] * (memory > _MEMORY)
    return Tried(code == 0, tuple(failures), seconds, memory)


def _child(image: Image, said: int) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        return _ask(builtin_program(image))
    except BaseException:
        os.write(said, traceback.format_exc().encode())
        return 98


def _ask(prog: Program) -> int:
    info = register_builtin_finders(prog)
    try:
        info.objects()
    except DebugInfoError as e:
        _require_one_line(e)
        return 1
    for name in _NAMES:
        _answered(partial(_look_at, prog, name))
    for name in _OBJECTS:
        _answered(partial(_print, prog, name))
        _answered(partial(prog.symbol, name))
    _answered(prog.symbols)
    return 0


def _look_at(prog: Program, name: str) -> None:
    found = prog.type(name)
    str(found)
    if found.kind in (TypeKind.STRUCT, TypeKind.UNION) and found.members:
        for member in found.members:
            str(member.type)
    if has_size(found):
        # A typedef may be that of a function, or of void.
        printed = Object(prog, found, address=_READABLE)
        str(printed)
        printed.value_()


def _print(prog: Program, name: str) -> None:
    found = prog.object(name)
    str(found)
    if found.type_.kind != TypeKind.FUNCTION:
        found.value_()


def _answered(ask: Callable[[], object]) -> None:
    try:
        ask()
    except _EXPECTED as e:
        _require_one_line(e)


def _require_one_line(e: BaseException) -> None:
    assert str(e), repr(e)
    assert "\n" not in str(e), repr(e)


def fuzz_builtin(seed: int, count: int, keep: Path) -> int:
    """Draw and try damaged kernels, keep what fails, and return how many do."""
    rng, read, failed = random.Random(seed), Counter[bool](), 0
    slowest = largest = 0.0
    for _ in range(count):
        what, image = draw_builtin(rng)
        tried = try_builtin(image)
        read[tried.is_read] += 1
        slowest, largest = max(slowest, tried.seconds), max(largest, tried.memory)
        if tried.failures:
            failed += 1
            print(f"FAILED {_kept(keep, image)}: {what}: {'; '.join(tried.failures)}", flush=True)
    print(
        f"{count} kernels with BTF: {read[True]} read, {read[False]} refused; slowest "
        f"{slowest:.2f} s, largest {int(largest) >> 20} MiB, {failed} failures"
    )
    return failed


def _kept(directory: Path, image: Image) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{hashlib.sha256(image.data).hexdigest()[:12]}.image"
    path.write_bytes(image.data)
    return path
