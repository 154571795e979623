# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Finders
-------

Has a program find the types, objects and symbols that its kernel carries within itself.

They are read, and what reads them is imported, when they are first asked for: registering
costs nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from drgn import (
    FindObjectFlags,
    MainModule,
    Module,
    ModuleFileStatus,
    Object,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
    TypeKindSet,
)

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.randomized_layout import UNKNOWN_LAYOUT, has_unknown_layout

if TYPE_CHECKING:
    from drgn_zonedev.debuginfo.kernel_objects import KernelObjects
    from drgn_zonedev.debuginfo.symbol_table import KernelSymbol, KernelSymbols

__all__ = (
    "FINDER",
    "BuiltinDebugInfo",
    "builtin_debug_info",
    "offer_builtin_finders",
    "register_builtin_finders",
    "types_are_builtin",
)

FINDER = "builtin"
"""The name of the finders."""

_KEY = "builtin_debug_info"

_LOGGER = logging.getLogger("drgn.builtin")

_T = TypeVar("_T")


@dataclass(eq=False, repr=False)
class BuiltinDebugInfo:
    """
    What a program's kernel says of its types and symbols, which is read when asked for.

    :ivar ignored_once: A type that is not found if it is the first one to be asked for:
        drgn asks for ``struct module`` as soon as it has looked for vmlinux, to warn of each
        module that has no debugging symbols either.
    """

    prog: Program
    ignored_once: str | None = None
    _read: dict[str, Any] = field(default_factory=dict)
    _being_read: set[str] = field(default_factory=set)
    _found: dict[Any, Any] = field(default_factory=dict)

    def symbols(self) -> KernelSymbols:
        """
        Get the kernel's symbols.

        :raises DebugInfoError: if it has none, or they are damaged
        """
        from drgn_zonedev.debuginfo.kernel_image import image_symbols

        return self._once("symbols", lambda: image_symbols(self.prog))

    def objects(self) -> KernelObjects:
        """
        Get what finds the kernel's types and objects.

        :raises DebugInfoError: if there are none, or they are damaged
        """
        from drgn_zonedev.debuginfo.kernel_image import image_objects

        return self._once("objects", lambda: image_objects(self.prog, self.symbols()))

    def _once(self, what: str, read: Callable[[], _T]) -> _T:
        # What fails fails the next time, too: searching takes long.
        if what not in self._read:
            self._being_read.add(what)
            try:
                self._read[what] = read()
            except DebugInfoError as e:
                self._read[what] = e
            finally:
                self._being_read.remove(what)
        if isinstance(self._read[what], DebugInfoError):
            raise self._read[what]
        result: _T = self._read[what]
        return result

    def is_used(self) -> bool:
        """Whether programs find what they ask for here: not beside a vmlinux."""
        if self._being_read:
            # Reading asks the program, which asks here.
            return False
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
        if is_first and has_unknown_layout(self.prog):
            _LOGGER.warning("%s", UNKNOWN_LAYOUT)
        return True

    def find_type(self, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        """Find a type, as ``drgn.Program.register_type_finder()`` has it."""
        ignored, self.ignored_once = self.ignored_once, None
        # BTF does not know files.
        if filename is not None or name == ignored or not self.is_used():
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
    itself, as long as its vmlinux is not loaded. Once is enough.
    """
    info = builtin_debug_info(prog)
    if info is None:
        info = prog.cache[_KEY] = BuiltinDebugInfo(prog)
        at_the_end = -1
        prog.register_type_finder(
            FINDER, lambda _, *asked: info.find_type(*asked), enable_index=at_the_end
        )
        prog.register_object_finder(
            FINDER, lambda _, *asked: info.find_object(*asked), enable_index=at_the_end
        )
        prog.register_symbol_finder(
            FINDER, lambda _, *asked: info.find_symbols(*asked), enable_index=at_the_end
        )
    info.ignored_once = None
    return info


def offer_builtin_finders(prog: Program) -> None:
    """
    Like :func:`register_builtin_finders()`, once drgn has looked for the kernel's vmlinux and
    has not found it. Nothing is read before a type, an object or a symbol is asked for.
    """
    if FINDER not in prog.registered_debug_info_finders():
        prog.register_debug_info_finder(FINDER, _stand_in, enable_index=-1)


def _stand_in(modules: Sequence[Module]) -> None:
    for module in modules:
        if isinstance(module, MainModule) and module.wants_debug_file():
            _LOGGER.warning("the kernel's own BTF and kallsyms stand in for its vmlinux")
            register_builtin_finders(module.prog).ignored_once = "module"


def builtin_debug_info(prog: Program) -> BuiltinDebugInfo | None:
    """Return what :func:`register_builtin_finders()` returned, or ``None`` before it was called."""
    info: BuiltinDebugInfo | None = prog.cache.get(_KEY)
    return info


def types_are_builtin(prog: Program) -> bool:
    """Whether a program's types and symbols come from what its kernel carries within itself."""
    info = builtin_debug_info(prog)
    return info is not None and info.is_used()


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
