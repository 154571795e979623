# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads a file of layouts/: structures and enumerations of a kernel, and what its macros are."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ("Layout", "Macros", "Member", "Struct", "load_layout")

SCALARS = {
    "_Bool": 1,
    "char": 1,
    "unsigned char": 1,
    "short": 2,
    "unsigned short": 2,
    "int": 4,
    "unsigned int": 4,
    "long": 8,
    "unsigned long": 8,
    "long long": 8,
    "unsigned long long": 8,
}
_TYPEDEFS = {
    "bool": "_Bool",
    "u8": "unsigned char",
    "u32": "unsigned int",
    "s64": "long",
    "u64": "unsigned long",
    "phys_addr_t": "u64",
    "resource_size_t": "phys_addr_t",
    "pgoff_t": "unsigned long",
    "gfp_t": "unsigned int",
}
# Before 6.19, memory block states are macros, so no debug info has them.
_MEMORY_BLOCK_MACROS = {
    "MEM_ONLINE": 1,
    "MEM_GOING_OFFLINE": 2,
    "MEM_OFFLINE": 4,
    "MEM_GOING_ONLINE": 8,
    "MEM_CANCEL_ONLINE": 16,
    "MEM_CANCEL_OFFLINE": 32,
}
_UNSIGNED = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long"}
_ARRAYS = re.compile(r"\s*((?:\[\d*\])+)$")
_ZONELIST = "node_zonelists"


@dataclass(frozen=True)
class Member:
    """One member of a structure; *type* is a C type name that drgn parses."""

    type: str
    offset: int


@dataclass
class Struct:
    """A structure, or with *anonymous* the target of a typedef of that name."""

    size: int
    anonymous: bool
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True)
class Macros:
    """
    What no debugging information says.

    ``taint`` is for kernels whose section flags are macros: whether they have
    ``SECTION_TAINT_ZONE_DEVICE`` (since v5.12).
    """

    architecture: str = "X86_64"
    page_shift: int = 12
    section_size_bits: int = 27
    max_physmem_bits: int = 46
    pageblock_order: int = 9
    taint: bool = False

    @property
    def pages_per_section(self) -> int:
        return 1 << self.section_size_bits - self.page_shift

    @property
    def pages_per_subsection(self) -> int:
        """SUBSECTION_SHIFT is 21."""
        return 1 << 21 - self.page_shift

    @property
    def subsections_per_section(self) -> int:
        return 1 << self.section_size_bits - 21


_ARCHITECTURES = {
    "x86-64": Macros(),
    "arm64": Macros("AARCH64", max_physmem_bits=48),
    # Pages of 64K, sections of 16 MiB; hugepages of 2 MiB with a radix MMU.
    "ppc64": Macros("PPC64", 16, 24, 51, 5),
    "s390x": Macros("S390X", pageblock_order=8),
    "loongarch64": Macros("LOONGARCH64", 14, 29, 48, 11),
}
_NAME = re.compile(r"(?P<arch>x86-64|[a-z0-9]+)(?:-(?P<major>\d+)\.(?P<minor>\d+))?")


def _macros(name: str) -> tuple[Macros, str]:
    """The macros of a kernel, by its architecture and release, and the release."""
    found = _NAME.match(name)
    assert found, f"of which architecture is {name}?"
    macros = _ARCHITECTURES[found["arch"]]
    release = (int(found["major"]), int(found["minor"])) if found["major"] else (5, 8)
    taint = release >= (5, 12)
    return dataclasses.replace(macros, taint=taint), f"{release[0]}.{release[1]}.0"


