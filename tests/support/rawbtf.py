# SPDX-License-Identifier: LGPL-2.1-or-later

"""Writes BTF, a type at a time, as ``Documentation/bpf/btf.rst`` has it."""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = ("BtfWriter",)


class BtfWriter:
    """Types of a kernel; each method returns the ID of what it added."""

    def __init__(self, order: str = "<", first_id: int = 1, first_string: int = 0) -> None:
        self.order = order
        self.first_string = first_string
        self.types: list[bytes] = []
        self.strings = b"" if first_string else b"\0"
        self.next_id = first_id

    def string(self, text: str) -> int:
        raw = text.encode() + b"\0"
        found = (b"\0" + self.strings).find(b"\0" + raw)
        if found < 0:
            found = len(self.strings)
            self.strings += raw
        return self.first_string + found if text else 0

    def raw(self, name: str, info: int, reference: int, *words: int) -> int:
        values = [self.string(name), info, reference, *words]
        packed = [value & 0xFFFFFFFF for value in values]
        self.types.append(struct.pack(f"{self.order}{len(packed)}I", *packed))
        self.next_id += 1
        return self.next_id - 1

    def add(self, kind: int, name: str, reference: int, *words: int, vlen: int = 0) -> int:
        return self.raw(name, kind << 24 | vlen, reference, *words)

    def integer(self, name: str, size: int, encoding: int = 0, bits: int = 0) -> int:
        return self.add(1, name, size, encoding << 24 | (bits or 8 * size))

    def pointer(self, to: int) -> int:
        return self.add(2, "", to)

    def array(self, element: int, length: int) -> int:
        return self.add(3, "", 0, element, element, length)

    def compound(
        self, kind: int, name: str, size: int, members: Iterable[tuple[str, int, int, int]]
    ) -> int:
        """Add a struct or union, of names, types, bit offsets and the sizes of bit fields."""
        listed = list(members)
        words = [
            word
            for member, type_id, offset, bits in listed
            for word in (self.string(member), type_id, bits << 24 | offset)
        ]
        flag = 1 << 31 if any(bits for *_, bits in listed) else 0
        return self.raw(name, flag | kind << 24 | len(listed), size, *words)

    def struct(self, name: str, size: int, *members: tuple[str, int, int]) -> int:
        return self.compound(4, name, size, [(*member, 0) for member in members])

    def enum(self, name: str, size: int, signed: bool = False, **values: int) -> int:
        words = [word for key, value in values.items() for word in (self.string(key), value)]
        return self.raw(name, signed << 31 | 6 << 24 | len(values), size, *words)

    def enum64(self, name: str, signed: bool = False, **values: int) -> int:
        words = [
            word
            for key, value in values.items()
            for word in (self.string(key), value & 0xFFFFFFFF, value >> 32)
        ]
        return self.raw(name, signed << 31 | 19 << 24 | len(values), 8, *words)

    def function(self, name: str, returned: int, *parameters: tuple[str, int]) -> int:
        words = [word for key, of in parameters for word in (self.string(key), of)]
        prototype = self.add(13, "", returned, *words, vlen=len(parameters))
        return self.add(12, name, prototype)

    def variable(self, name: str, of: int) -> int:
        return self.add(14, name, of, 1)

    def bytes(self) -> bytes:
        types = b"".join(self.types)
        header = struct.pack(
            f"{self.order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings)
        )
        return header + types + self.strings
