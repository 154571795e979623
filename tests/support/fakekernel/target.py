# SPDX-License-Identifier: LGPL-2.1-or-later
"""A drgn Program over fake memory: types, variables, enumerators and symbols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from drgn import (
    Architecture,
    FindObjectFlags,
    Object,
    Platform,
    PlatformFlags,
    Program,
    Symbol,
    SymbolBinding,
    SymbolIndex,
    SymbolKind,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
)

from .layouts import Layout, Member

# All of the kernel half of a 5-level address space goes to the fake's memory,
# so that nothing ever asks for page tables.
_KERNEL_START = 0xFF00000000000000
_KERNEL_SIZE = (1 << 64) - _KERNEL_START

_VMCOREINFO = """OSRELEASE={release}
PAGESIZE={page_size}
SYMBOL(swapper_pg_dir)=ffffffff82a0c000
SYMBOL(mem_section)={mem_section:x}
LENGTH(mem_section)=2048
SIZE(mem_section)={sizeof_section}
SIZE(page)={sizeof_page}
NUMBER(SECTION_SIZE_BITS)={section_size_bits}
NUMBER(MAX_PHYSMEM_BITS)={max_physmem_bits}
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
KERNELOFFSET=0
"""
# Slab pages have a page type instead of a flag since 6.10.
_SLAB_TYPE = "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376\n"

_RELEASES = {
    "5.10": "5.10.223-fake",
    "6.1": "6.1.192-fake",
    "6.12": "6.12.107-fake",
    "6.12-proposal": "6.12.107-fake",
    "7.2": "7.2.12-fake",
    "7.3": "7.3.4-fake",
    "7.3-proposal": "7.3.4-fake",
}

# Of lab/patches/pfn_zone_device-7.3.edit.
_PROPOSAL_FUNCTIONS = ("pfn_to_initialized_page", "section_pfn_claimed")

_VMEMMAP_POPULATE = 0xFFFFFFFF81000000

# Name -> (C type, address).
Variables = Mapping[str, tuple[str, int]]


_C_NAME = {TypeKind.STRUCT: "struct ", TypeKind.ENUM: "enum ", TypeKind.TYPEDEF: ""}


class Names:
    """What was looked up and found, and what is not to be found."""

    def __init__(self, hidden: frozenset[str]) -> None:
        self.hidden = hidden
        self.found: set[str] = set()

    def shows(self, name: str) -> bool:
        self.found.add(name)
        return name not in self.hidden


class _Types:
    """Type finder; types refer to each other lazily, as C needs it."""

    def __init__(self, layout: Layout, names: Names) -> None:
        self.layout = layout
        self.names = names
        self.found: dict[tuple[str, str], Type] = {}

    def find(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        if filename is not None:
            return None
        for kind, make in (
            (TypeKind.STRUCT, self._struct),
            (TypeKind.ENUM, self._enum),
            (TypeKind.TYPEDEF, self._typedef),
        ):
            if kind in kinds:
                found = self._cached(prog, kind.name, name, make)
                if found is not None:
                    return found if self.names.shows(_C_NAME[kind] + name) else None
        return None

    def _cached(
        self,
        prog: Program,
        kind: str,
        name: str,
        make: Callable[[Program, str], Type | None],
    ) -> Type | None:
        key = (kind, name)
        if key not in self.found:
            made = make(prog, name)
            if made is None:
                return None
            self.found[key] = made
        return self.found[key]

    def _struct(self, prog: Program, name: str) -> Type | None:
        if name == "address_space" and name not in self.layout.structs:
            return prog.struct_type(name)
        struct = self.layout.structs.get(name)
        return None if struct is None or struct.anonymous else self._complete(prog, name, name)

    def _complete(self, prog: Program, name: str, tag: str | None) -> Type:
        struct = self.layout.structs[name]
        hidden = self.names.hidden
        members = [
            _member(prog, *item)
            for item in struct.members.items()
            if not hidden or f"struct {name}.{item[0]}" not in hidden
        ]
        return prog.struct_type(tag, struct.size, members)

    def enum(self, prog: Program, key: str) -> Type:
        """An enumeration by its key in the layout; "-..." are anonymous."""
        found = self._cached(prog, "ENUM", key, self._enum)
        assert found is not None
        return found

    def _enum(self, prog: Program, key: str) -> Type | None:
        if key not in self.layout.enums:
            return None
        names = self.layout.enums[key].items()
        enumerators = [TypeEnumerator(name, value) for name, value in names]
        tag = None if key.startswith("-") else key
        return prog.enum_type(tag, prog.type("unsigned int"), enumerators)

    def _typedef(self, prog: Program, name: str) -> Type | None:
        if name in self.layout.typedefs:
            return prog.typedef_type(name, prog.type(self.layout.typedefs[name]))
        struct = self.layout.structs.get(name)
        if struct is None or not struct.anonymous:
            return None
        return prog.typedef_type(name, self._complete(prog, name, None))


def _member(prog: Program, name: str, member: Member) -> TypeMember:
    return TypeMember(lambda: prog.type(member.type), name, 8 * member.offset)


class _Objects:
    """Object finder for variables and enumerators."""

    def __init__(self, types: _Types, variables: Variables) -> None:
        self.types = types
        self.variables = variables

    def find(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if filename is not None:
            return None
        found = self._find(prog, name, flags)
        return found if found is not None and self.types.names.shows(name) else None

    def _find(self, prog: Program, name: str, flags: FindObjectFlags) -> Object | None:
        # Flags come last: they are what takes time.
        if name in self.variables and flags & FindObjectFlags.VARIABLE:
            type_name, address = self.variables[name]
            return Object(prog, type_name, address=address)
        if self._is_function(name) and flags & FindObjectFlags.FUNCTION:
            # drgn takes this function as the sign of SPARSEMEM_VMEMMAP, then
            # finds vmemmap itself, in the first section that has a memmap.
            function = prog.function_type(prog.type("int"), ())
            return Object(prog, function, address=_VMEMMAP_POPULATE)
        key = self.types.layout.enum_of(name)
        if key is not None and flags & FindObjectFlags.CONSTANT:
            value = self.types.layout.constant(name)
            return Object(prog, self.types.enum(prog, key), value)
        return None

    def _is_function(self, name: str) -> bool:
        layout = self.types.layout
        if name == "pfn_to_online_page":
            # Where the section flags are macros, it shows the newer ones.
            macros = not layout.has_constant("SECTION_MARKED_PRESENT_BIT")
            return macros and layout.has_taint
        if name in _PROPOSAL_FUNCTIONS:
            return layout.name == "7.3-proposal"
        return name == "vmemmap_populate"


def _vmcoreinfo(layout: Layout, mem_section: int, sizeof_page: int) -> str:
    info = _VMCOREINFO.format(
        release=_RELEASES.get(layout.name, f"{layout.release}-fake"),
        mem_section=mem_section,
        page_size=1 << layout.macros.page_shift,
        section_size_bits=layout.macros.section_size_bits,
        max_physmem_bits=layout.macros.max_physmem_bits,
        sizeof_section=layout.structs["mem_section"].size,
        sizeof_page=sizeof_page,
    )
    if layout.macros.architecture == "AARCH64":
        info += "NUMBER(VA_BITS)=48\nNUMBER(TCR_EL1_T1SZ)=0x10\nNUMBER(kimage_voffset)=0x0\n"
    has_slab_flag = layout.has_constant("PG_slab")
    return info if has_slab_flag else info + _SLAB_TYPE


def _symbols(symbols: Mapping[str, int]) -> list[Symbol]:
    return [
        Symbol(name, address, 32, SymbolBinding.LOCAL, SymbolKind.OBJECT)
        for name, address in symbols.items()
    ]


def _platform(layout: Layout) -> Platform:
    architecture = layout.macros.architecture
    if architecture == "PPC64":
        little = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
        return Platform(Architecture.PPC64, little)
    return Platform(Architecture[architecture])


def make_program(
    layout: Layout,
    variables: Variables,
    symbols: Mapping[str, int],
    read: Callable[[int, int], bytes],
    mem_section: int,
    is_live: bool,
    names: Names,
    sizeof_page: int,
) -> Program:
    """
    A Program that reads through *read* and knows *variables* and *symbols*.

    :param mem_section: Address of the root array of sections.
    :param names: Types, variables and enumerators that cannot be found.
    """
    vmcoreinfo = _vmcoreinfo(layout, mem_section, sizeof_page)
    prog = Program(_platform(layout), vmcoreinfo=vmcoreinfo)
    prog.set_linux_kernel_custom(vmcoreinfo, is_live)
    prog.add_memory_segment(
        _KERNEL_START,
        _KERNEL_SIZE - 1,
        lambda address, count, offset, physical: read(address, count),
    )
    types = _Types(layout, names)
    objects = _Objects(types, variables)
    prog.register_type_finder("fake", types.find, enable_index=0)
    prog.register_object_finder("fake", objects.find, enable_index=0)
    prog.register_symbol_finder("fake", SymbolIndex(_symbols(symbols)), enable_index=0)
    return prog
