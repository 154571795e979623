# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel's structures in little: what of them a test needs, with members in the order that
it likes, and memory that holds them. Where FakeKernel has a structure, it is the better one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from drgn import (
    Architecture,
    FindObjectFlags,
    Object,
    Platform,
    Program,
    Symbol,
    SymbolBinding,
    SymbolIndex,
    SymbolKind,
    Type,
    TypeKind,
    TypeKindSet,
    TypeMember,
)

HEAP, TEXT = 0xFFFF888001000000, 0xFFFFFFFF81000000
# Non-canonical, so that it is in no memory whatever.
GARBAGE = 0x0BAD000000000100

# Members in their order: (name, C type).
Members = tuple[tuple[str, str], ...]

_SIZES = {"unsigned char": 1, "unsigned short": 2, "unsigned int": 4, "int": 4}
_ARRAY = re.compile(r"(.*) \[(\d+)\]")
# Since nothing lies there, a read beyond a structure is no read of its neighbour.
_GAP = 64


class Structures:
    """
    Memory under construction; members lie behind each other without padding.

    :param structs: By their tags.
    """

    def __init__(self, structs: Mapping[str, Members]) -> None:
        links: Members = (("next", "struct list_head *"), ("prev", "struct list_head *"))
        self.structs = {"list_head": links, **structs}
        self.variables: dict[str, tuple[str, int]] = {}
        self.symbols: dict[str, int] = {}
        self._data = bytearray()
        self._lists: dict[int, list[int]] = {}

    # Layout.

    def size(self, type_name: str) -> int:
        array = _ARRAY.fullmatch(type_name)
        if array:
            return int(array[2]) * self.size(array[1])
        if type_name.startswith("struct ") and not type_name.endswith("*"):
            return sum(self.size(of) for _, of in self.structs[type_name[7:]])
        return _SIZES.get(type_name, 8)

    def offset(self, struct: str, member: str) -> int:
        at = 0
        for name, type_name in self.structs[struct]:
            if name == member:
                return at
            at += self.size(type_name)
        raise AssertionError(f"struct {struct} has no {member}")

    # Memory.

    def new(self, struct: str, extra: int = 0, **members: int) -> int:
        """Allocate a structure, with so many bytes behind it."""
        address = self.allocate(self.size(f"struct {struct}") + extra)
        self.set(struct, address, **members)
        return address

    def allocate(self, size: int) -> int:
        address = HEAP + len(self._data)
        self._data += bytes(size + _GAP)
        return address

    def string(self, text: str) -> int:
        address = self.allocate(len(text) + 1)
        self.poke(address, text.encode())
        return address

    def set(self, struct: str, address: int, **members: int) -> None:
        """Assign to members that are integers or pointers."""
        for member, value in members.items():
            size = self.size(dict(self.structs[struct])[member])
            self.poke(address + self.offset(struct, member), value.to_bytes(size, "little"))

    def poke(self, address: int, data: bytes) -> None:
        start = address - HEAP
        assert 0 <= start <= len(self._data) - len(data)
        self._data[start : start + len(data)] = data

    def word(self, address: int) -> int:
        return int.from_bytes(self._data[address - HEAP :][:8], "little")

    def variable(self, name: str, type_name: str) -> int:
        """Define a global variable; returns its address."""
        address = self.allocate(self.size(type_name))
        self.variables[name] = type_name, address
        return address

    def empty_list(self, head: int) -> None:
        """INIT_LIST_HEAD()."""
        self._lists[head] = []
        self._write_list(head)

    def append(self, head: int, node: int) -> None:
        """list_add_tail()."""
        self._lists.setdefault(head, []).append(node)
        self._write_list(head)

    def listed(self, head: int) -> list[int]:
        """The nodes of a list, as they were appended."""
        return self._lists[head]

    def _write_list(self, head: int) -> None:
        nodes = self._lists[head]
        for a, b in zip([head, *nodes], [*nodes, head]):
            self.set("list_head", a, next=b)
            self.set("list_head", b, prev=a)

    # The result.

    def program(self) -> Program:
        """A new program, which sees later changes of what is allocated by now."""
        prog = Program(Platform(Architecture.X86_64))
        prog.add_memory_segment(HEAP, len(self._data), self._read)
        prog.register_type_finder("structures", self._find_type, enable_index=0)
        prog.register_object_finder("structures", self._find_object, enable_index=0)
        symbols = [
            Symbol(name, address, 64, SymbolBinding.GLOBAL, SymbolKind.FUNC)
            for name, address in self.symbols.items()
        ]
        prog.register_symbol_finder("structures", SymbolIndex(symbols), enable_index=0)
        return prog

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return bytes(self._data[address - HEAP :][:count])

    def _find_type(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        if TypeKind.TYPEDEF in kinds and name == "size_t":
            return prog.typedef_type(name, prog.type("unsigned long"))
        if TypeKind.STRUCT not in kinds or name not in self.structs:
            return None
        members = [
            TypeMember(lambda of=of: prog.type(of), member, 8 * self.offset(name, member))
            for member, of in self.structs[name]
        ]
        return prog.struct_type(name, self.size(f"struct {name}"), members)

    def _find_object(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if name not in self.variables:
            return None
        type_name, address = self.variables[name]
        return Object(prog, type_name, address=address)
