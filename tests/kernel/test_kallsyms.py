# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Names of addresses, as the kernel's ``%pS`` prints them, in modules that the test laid out:
in the trees of v5.10 and since, in a list, and with a pointer or a count damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from drgn import Program
from support.structures import GARBAGE, TEXT, Members, Structures

from drgn_zonedev.kernel.kallsyms import symbol_name

_COMMON: dict[str, Members] = {
    "rb_node": (
        ("__rb_parent_color", "unsigned long"),
        ("rb_right", "struct rb_node *"),
        ("rb_left", "struct rb_node *"),
    ),
    "rb_root": (("rb_node", "struct rb_node *"),),
    "latch_tree_node": (("node", "struct rb_node [2]"),),
    "latch_tree_root": (("seq", "struct seqcount_latch_t"), ("tree", "struct rb_root [2]")),
    "mod_tree_root": (("root", "struct latch_tree_root"),),
    "mod_tree_node": (("mod", "struct module *"), ("node", "struct latch_tree_node")),
    "elf64_sym": (
        ("st_name", "unsigned int"),
        ("st_info", "unsigned char"),
        ("st_other", "unsigned char"),
        ("st_shndx", "unsigned short"),
        ("st_value", "unsigned long"),
        ("st_size", "unsigned long"),
    ),
    "mod_kallsyms": (
        ("symtab", "struct elf64_sym *"),
        ("num_symtab", "unsigned int"),
        ("strtab", "char *"),
    ),
    "module": (
        ("list", "struct list_head"),
        ("name", "char [56]"),
        ("kallsyms", "struct mod_kallsyms *"),
    ),
}
_BLOCK: Members = (
    ("base", "void *"),
    ("size", "unsigned int"),
    ("mtn", "struct mod_tree_node"),
)
VARIANTS: dict[str, dict[str, Members]] = {
    "5.9": {
        "module_layout": _BLOCK,
        # A seqcount_t, before it became a type of its own.
        "seqcount_latch_t": (("sequence", "unsigned int"),),
    },
    "5.10": {
        "module_layout": _BLOCK,
        "seqcount": (("sequence", "unsigned int"),),
        "seqcount_latch_t": (("seqcount", "struct seqcount"),),
    },
    "6.4": {
        "module_memory": _BLOCK,
        "seqcount": (("sequence", "unsigned int"),),
        "seqcount_latch_t": (("seqcount", "struct seqcount"),),
    },
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)

# Three modules of 64 KiB with gaps between them.
FIRST, SECOND, THIRD = 0xFFFFFFFFC0000000, 0xFFFFFFFFC0100000, 0xFFFFFFFFC0200000
SIZE = 0x10000
# (name, offset in the module, size)
SYMBOLS = (("", 0, 0), ("init", 0x100, 0x80), ("mark", 0x180, 0), ("fsdax_pagemap_ops", 0x2000, 40))
_SYM = struct.Struct("<IBBHQQ")

Symbols = Sequence[tuple[str, int, int]]


class Modules(Structures):
    """Modules in a tree, each with a table of symbols."""

    def __init__(self, variant: str = "6.4", latch: int = 0) -> None:
        super().__init__({**_COMMON, **VARIANTS[variant]})
        self.kind = "module_memory" if "module_memory" in self.structs else "module_layout"
        self.latch = latch
        self.symbols["vmemmap_populate"] = TEXT
        self.tree = self.variable("mod_tree", "struct mod_tree_root")
        # An odd count is followed by the second tree; writers leave the first one torn.
        count = 8 + latch
        self.poke(self.tree, count.to_bytes(4, "little"))
        self.nodes: dict[int, int] = {}

    def module(self, name: str, base: int, symbols: Symbols = SYMBOLS) -> int:
        """A module of SIZE at an address; returns its struct mod_kallsyms."""
        strings = b"\0".join(name.encode() for name, _, _ in symbols) + b"\0"
        table = b""
        for symbol, offset, size in symbols:
            at = strings.index(symbol.encode() + b"\0") if symbol else 0
            table += _SYM.pack(at, 0, 0, 1, base + offset if symbol else 0, size)
        kallsyms = self.new("mod_kallsyms", symtab=self._keep(table), strtab=self._keep(strings))
        self.set("mod_kallsyms", kallsyms, num_symtab=len(symbols))
        module = self.new("module", kallsyms=kallsyms)
        self.poke(module + self.offset("module", "name"), name.encode())
        memory = self.new(self.kind, base=base, size=SIZE)
        links = memory + self.offset(self.kind, "mtn")
        self.set("mod_tree_node", links, mod=module)
        node = (
            links + self.offset("mod_tree_node", "node") + self.latch * self.size("struct rb_node")
        )
        self.nodes[base] = node
        return kallsyms

    def plant(self, root: int, left: int = 0, right: int = 0) -> None:
        """Put three modules into the tree."""
        top = self.tree + self.offset("latch_tree_root", "tree") + 8 * self.latch
        self.poke(top, self.nodes[root].to_bytes(8, "little"))
        self.set(
            "rb_node",
            self.nodes[root],
            rb_left=self.nodes.get(left, 0),
            rb_right=self.nodes.get(right, 0),
        )

    def _keep(self, data: bytes) -> int:
        address = self.allocate(len(data))
        self.poke(address, data)
        return address


