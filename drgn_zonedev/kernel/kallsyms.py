# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Symbol Names
------------

The ``drgn_zonedev.kernel.kallsyms`` module names addresses the way the kernel's
``%pS`` does, also inside modules that have no debugging information.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, IntegerLike, Program, Symbol
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.kallsyms import module_kallsyms
from drgn.helpers.linux.module import address_to_module

__all__ = ("symbol_name",)


@takes_program_or_default
def symbol_name(prog: Program, address: IntegerLike) -> str | None:
    """
    Get the name of the symbol at an address.

    >>> symbol_name(pgmap.ops)
    'fsdax_pagemap_ops [nd_pmem]'

    :param address: ``void *``
    :return: The name, with an offset unless it is 0 and with the module unless
        it is vmlinux, or ``None`` if no symbol contains the address.
    """
    address = int(address)
    try:
        symbol = prog.symbol(address)
    except LookupError:
        pass
    else:
        return _format(symbol, address)
    try:
        module = address_to_module(prog, address)
        if not module:
            return None
        name = module.name.string_().decode(errors="backslashreplace")
        return _format(_find(iter(module_kallsyms(module)), address), address, name)
    except (AttributeError, FaultError, LookupError):
        return None


def _find(symbols: Iterator[Symbol], address: int) -> Symbol | None:
    return next((s for s in symbols if s.address <= address < s.address + max(s.size, 1)), None)


def _format(symbol: Symbol | None, address: int, module: str | None = None) -> str | None:
    if symbol is None:
        return f"{address:#x} [{module}]"
    offset = f"+{address - symbol.address:#x}" if address != symbol.address else ""
    return f"{symbol.name}{offset}" + (f" [{module}]" if module else "")
