# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Objects of the Kernel
---------------------

Puts types and symbols together: variables, functions and constants by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from drgn import FindObjectFlags, Object, Program, Type, TypeKind

from drgn_zonedev.debuginfo.btf import BtfKind
from drgn_zonedev.debuginfo.btf_types import BtfTypes, has_size
from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.symbol_table import KernelSymbol, KernelSymbols

__all__ = ("KernelObjects",)

_CLONES = ("part", "isra", "constprop", "cold")

# Far more than any array of the kernel that a constant tells the length of.
_MAX_LENGTH = 1 << 20

_ARRAY = re.compile(r"(?P<element>.+?) ?\[(?P<length>\w*)\]")


@dataclass(frozen=True, eq=False, repr=False)
class KernelObjects:
    """
    The objects of a program.

    :ivar variables: The C type of each variable that BTF does not know.
    """

    prog: Program
    types: BtfTypes
    symbols: KernelSymbols
    variables: Mapping[str, str]

    def find(self, name: str, flags: FindObjectFlags) -> Object | None:
        """
        Find an object by its name.

        :raises DebugInfoError: if what describes it is damaged
        """
        if flags & FindObjectFlags.CONSTANT and (found := self._constant(name)) is not None:
            return found
        if flags & FindObjectFlags.FUNCTION and (found := self._function(name)) is not None:
            return found
        return self._variable(name) if flags & FindObjectFlags.VARIABLE else None

    def _constant(self, name: str) -> Object | None:
        found = self.types.btf.enumerator(name)
        if found is None:
            return None
        return Object(self.prog, self.types.type(found.type_id), found.value)

    def _function(self, name: str) -> Object | None:
        # Clones that the compiler made of it have names of their own.
        symbols = [s for s in self.symbols.named(name) if self.is_text(s)]
        if len(symbols) != 1:
            return None
        return Object(self.prog, self._prototype(name), address=symbols[0].address)

    def _prototype(self, name: str) -> Type:
        if ids := self.types.btf.find(BtfKind.FUNC, name):
            made = self.types.type(self.types.btf.type(ids[0]).reference)
            if made.kind != TypeKind.FUNCTION:
                raise DebugInfoError(f"BTF is damaged: {name} is not a function")
            return made
        # BTF has no function whose arguments the compiler moved elsewhere, and, in Linux
        # 5.10, none of those that are freed after boot: void (...)
        return self.prog.function_type(self.prog.void_type(), (), True)

    def has_clone(self, name: str) -> bool:
        """
        Whether the compiler left a part of a function, or a variant of it, in place of
        the function: ``name.part.0``, ``name.constprop.0``.
        """
        return any(self.symbols.named(f"{name}.{clone}.0") for clone in _CLONES)

    def is_text(self, symbol: KernelSymbol) -> bool:
        """Whether a symbol is a function's; data of Linux 7.2 may have the letter T, too."""
        if symbol.letter not in "tTwW":
            return False
        bounds = ("_stext", "_etext"), ("_sinittext", "_einittext")
        return any(self._is_between(symbol.address, *names) for names in bounds)

    def _is_between(self, address: int, start: str, end: str) -> bool:
        starts, ends = self.symbols.named(start), self.symbols.named(end)
        return bool(starts and ends) and starts[0].address <= address < ends[0].address

    def _variable(self, name: str) -> Object | None:
        found = self.symbols.named(name)
        if len(found) != 1:
            return None
        if per_cpu := self.types.btf.find(BtfKind.VAR, name):
            made = self.types.type(self.types.btf.type(per_cpu[0]).reference)
        elif name in self.variables:
            try:
                made = self._declared(self.variables[name])
            except LookupError:
                return None
        else:
            return None
        if not has_size(made):
            raise DebugInfoError(f"BTF is damaged: {name} has no size")
        return Object(self.prog, made, address=found[0].address)

    def _declared(self, c_type: str) -> Type:
        array = _ARRAY.fullmatch(c_type)
        if array is None:
            return self.prog.type(c_type)
        element = self.types.element(self.prog.type(array["element"]))
        if not array["length"]:
            return self.prog.array_type(element)
        return self.prog.array_type(element, self._length(array["length"]))

    def _length(self, dimension: str) -> int:
        if dimension.isdecimal():
            return int(dimension)
        if dimension == "MAX_NUMNODES":
            return self._max_numnodes()
        length = int(self.prog[dimension].value_())
        if not 0 <= length <= _MAX_LENGTH:
            raise DebugInfoError(f"BTF is damaged: {dimension} is {length}")
        return length

    def _max_numnodes(self) -> int:
        # zonelist._zonerefs has MAX_NUMNODES * MAX_NR_ZONES + 1 of them.
        references = self.prog.type("struct zonelist").member("_zonerefs").type
        zones = int(self.prog.constant("__MAX_NR_ZONES").value_())
        if references.kind != TypeKind.ARRAY or not references.length or zones <= 0:
            raise DebugInfoError("BTF is damaged: struct zonelist has no zones")
        return int((references.length - 1) // zones)
