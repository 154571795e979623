# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Mutations: what is different in a damaged dump, as data.

A recipe names a stored dump and holds the bytes that change, so that it says the
same thing when the generator has moved on. Generators draw from a
:class:`random.Random`; hypothesis has its own.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .image import Image, Span
from .question import draw_command

__all__ = ("Recipe", "apply", "draw_recipe", "load_recipe", "recipe_text")

_WORD = 1 << 64
_ALL_ONES = _WORD - 1
_MAX_EDIT = 4096


@dataclass(frozen=True)
class Recipe:
    """
    ``edits`` are file offsets with what is written there; ``size`` cuts the file
    off behind them. ``command`` is what is asked besides ``check --format json``.
    """

    dump: str
    edits: tuple[tuple[int, bytes], ...]
    size: int | None
    command: tuple[str, ...]
    what: str = ""

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Everything that is asked."""
        return ("check", "--format", "json"), self.command


def apply(contents: bytes, recipe: Recipe) -> bytes:
    """Get the damaged file."""
    damaged = bytearray(contents)
    for offset, data in recipe.edits:
        data = data[: max(len(damaged) - offset, 0)]
        damaged[offset : offset + len(data)] = data
    return bytes(damaged if recipe.size is None else damaged[: recipe.size])


def recipe_text(recipe: Recipe) -> str:
    """A recipe as JSON, for keeping."""
    document = {
        "dump": recipe.dump,
        "what": recipe.what,
        "edits": [[offset, data.hex()] for offset, data in recipe.edits],
        "size": recipe.size,
        "command": list(recipe.command),
    }
    return json.dumps(document, indent=1) + "\n"


def load_recipe(path: Path) -> Recipe:
    """Read what :func:`recipe_text` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Recipe(
        dump=document["dump"],
        edits=tuple((offset, bytes.fromhex(data)) for offset, data in document["edits"]),
        size=document["size"],
        command=tuple(document["command"]),
        what=document["what"],
    )