@dataclass
class Layout:
    """All types of one kernel."""

    name: str
    structs: dict[str, Struct] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    typedefs: dict[str, str] = field(default_factory=dict)
    macros: Macros = field(default_factory=Macros)
    release: str = ""
    max_numnodes: int = 1024

    def constant(self, name: str) -> int:
        """Value of an enumerator, or of a macro that debug info lacks."""
        for enumerators in self.enums.values():
            if name in enumerators:
                return enumerators[name]
        return _MEMORY_BLOCK_MACROS[name]

    def enum_of(self, name: str) -> str | None:
        """Key of the enumeration that defines an enumerator."""
        for key, names in self.enums.items():
            if name in names:
                return key
        return None

    def has_constant(self, name: str) -> bool:
        """Whether debug info has an enumerator of that name."""
        return self.enum_of(name) is not None

    def has_member(self, struct: str, member: str) -> bool:
        """Whether a structure has a member."""
        return struct in self.structs and member in self.structs[struct].members

    @property
    def has_zone_device(self) -> bool:
        """CONFIG_ZONE_DEVICE"""
        return self.has_constant("ZONE_DEVICE")

    @property
    def has_taint(self) -> bool:
        """Whether sections have SECTION_TAINT_ZONE_DEVICE."""
        if self.has_constant("SECTION_MARKED_PRESENT_BIT"):
            return self.has_constant("SECTION_TAINT_ZONE_DEVICE_BIT")
        # memory_block.nr_vmemmap_pages came in v5.13.
        late = self.macros.taint or self.has_member("memory_block", "nr_vmemmap_pages")
        return self.has_zone_device and late

    def sizeof(self, type_name: str) -> int:
        """Size of a C type."""
        bare = type_name.replace("const ", "")
        arrays = _ARRAYS.search(bare)
        if arrays:
            counts = [int(count or 0) for count in re.findall(r"\[(\d*)\]", arrays[1])]
            return math.prod(counts) * self.sizeof(bare[: arrays.start()])
        if bare.endswith("*"):
            return 8
        if bare.startswith("enum "):
            return 4
        if bare in self.typedefs:
            return self.sizeof(self.typedefs[bare])
        if bare in SCALARS:
            return SCALARS[bare]
        return self.structs[bare.replace("struct ", "")].size

    def locate(self, struct: str, path: str) -> tuple[int, int]:
        """Offset and size of a member, given like ``ref.percpu_count_ptr``."""
        offset, type_name = 0, f"struct {struct}"
        for name in path.split("."):
            tag = type_name.replace("struct ", "")
            member = self.structs[tag].members[name]
            offset, type_name = offset + member.offset, member.type
        return offset, self.sizeof(type_name)


def _of_words(size: int, *members: tuple[str, str, int], anonymous: bool = False) -> Struct:
    return Struct(size, anonymous, {name: Member(type_, at) for name, type_, at in members})


def _common() -> dict[str, Struct]:
    """Structures that are the same everywhere, and that no file has."""
    rcu = "struct callback_head"
    return {
        "atomic_t": _of_words(4, ("counter", "int", 0), anonymous=True),
        "atomic_long_t": _of_words(8, ("counter", "long", 0), anonymous=True),
        "arch_spinlock_t": _of_words(4, ("val", "atomic_t", 0), anonymous=True),
        "raw_spinlock": _of_words(4, ("raw_lock", "arch_spinlock_t", 0)),
        "spinlock_t": _of_words(4, ("rlock", "struct raw_spinlock", 0), anonymous=True),
        "static_key": _of_words(16, ("enabled", "atomic_t", 0), ("type", "unsigned long", 8)),
        "static_key_true": _of_words(16, ("key", "struct static_key", 0)),
        "list_head": _of_words(
            16, ("next", "struct list_head *", 0), ("prev", "struct list_head *", 8)
        ),
        "callback_head": _of_words(16, ("next", f"{rcu} *", 0), ("func", "void *", 8)),
        "completion": _of_words(32, ("done", "unsigned int", 0)),
        "cpumask": _of_words(1024, ("bits", "unsigned long [128]", 0)),
        "percpu_ref_data": _of_words(
            56,
            ("count", "atomic_long_t", 0),
            ("release", "void *", 8),
            ("confirm_switch", "void *", 16),
            ("rcu", rcu, 32),
            ("ref", "struct percpu_ref *", 48),
        ),
        "percpu_rw_semaphore": _of_words(96, ("block", "atomic_t", 88)),
        "kobject": _of_words(64, ("name", "const char *", 0)),
        "dev_pagemap_ops": _of_words(
            24, ("page_free", "void *", 0), ("migrate_to_ram", "void *", 8)
        ),
    }


def _enums() -> dict[str, dict[str, int]]:
    names = "N_POSSIBLE N_ONLINE N_NORMAL_MEMORY N_MEMORY N_CPU N_GENERIC_INITIATOR"
    states = {name: number for number, name in enumerate(names.split())}
    refs = ("ATOMIC", "DEAD", "ATOMIC_DEAD")
    return {
        "node_states": {**states, "NR_NODE_STATES": 6},
        "-percpu_ref": {f"__PERCPU_REF_{name}": i + 1 for i, name in enumerate(refs)}
        | {"__PERCPU_REF_FLAG_BITS": 2},
    }