def three(variant: str = "6.4", latch: int = 0) -> Modules:
    modules = Modules(variant, latch)
    for name, base in (("dax", FIRST), ("nd_pmem", SECOND), ("device_dax", THIRD)):
        modules.module(name, base)
    modules.plant(SECOND, FIRST, THIRD)
    return modules


def names(prog: Program, *addresses: int) -> list[str | None]:
    return [symbol_name(prog, address) for address in addresses]


@each_variant
@pytest.mark.parametrize("latch", [0, 1])
def test_symbol_of_a_module_has_its_name_behind_it(variant: str, latch: int) -> None:
    prog = three(variant, latch).program()
    ops = [base + 0x2000 for base in (FIRST, SECOND, THIRD)]
    assert names(prog, *ops) == [
        "fsdax_pagemap_ops [dax]",
        "fsdax_pagemap_ops [nd_pmem]",
        "fsdax_pagemap_ops [device_dax]",
    ]


def test_offset_is_from_the_start_to_the_last_byte() -> None:
    prog = three().program()
    found = names(
        prog, *(SECOND + offset for offset in (0xFF, 0x100, 0x101, 0x17F, 0x2027, 0x2028))
    )
    assert found == [
        f"{SECOND + 0xFF:#x} [nd_pmem]",
        "init [nd_pmem]",
        "init+0x1 [nd_pmem]",
        "init+0x7f [nd_pmem]",
        "fsdax_pagemap_ops+0x27 [nd_pmem]",
        f"{SECOND + 0x2028:#x} [nd_pmem]",
    ]


def test_symbol_without_a_size_is_its_first_byte() -> None:
    prog = three().program()
    assert names(prog, SECOND + 0x180, SECOND + 0x181) == [
        "mark [nd_pmem]",
        f"{SECOND + 0x181:#x} [nd_pmem]",
    ]


def test_module_ends_with_its_memory() -> None:
    prog = three().program()
    assert names(prog, SECOND - 1, SECOND + SIZE, FIRST - 1, THIRD + SIZE) == [None] * 4
    assert names(prog, SECOND, SECOND + SIZE - 1) == [
        f"{SECOND:#x} [nd_pmem]",
        f"{SECOND + SIZE - 1:#x} [nd_pmem]",
    ]


def test_symbol_of_the_kernel_has_no_module() -> None:
    prog = three().program()
    assert names(prog, TEXT, TEXT + 8) == ["vmemmap_populate", "vmemmap_populate+0x8"]
    assert names(prog, 0, (1 << 64) - 1, 0x1234) == [None] * 3


def test_names_are_escaped() -> None:
    modules = Modules()
    modules.module("\x1b[2J", FIRST, [("a\nb", 0, 8)])
    modules.plant(FIRST)
    assert names(modules.program(), FIRST) == ["a\\nb [\\x1b[2J]"]


def test_tree_without_modules_has_none() -> None:
    assert names(Modules().program(), FIRST) == [None]


def test_kernel_without_modules_has_none() -> None:
    modules = Modules()
    del modules.variables["mod_tree"]
    assert names(modules.program(), FIRST) == [None]


# One word damaged.


def test_tree_that_goes_round_in_circles_ends() -> None:
    modules = three()
    modules.set("rb_node", modules.nodes[SECOND], rb_left=modules.nodes[SECOND])
    prog = modules.program()
    assert names(prog, FIRST + 0x100, SECOND + 0x100) == [None, "init [nd_pmem]"]


def test_module_behind_a_damaged_link_is_not_found() -> None:
    modules = three()
    modules.set("rb_node", modules.nodes[SECOND], rb_left=GARBAGE)
    prog = modules.program()
    assert names(prog, FIRST + 0x100, THIRD + 0x100) == [None, "init [device_dax]"]


@pytest.mark.parametrize("count", [0, (1 << 18) + 1, (1 << 32) - 1])
def test_table_of_no_plausible_length_names_nothing(count: int) -> None:
    modules = Modules()
    kallsyms = modules.module("dax", FIRST)
    modules.plant(FIRST)
    modules.set("mod_kallsyms", kallsyms, num_symtab=count)
    assert names(modules.program(), FIRST + 0x100) == [f"{FIRST + 0x100:#x} [dax]"]


@pytest.mark.parametrize("member", ["symtab", "strtab"])
def test_table_that_cannot_be_read_is_no_error(member: str) -> None:
    modules = Modules()
    kallsyms = modules.module("dax", FIRST)
    modules.plant(FIRST)
    modules.set("mod_kallsyms", kallsyms, **{member: GARBAGE})
    assert names(modules.program(), FIRST + 0x100) == [None]