@dataclass(frozen=True)
class _Draw:
    """What a mutation is made from."""

    rng: random.Random
    image: Image
    contents: bytes

    def word(self, offset: int) -> int:
        return int.from_bytes(self.contents[offset : offset + 8], "little")

    def place(self) -> Span:
        """Pick an aligned word, mostly one that decides something."""
        roll = self.rng.random()
        if roll < 0.6:
            spans = self.rng.choice(self.image.structures)
        elif roll < 0.75:
            spans = self.image.small_reads
        elif roll < 0.9:
            spans = self.image.large_reads
        else:
            spans = self.image.segments
        return self._word_in(self.rng.choice(spans))

    def _word_in(self, span: Span) -> Span:
        # Large spans are mostly zeros; what is not is a pointer, or a struct page.
        for _ in range(8):
            skip = self.rng.randrange(max(span.size // 8, 1)) * 8
            if self.word(span.offset + skip):
                break
        return Span(span.offset + skip, span.address + skip, min(8, span.size))

    def value(self, place: Span) -> int:
        """Pick a value that means something to somebody."""
        rng, old = self.rng, self.word(place.offset)
        other = self.place()
        page = self.rng.randrange(1 << 40) << 12
        return rng.choice(
            [
                0,
                _ALL_ONES,
                1,
                rng.choice([1 << 31, (1 << 31) - 1, 1 << 32, (1 << 32) - 1, 1 << 62, 1 << 63]),
                old + rng.choice([-4096, -64, -8, -2, -1, 1, 2, 3, 8, 64, 4096]),
                old ^ 1 << rng.randrange(64),
                old & ~0xFFF,
                old | 0xFFF,
                old << rng.randrange(1, 33),
                # This word, another one, and what lies there; as a node of an xarray, too.
                place.address,
                place.address & ~0x3F | 2,
                other.address,
                other.address | 2,
                self.word(other.offset),
                self.word(other.offset) | 2,
                # User space, no canonical address, list poison, the end of everything.
                0x00007FFC12345678 & ~7,
                0x0123456789ABCDE0,
                0xDEAD000000000100,
                rng.choice([_ALL_ONES - 7, _ALL_ONES - 4095, _ALL_ONES & ~0xFFF]),
                # An entry of a page table.
                page | rng.choice([0x67, 0xE7, 0x63, 1]),
                rng.getrandbits(64),
                rng.getrandbits(rng.randrange(1, 64)),
            ]
        )


_Edits = tuple[tuple[int, bytes], ...]


def _put(place: Span, value: int) -> tuple[int, bytes]:
    return place.offset, (value % _WORD).to_bytes(8, "little")[: place.size]


def _one_word(draw: _Draw) -> _Edits:
    place = draw.place()
    return (_put(place, draw.value(place)),)


def _half_word(draw: _Draw) -> _Edits:
    place = draw.place()
    value = draw.value(place) % (1 << 32)
    return ((place.offset + draw.rng.choice([0, 4]), value.to_bytes(4, "little")),)


def _byte(draw: _Draw) -> _Edits:
    place = draw.place()
    offset = place.offset + draw.rng.randrange(place.size)
    return ((offset, bytes([draw.rng.randrange(256)])),)


def _bit(draw: _Draw) -> _Edits:
    place = draw.place()
    return (_put(place, draw.word(place.offset) ^ 1 << draw.rng.randrange(8 * place.size)),)


def _swap(draw: _Draw) -> _Edits:
    a, b = draw.place(), draw.place()
    return _put(a, draw.word(b.offset)), _put(b, draw.word(a.offset))


def _cycle(draw: _Draw) -> _Edits:
    # Two words that lead to each other.
    a, b = draw.place(), draw.place()
    tag = draw.rng.choice([0, 0, 2])
    return _put(a, b.address | tag), _put(b, a.address | tag)


def _same_words(draw: _Draw) -> _Edits:
    # Many words of one structure become one and the same.
    place = draw.place()
    value = (draw.value(place) % _WORD).to_bytes(8, "little")
    return ((place.offset, value * draw.rng.choice([2, 3, 8, 64, 512])),)


def _block(draw: _Draw) -> _Edits:
    place, rng = draw.place(), draw.rng
    size = rng.choice([16, 64, 128, 576, 4096])
    start = draw.place().offset
    data = rng.choice(
        [
            bytes(size),
            b"\xff" * size,
            bytes([rng.randrange(256)]) * size,
            draw.contents[start : start + size],
            rng.getrandbits(8 * size).to_bytes(size, "little"),
        ]
    )
    return ((place.offset, data),)


def _anywhere(draw: _Draw) -> _Edits:
    # Blind: headers, notes and padding, too.
    offset = draw.rng.randrange(len(draw.contents))
    size = draw.rng.choice([1, 2, 4, 8, 64])
    return ((offset, draw.rng.getrandbits(8 * size).to_bytes(size, "little")),)


def _header(draw: _Draw) -> _Edits:
    # A field of a program header.
    headers = draw.image.headers
    place = Span(64 + draw.rng.randrange((headers.size - 64) // 8) * 8, 0, 8)
    return (_put(place, draw.value(place)),)


def _note(draw: _Draw) -> _Edits:
    # VMCOREINFO is lines of KEY=VALUE.
    note, rng = draw.image.note, draw.rng
    text = bytearray(draw.contents[note.offset : note.offset + note.size])
    digits = [i for i, c in enumerate(text) if chr(c) in "0123456789abcdef" and b"=" in text[:i]]
    lines = [i for i, c in enumerate(text) if c == ord("\n")]
    where = rng.choice([digits, digits, lines, list(range(len(text)))])
    at = rng.choice(where or [0])
    text[at] = rng.choice([*b"0123456789abcdef-= \n\x00\x1b", rng.randrange(256)])
    return ((note.offset + at, bytes(text[at : at + 1])),)


# What terminals, browsers, parsers, file systems and readers take for more than text.
_HOSTILE = (
    b"\x1b[2J\x1b[31m",
    b"\x1b]0;title\x07",
    b"\x9b31m\x90",
    "\x9b31m".encode(),
    b"\r\n::error::",
    b"\x01\x08\x7f",
    "\u202e\u2066".encode(),
    "\u2028\u200b\ufeff\ufffe".encode(),
    b"\xff\xfe\xed\xa0\x80",
    "\U000e0041\u0300\u0301".encode(),
    b"<script>alert(1)</script>",
    b"]]><!--&amp;&#0;",
    b"'\"/onload=x>",
    b"../../../x",
    b"%s%n{0}{self}",
    b"`$(x);|&\\",
)


def _name(draw: _Draw) -> _Edits:
    # A string that is not what anybody would call something.
    name, rng = draw.rng.choice(draw.image.names), draw.rng
    text = rng.choice(_HOSTILE)
    if rng.random() < 0.1:
        # Without an end.
        text *= 1024 // len(text)
    elif rng.random() < 0.5:
        text = text[: name.size]
    return ((name.offset + rng.choice([0, 0, 1, name.size // 2]), text),)


_MAKERS: tuple[tuple[int, Callable[[_Draw], _Edits]], ...] = (
    (40, _one_word),
    (8, _half_word),
    (6, _byte),
    (10, _bit),
    (6, _swap),
    (6, _cycle),
    (6, _same_words),
    (8, _block),
    (4, _anywhere),
    (2, _header),
    (4, _note),
    (6, _name),
)


def draw_recipe(rng: random.Random, image: Image, contents: bytes) -> Recipe:
    """
    Draw one: mostly a single mutation, sometimes a handful.

    :param contents: Those of the image.
    """
    draw = _Draw(rng, image, contents)
    weights, makers = zip(*_MAKERS)
    count = rng.choice([1, 1, 1, 1, 2, 3, 8])
    names, edits = [], []
    for _ in range(count):
        maker = rng.choices(makers, weights)[0]
        names.append(maker.__name__.strip("_"))
        edits += [(offset, data[:_MAX_EDIT]) for offset, data in maker(draw)]
    size = None
    if rng.random() < 0.04:
        size = rng.randrange(image.headers.size, image.size)
        names.append("truncated")
    recipe = Recipe(image.name, tuple(edits), size, draw_command(rng, image), ", ".join(names))
    if size is not None and rng.random() < 0.5:
        recipe = replace(recipe, edits=(), what="truncated")
    return recipe


def describe(recipe: Recipe, image: Image) -> str:
    """Say where in memory the edits are."""
    segments = sorted(image.segments, key=lambda s: s.offset)
    starts = [s.offset for s in segments]
    parts = []
    for offset, data in recipe.edits:
        i = bisect_right(starts, offset) - 1
        if i >= 0 and offset < segments[i].offset + segments[i].size:
            where = f"{segments[i].address + offset - segments[i].offset:#x}"
        else:
            where = f"file+{offset:#x}"
        shown = data[:8].hex() + ("..." if len(data) > 8 else "")
        parts.append(f"{where}={shown}({len(data)})")
    if recipe.size is not None:
        parts.append(f"cut at {recipe.size:#x}")
    return " ".join(parts)
