# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Symbol Names
------------

The ``drgn_zonedev.kernel.kallsyms`` module names addresses the way the kernel's
``%pS`` does, also inside modules that have no debugging information.
"""

from __future__ import annotations

import numpy as np
from drgn import FaultError, IntegerLike, Object, Program, container_of, sizeof
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.module import module_address_regions

from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.util.strings import c_string, printable, string_at
from drgn_zonedev.vmcore.reads import read_memory

__all__ = ("symbol_name",)

# A red-black tree of n nodes is no higher than 2 * log2(n + 1).
_MAX_HEIGHT = 64

# The largest modules have some 100000 symbols.
_MAX_SYMBOLS = 1 << 18


@takes_program_or_default
def symbol_name(prog: Program, address: IntegerLike) -> str | None:
    """
    Get the name of the symbol at an address.

    >>> symbol_name(pgmap.ops)
    'fsdax_pagemap_ops [nd_pmem]'

    :param address: ``void *``
    :return: The name, followed by the offset if it is not 0, and by the name of the module
        if the symbol is in one. In a module without a matching symbol, the address takes the
        place of the name: ``0xffffffffc0001000 [nd_pmem]``. ``None`` if the address is
        neither in a symbol of vmlinux nor in a module. Names of modules are untrusted text
        from the kernel, escaped.
    """
    address = int(address)
    try:
        symbol = prog.symbol(address)
    except LookupError:
        pass
    else:
        return _format(printable(symbol.name), symbol.address, address)
    try:
        module = _module_at(prog, address)
        if not module:
            return None
        name, found = c_string(module.name), _symbol_in(module, address)
    except (AttributeError, FaultError, LookupError):
        return None
    if found is None:
        return f"{address:#x} [{name}]"
    return f"{_format(*found, address)} [{name}]"


def _format(name: str, start: int, address: int) -> str:
    return name if address == start else f"{name}+{address - start:#x}"


def _module_at(prog: Program, address: int) -> Object | None:
    # drgn's address_to_module() never ends on a tree that has a cycle.
    try:
        tree = prog["mod_tree"].root
    except LookupError:
        return _listed_module_at(prog, address)
    # There are two trees; the count decides which one is in use.
    try:
        # Since Linux kernel commit 24bf401cebfd ("rbtree_latch: Use
        # seqcount_latch_t") (in v5.10).
        sequence = tree.seq.seqcount.sequence
    except AttributeError:
        sequence = tree.seq.sequence
    which = sequence.value_() & 1
    try:
        kind = prog.type("struct module_memory")
    except LookupError:
        # Before Linux kernel commit ac3b43283923 ("module: replace module_layout
        # with module_memory") (in v6.4).
        kind = prog.type("struct module_layout")
    node = tree.tree[which].rb_node.read_()
    for _ in range(_MAX_HEIGHT):
        if not node:
            break
        memory = container_of(node, kind, f"mtn.node.node[{which}]")
        start = memory.base.value_()
        if address < start:
            node = node.rb_left.read_()
        elif address >= start + memory.size.value_():
            node = node.rb_right.read_()
        else:
            return memory.mtn.mod.read_()
    return None


def _listed_module_at(prog: Program, address: int) -> Object | None:
    # CONFIG_MODULES_TREE_LOOKUP=n
    for module in list_entries(prog, "struct module", prog["modules"].address_of_(), "list"):
        if any(start <= address < start + size for start, size in module_address_regions(module)):
            return module
    return None


def _symbol_in(module: Object, address: int) -> tuple[str, int] | None:
    # The name and address of the symbol at an address. The table is one read.
    prog, table = module.prog_, module.kallsyms.read_()
    count, symbol_type = table.num_symtab.value_(), table.symtab.type_.type
    size = sizeof(symbol_type)
    if not 0 < count <= _MAX_SYMBOLS:
        return None
    raw = np.frombuffer(read_memory(prog, table.symtab.value_(), count * size), np.uint8)
    rows = raw.reshape(count, size)

    def column(member: str) -> np.ndarray:
        # Only for unsigned integers.
        info = symbol_type.member(member)
        length = sizeof(info.type)
        part = rows[:, info.offset : info.offset + length]
        return np.ascontiguousarray(part).view(f"<u{length}")[:, 0].astype(np.uint64)

    start, length = column("st_value"), np.maximum(column("st_size"), np.uint64(1))
    wanted = np.uint64(address)
    found = np.flatnonzero((start <= wanted) & (wanted - start < length))
    if not len(found):
        return None
    name = int(column("st_name")[found[0]])
    return string_at(prog, table.strtab.value_() + name), int(start[found[0]])
