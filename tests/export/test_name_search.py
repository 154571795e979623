# SPDX-License-Identifier: LGPL-2.1-or-later

"""Whole strings are found in a vmcore, wherever its segments and our chunks begin and end."""

from __future__ import annotations

from pathlib import Path

import pytest
from drgn import Architecture, Platform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drgn_zonedev.export import name_search
from drgn_zonedev.export.core_writer import write_core
from drgn_zonedev.export.elf_writer import Encoding
from drgn_zonedev.export.name_search import occurrences, pointed_to
from drgn_zonedev.export.trace import MemoryRun

BASE = 0xFFFF888000000000
ENCODINGS = [Encoding(Platform(arch)) for arch in (Architecture.X86_64, Architecture.S390X)]
TEXTS = (b"a", b"nd0", b"sda1", b"pmem0", b"pmem00", b"namespace0.0", b"0000:00:1f.2")

Parts = list[tuple[int, bytes]]

few = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, encoding: Encoding, parts: Parts) -> Path:
    memory = {BASE + offset: data for offset, data in parts}
    runs = [MemoryRun(address, None, len(data)) for address, data in memory.items()]
    with path.open("wb") as f:
        write_core(f, encoding, b"pmem0\n", [(r, lambda run: memory[run.vaddr]) for r in runs])
    return path


def expected(parts: Parts) -> set[tuple[int, bytes]]:
    """Where strings are, by looking at every byte; what is between the parts is NUL."""
    size = max(offset + len(data) for offset, data in parts)
    memory = bytearray(size + 1)
    for offset, data in parts:
        memory[offset : offset + len(data)] = data
    found = set()
    for at in range(size):
        if memory[at] and (at == 0 or not memory[at - 1]):
            text = bytes(memory[at:]).split(b"\0")[0]
            if text in TEXTS:
                found.add((BASE + at, text))
    return found


pieces = st.lists(
    st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(TEXTS).map(lambda text: b"\0" + text + b"\0"),
        st.sampled_from((b"\0", b"\0\0\0", b"x", b"\xff\xea", b"pme", b"m0")),
    ),
    min_size=1,
    max_size=8,
).map(b"".join)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.order)
@few
@given(data=st.lists(pieces, min_size=1, max_size=6), gaps=st.lists(st.integers(0, 3), min_size=6))
def test_whole_strings_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: Encoding,
    data: list[bytes],
    gaps: list[int],
) -> None:
    parts, at = [], 0
    for piece, gap in zip(data, gaps):
        at += gap
        parts.append((at, piece))
        at += len(piece)
    # As a chunk may end anywhere.
    monkeypatch.setattr(name_search, "_CHUNK", 7)
    vmcore = write(tmp_path / "vmcore", encoding, parts)
    found = list(occurrences(vmcore, encoding, TEXTS))
    assert {(o.address, o.text) for o in found} == expected(parts)
    assert len(found) == len({o.address for o in found})


def test_nothing_is_found_without_names(tmp_path: Path) -> None:
    vmcore = write(tmp_path / "vmcore", ENCODINGS[0], [(0, b"pmem0\0")])
    assert list(occurrences(vmcore, ENCODINGS[0], ())) == []


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.order)
@pytest.mark.parametrize("offset", range(9))
def test_pointers_are_whole_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Encoding, offset: int
) -> None:
    monkeypatch.setattr(name_search, "_CHUNK", 20)
    pointer = encoding.pack("Q", BASE + 0x1234)
    vmcore = write(tmp_path / "vmcore", encoding, [(3, bytes(29 + offset) + pointer + b"\0")])
    led_to = pointed_to(vmcore, encoding, {BASE + 0x1234, BASE + 0x5678})
    assert led_to == ({BASE + 0x1234} if offset % 8 == 0 else set())