def load_layout(path: Path) -> Layout:
    """Read a file."""
    text: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    macros, release = _macros(path.stem)
    layout = Layout(path.stem, _common(), _enums(), dict(_TYPEDEFS), macros, release)
    of_sections: dict[str, int] = {}
    for key, value in text.items():
        kind, _, tag = key.partition(" ")
        if kind == "enum":
            layout.enums[tag] = value
        elif key.startswith("SECTION_"):
            of_sections[key] = value
    if of_sections:
        layout.enums["-section_bits"] = _section_bits(of_sections)
    tags = [key.partition(" ")[2] for key in text if key.startswith("struct ")]
    for tag in tags:
        layout.structs[tag] = Struct(text[f"struct {tag}"]["size"], anonymous=False)
    _add_opaque(layout, text)
    for tag in tags:
        for name, (offset, size, type_) in text[f"struct {tag}"]["members"].items():
            _add_member(layout, layout.structs[tag], name, (offset, size, type_))
    layout.max_numnodes = _max_numnodes(layout, text)
    nodemask = f"unsigned long [{-(-layout.max_numnodes // 64)}]"
    layout.structs["nodemask_t"] = _of_words(
        8 * -(-layout.max_numnodes // 64), ("bits", nodemask, 0), anonymous=True
    )
    return layout


def _section_bits(given: dict[str, int]) -> dict[str, int]:
    """The whole enumeration, of which a file may have the ends and the middle only."""
    first = ("MARKED_PRESENT", "HAS_MEM_MAP", "IS_ONLINE", "IS_EARLY")
    return {f"SECTION_{name}_BIT": bit for bit, name in enumerate(first)} | given


def _add_opaque(layout: Layout, text: dict[str, Any]) -> None:
    """struct device, of which no file says more than how large it is."""
    members = text.get("struct memory_block", {"members": {}})["members"]
    if "dev" in members:
        size = members["dev"][1] // 8
        layout.structs["device"] = _of_words(size, ("kobj", "struct kobject", 0))


def _max_numnodes(layout: Layout, text: dict[str, Any]) -> int:
    """
    MAX_NUMNODES, of the length of struct zonelist: a struct zoneref of 16 bytes for each zone
    of each node, and one that ends it. Without NUMA, there is one zonelist.
    """
    _, size, type_ = text["struct pglist_data"]["members"][_ZONELIST]
    lists = int(type_.partition("[")[2].rstrip("]"))
    zonerefs = size // 8 // lists // 16 - 1
    return zonerefs // layout.constant("__MAX_NR_ZONES")


def _add_member(layout: Layout, struct: Struct, name: str, place: tuple[int, int, str]) -> None:
    """Add a member, unless it is a bit field, or nothing."""
    offset, size, type_ = place
    type_ = type_.replace("const ", "") if not type_.startswith("const char") else type_
    outer, _, inner = name.partition(".")
    if inner:
        # A typedef of an anonymous structure was flattened.
        if inner == "counter":
            struct.members[outer] = Member(_ATOMICS[size], offset // 8)
        elif (outer, inner) == ("flags", "f"):
            flags = _of_words(8, ("f", "unsigned long", 0), anonymous=True)
            layout.structs["memdesc_flags_t"] = flags
            struct.members[outer] = Member("memdesc_flags_t", offset // 8)
    elif offset % 8 == 0 and size % 8 == 0:
        found = _known(layout, type_, size // 8)
        if found is not None:
            struct.members[name] = Member(found, offset // 8)


_ATOMICS = {32: "atomic_t", 64: "atomic_long_t"}


def _known(layout: Layout, type_: str, size: int) -> str | None:
    """The type, or one of the same size if the file does not have it."""
    arrays = _ARRAYS.search(type_)
    bare = type_[: arrays.start()] if arrays else type_
    if "(*)" in bare:
        return "void *"
    if bare.endswith("*"):
        target = bare.rstrip("* ").replace("const ", "")
        if _has_type(layout, target) or target in ("void", "struct address_space"):
            return type_
        return f"void *{arrays[1]}" if arrays else "void *"
    if _has_type(layout, bare):
        return type_
    if arrays or size not in _UNSIGNED:
        return f"unsigned char [{size}]" if size else None
    return _UNSIGNED[size]


def _has_type(layout: Layout, name: str) -> bool:
    kind, _, tag = name.partition(" ")
    if kind == "struct":
        return tag in layout.structs
    if kind == "enum":
        return tag in layout.enums
    return name in SCALARS or name in layout.typedefs or name in layout.structs
