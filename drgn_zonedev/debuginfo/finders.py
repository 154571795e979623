# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Finders
-------

Has a program find the types, objects and symbols that its kernel carries within itself.

They are read when they are first asked for: registering costs nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, TypeVar

from drgn import (
    FaultError,
    FindObjectFlags,
    ModuleFileStatus,
    Object,
    PlatformFlags,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
    TypeKindSet,
)

from drgn_zonedev.debuginfo.btf import MAX_BTF_BYTES, parse_btf
from drgn_zonedev.debuginfo.btf_types import BtfTypes
from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.declarations import DECLARED_TYPES, LEADING_DIMENSIONS
from drgn_zonedev.debuginfo.kallsyms_tables import Memory, read_kallsyms
from drgn_zonedev.debuginfo.kernel_objects import KernelObjects
from drgn_zonedev.debuginfo.symbol_table import KernelSymbol, KernelSymbols
from drgn_zonedev.debuginfo.vmcoreinfo import vmcoreinfo_symbols

__all__ = ("FINDER", "BuiltinDebugInfo", "register_builtin_finders")

FINDER = "builtin"
"""The name of the finders."""

_LOGGER = logging.getLogger("drgn.builtin")

_T = TypeVar("_T")


@dataclass(eq=False, repr=False)
class BuiltinDebugInfo:
    """What a program's kernel says of its types and symbols, which is read when asked for."""

    prog: Program
    _read: dict[str, Any] = field(default_factory=dict)
    _found: dict[Any, Any] = field(default_factory=dict)

    def symbols(self) -> KernelSymbols:
        """
        Get the kernel's symbols.

        :raises DebugInfoError: if it has none, or they are damaged
        """
        return self._once("symbols", lambda: _read_symbols(self.prog))

    def objects(self) -> KernelObjects:
        """
        Get what finds the kernel's types and objects.

        :raises DebugInfoError: if there are none, or they are damaged
        """
        return self._once("objects", lambda: _read_objects(self.prog, self.symbols()))

    def _once(self, what: str, read: Callable[[], _T]) -> _T:
        # What fails fails the next time, too: searching takes long. Reading asks the
        # program, which asks here.
        if what not in self._read:
            self._read[what] = DebugInfoError("it is being read")
            try:
                self._read[what] = read()
            except DebugInfoError as e:
                self._read[what] = e
        if isinstance(self._read[what], DebugInfoError):
            raise self._read[what]
        result: _T = self._read[what]
        return result

    def is_used(self) -> bool:
        """Whether programs find what they ask for here: not beside a vmlinux."""
        with contextlib.suppress(LookupError):
            if self.prog.main_module().debug_file_status == ModuleFileStatus.HAVE:
                return False
        is_first = "objects" not in self._read
        try:
            self.objects()
        except DebugInfoError as e:
            if is_first:
                _LOGGER.warning("no types and symbols without vmlinux: %s", e)
            return False
        return True

    def find_type(self, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        """Find a type, as ``drgn.Program.register_type_finder()`` has it."""
        # BTF does not know files.
        if filename is not None or not self.is_used():
            return None
        key = frozenset(kinds), name
        if key not in self._found:
            self._found[key] = self.objects().types.find(kinds, name)
        found: Type | None = self._found[key]
        return found

    def find_object(self, name: str, flags: FindObjectFlags, filename: str | None) -> Object | None:
        """Find an object, as ``drgn.Program.register_object_finder()`` has it."""
        if filename is not None or not self.is_used():
            return None
        key = flags, name
        if key not in self._found:
            self._found[key] = self.objects().find(name, flags)
        found: Object | None = self._found[key]
        return found

    def find_symbols(self, name: str | None, address: int | None, one: bool) -> Sequence[Symbol]:
        """Find symbols, as ``drgn.Program.register_symbol_finder()`` has it."""
        if not self.is_used():
            return ()
        symbols = self.symbols()
        found: Iterable[KernelSymbol]
        if address is not None:
            found = (s for s in symbols.at(address) if name in (None, s.name))
        else:
            found = symbols if name is None else symbols.named(name)
        if one:
            found = sorted(found, key=_rank)[:1]
        return [_symbol(s) for s in found]


def register_builtin_finders(prog: Program) -> BuiltinDebugInfo:
    """
    Have a program find the types, objects and symbols that its kernel carries within
    itself, as long as its vmlinux is not loaded.
    """
    info = BuiltinDebugInfo(prog)
    prog.register_type_finder(FINDER, lambda _, *asked: info.find_type(*asked), enable_index=-1)
    prog.register_object_finder(FINDER, lambda _, *asked: info.find_object(*asked), enable_index=-1)
    prog.register_symbol_finder(
        FINDER, lambda _, *asked: info.find_symbols(*asked), enable_index=-1
    )
    return info


def _memory(prog: Program) -> Memory:
    assert prog.platform is not None
    flags = prog.platform.flags
    if not flags & PlatformFlags.IS_64_BIT:
        raise DebugInfoError("without vmlinux, only kernels of 64 bits can be debugged")

    def read(address: int, size: int) -> bytes:
        try:
            return prog.read(address, size)
        except (FaultError, OverflowError, MemoryError, ValueError) as e:
            raise DebugInfoError(f"{address:#x} of the kernel's image cannot be read: {e}") from e

    return Memory(read, "little" if flags & PlatformFlags.IS_LITTLE_ENDIAN else "big")


def _read_symbols(prog: Program) -> KernelSymbols:
    try:
        vmcoreinfo = prog["VMCOREINFO"].string_()
    except LookupError:
        raise DebugInfoError("there is no VMCOREINFO, which says where kallsyms is") from None
    return read_kallsyms(_memory(prog), vmcoreinfo_symbols(vmcoreinfo))


def _read_objects(prog: Program, symbols: KernelSymbols) -> KernelObjects:
    start, stop = symbols.named("__start_BTF"), symbols.named("__stop_BTF")
    if not start or not stop:
        raise DebugInfoError("the kernel has no BTF: CONFIG_DEBUG_INFO_BTF=n")
    size = stop[0].address - start[0].address
    if not 0 < size <= MAX_BTF_BYTES:
        raise DebugInfoError(f"BTF is damaged: it has {size} bytes")
    memory = _memory(prog)
    btf = parse_btf(memory.read(start[0].address, size), memory.byteorder)
    return KernelObjects(prog, BtfTypes(prog, btf, LEADING_DIMENSIONS), symbols, DECLARED_TYPES)


def _rank(symbol: KernelSymbol) -> int:
    # As drgn prefers symbols of a symbol table.
    return ("global", "weak", "local").index(_binding(symbol.letter).name.lower())


def _binding(letter: str) -> SymbolBinding:
    if letter in "vVwW":
        return SymbolBinding.WEAK
    return SymbolBinding.GLOBAL if letter.isupper() else SymbolBinding.LOCAL


def _symbol(symbol: KernelSymbol) -> Symbol:
    kind = SymbolKind.FUNC if symbol.letter in "tTwW" else SymbolKind.OBJECT
    return Symbol(symbol.name, symbol.address, symbol.size, _binding(symbol.letter), kind)
