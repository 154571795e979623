# SPDX-License-Identifier: LGPL-2.1-or-later

"""Writes the tables of kallsyms, as ``scripts/kallsyms.c`` lays them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ("TEXT", "Image", "kallsyms_image")

TEXT = 0xFFFFFFFF81000000

_TABLES = TEXT + 0x10000


@dataclass(frozen=True)
class Image:
    """Bytes of a kernel from ``_stext`` on, and where the tables in it are."""

    data: bytes
    tables: dict[str, int]

    def read(self, address: int, size: int) -> bytes:
        at = address - TEXT
        if at < 0 or at + size > len(self.data):
            raise LookupError(f"{address:#x} is not in the image")
        return self.data[at : at + size]


def _tokens(pairs: tuple[bytes, ...]) -> list[bytes]:
    # A token for each character, and one for each pair where no character is.
    texts = [bytes([code]) if 0x21 <= code < 0x7F else b"" for code in range(256)]
    for code, pair in enumerate(pairs, 0x80):
        texts[code] = pair
    return texts


def _pack(name: bytes, pairs: tuple[bytes, ...]) -> bytes:
    packed, at = b"", 0
    while at < len(name):
        pair = name[at : at + 2]
        packed += bytes([0x80 + pairs.index(pair)]) if pair in pairs else name[at : at + 1]
        at += 2 if pair in pairs else 1
    length = len(packed)
    head = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    return head + packed


def _numbers(rule: str, place: int, base: int, addresses: list[int]) -> bytes:
    if rule == "addresses":
        return struct.pack(f"<{len(addresses)}Q", *addresses)
    if rule == "place":
        values = [a - place - 4 * i for i, a in enumerate(addresses)]
    elif rule == "per_cpu":
        values = [a if a < 1 << 31 else base - 1 - a for a in addresses]
    else:
        values = [a - base for a in addresses]
    return struct.pack(f"<{len(values)}I", *[value & 0xFFFFFFFF for value in values])


def kallsyms_image(
    symbols: list[tuple[str, int]],
    rule: str = "per_cpu",
    offsets_first: bool = False,
    pairs: tuple[bytes, ...] = (b"Tm", b"em", b"_s"),
) -> Image:
    """
    Lay the tables out.

    :param symbols: Letter and name, and address; in the order of the table.
    :param rule: What an offset is: ``base`` and ``per_cpu`` as before Linux 7.0,
        ``place`` since then; ``addresses`` has no offsets.
    :param offsets_first: As before Linux 6.4.
    """
    packed = [_pack(name.encode(), pairs) for name, _ in symbols]
    names = b"".join(packed)
    markers = [sum(map(len, packed[:row])) for row in range(0, len(packed), 256)]
    texts = _tokens(pairs)
    index = [sum(len(text) + 1 for text in texts[:i]) for i in range(256)]
    parts = {
        "num_syms": struct.pack("<I", len(symbols)),
        "names": names,
        "markers": struct.pack(f"<{len(markers)}I", *markers),
        "token_table": b"".join(text + b"\0" for text in texts),
        "token_index": struct.pack("<256H", *index),
    }
    numbers = ["addresses"] if rule == "addresses" else ["offsets"]
    numbers += ["relative_base"] if rule in ("base", "per_cpu") else []
    order = [*numbers, *parts] if offsets_first else [*parts, *numbers]
    base = min((a for _, a in symbols if a >= 1 << 31), default=TEXT)
    data, tables = bytearray(_TABLES - TEXT), {}
    for name in order:
        data += bytes(-len(data) % 8)
        tables[f"kallsyms_{name}"] = TEXT + len(data)
        if name == "relative_base":
            data += struct.pack("<Q", base)
        elif name in numbers:
            data += _numbers(rule, TEXT + len(data), base, [a for _, a in symbols])
        else:
            data += parts[name]
    return Image(bytes(data) + bytes(0x4000), tables)
