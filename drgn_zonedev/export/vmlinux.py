# SPDX-License-Identifier: LGPL-2.1-or-later

"""
vmlinux
-------

A small ELF file with the debugging information that an export keeps, for drgn's
``-s``: types, variables and symbols, the build ID, and no code or data.

Addresses are those of the original file, so drgn relocates this one by the same
rules (``KERNELOFFSET`` in the vmcoreinfo).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass

from drgn import Object, Program, Symbol, SymbolBinding, SymbolKind, TypeEnumerator, TypeKind

from drgn_zonedev.debuginfo.same_build import vmcoreinfo_build_id
from drgn_zonedev.export import kept_names as names
from drgn_zonedev.export.dwarf.dies import Tree
from drgn_zonedev.export.dwarf.encode import DwarfSections, encode_dwarf
from drgn_zonedev.export.elf_writer import (
    EHDR_SIZE,
    ET_EXEC,
    PHDR_SIZE,
    PT_LOAD,
    PT_NOTE,
    Encoding,
    Segment,
)
from drgn_zonedev.export.kept_names import MissingNames
from drgn_zonedev.pfn_walkers.functions import has_function, is_untraced, untraced_constant
from drgn_zonedev.util.intervals import Span

__all__ = ("Vmlinux", "build_vmlinux")

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOTE, _SHT_NOBITS = 1, 2, 3, 7, 8
_SHF_ALLOC = 2
_NT_GNU_BUILD_ID = 3
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class _Image:
    """The file addresses of the kernel's image, and the offset at which it runs."""

    bias: int
    start: int
    end: int
    build_id: bytes

    def file_address(self, address: int) -> int:
        return (address - self.bias) & _MASK


def _image(prog: Program, symbols: list[Symbol]) -> _Image:
    # drgn looks for the symbol at an address only in files whose range has that address.
    start, end = _extent(prog, symbols)
    try:
        module = prog.main_module()
    except LookupError:
        # drgn has not created modules, because nothing looked for vmlinux.
        bias, build_id = _kernel_offset(prog), vmcoreinfo_build_id(_vmcoreinfo(prog)) or b""
    else:
        known = (module.debug_file_bias, module.loaded_file_bias, _kernel_offset(prog))
        bias = next(bias for bias in known if bias is not None)
        start, end = module.address_range or (start, end)
        build_id = module.build_id or b""
    return _Image(bias, (start - bias) & _MASK, (end - bias) & _MASK, build_id)


def _extent(prog: Program, symbols: list[Symbol]) -> Span:
    try:
        return prog.symbol("_text").address, prog.symbol("_end").address
    except LookupError:
        start = min((s.address for s in symbols), default=0)
        return start, max((s.address + s.size for s in symbols), default=0)


def _kernel_offset(prog: Program) -> int:
    # drgn relocates vmlinux by this. A kernel without KERNELOFFSET is not relocated.
    found = re.search(rb"^KERNELOFFSET=([0-9a-f]{1,16})$", _vmcoreinfo(prog), re.MULTILINE)
    return int(found[1], 16) if found else 0


def _vmcoreinfo(prog: Program) -> bytes:
    try:
        text: bytes = prog["VMCOREINFO"].string_()
    except LookupError:
        return b""
    return text


@dataclass(frozen=True)
class Vmlinux:
    """The contents of the file, and its build ID."""

    contents: bytes
    build_id: bytes


def build_vmlinux(prog: Program, more: MissingNames | None = None) -> Vmlinux:
    """
    Build the file.

    :param more: Names to keep in addition to those of :mod:`.kept_names`.
    """
    more = more or MissingNames()
    assert prog.platform is not None
    symbols = _symbols(prog, more)
    encoding, image = Encoding(prog.platform), _image(prog, symbols)
    dwarf = encode_dwarf(encoding, _tree(prog, image, more).top)
    # drgn ignores a file without a build ID, but not all kernels have one.
    build_id = image.build_id or hashlib.sha1(dwarf.info + dwarf.str).digest()
    sections = _sections(encoding, image, build_id, dwarf)
    sections += _symbol_table(encoding, image, symbols)
    return Vmlinux(_assemble(encoding, image, sections), build_id)


def _tree(prog: Program, image: _Image, more: MissingNames) -> Tree:
    types = (*names.TYPES, *sorted(more.types))
    tree = Tree(name.split()[1] for name in types if name.startswith(("struct ", "union ")))
    for name in types:
        with contextlib.suppress(LookupError):
            tree.add_type(prog.type(name))
    objects = (*names.CONSTANTS, *names.VARIABLES, *names.FUNCTIONS, *sorted(more.objects))
    for name in dict.fromkeys(objects):
        with contextlib.suppress(LookupError):
            _add_object(tree, image, name, prog.object(name))
    _add_traces(tree, prog)
    return tree


def _add_traces(tree: Tree, prog: Program) -> None:
    # DWARF lists functions that are inlined everywhere, without an address. If the source has no
    # DWARF, an export does not have what shows that the kernel has them.
    takes_anything = prog.function_type(prog.void_type(), (), True)
    for name in names.FUNCTIONS:
        if name not in prog and has_function(prog, name):
            tree.add_function(name, takes_anything, None)
    # A name that is missing in an export does not show that the kernel does not have it.
    untraced = [untraced_constant(name) for name in names.FUNCTIONS if is_untraced(prog, name)]
    if untraced:
        enumerators = [TypeEnumerator(name, nr) for nr, name in enumerate(untraced)]
        number = prog.int_type("int", 4, True)
        tree.add_type(prog.enum_type("zonedev_untraced", number, enumerators))


def _add_object(tree: Tree, image: _Image, name: str, found: Object) -> None:
    # A function that was split, or inlined, does not have an address of its own.
    address = None if found.address_ is None else image.file_address(found.address_)
    if found.type_.kind is TypeKind.FUNCTION:
        tree.add_function(name, found.type_, address)
    elif address is not None:
        tree.add_variable(name, found.type_, address)
    elif found.type_.unaliased_kind() is TypeKind.ENUM:
        # An enumerator brings its whole enumeration.
        tree.add_type(found.type_)


def _symbols(prog: Program, more: MissingNames) -> list[Symbol]:
    found: dict[tuple[int, str], Symbol] = {}
    for key in (*names.SYMBOLS, *names.VARIABLES, *names.FUNCTIONS, *more.symbols):
        with contextlib.suppress(LookupError):
            symbol = prog.symbol(key)
            # A symbol without a size would name everything up to the next one.
            if symbol.size:
                found[symbol.address, symbol.name] = symbol
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    contents: bytes = b""
    flags: int = 0
    address: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    entsize: int = 0


def _sections(
    encoding: Encoding, image: _Image, build_id: bytes, dwarf: DwarfSections
) -> list[_Section]:
    size = image.end - image.start
    note = encoding.note(b"GNU", _NT_GNU_BUILD_ID, build_id)
    return [
        # drgn takes a file with .init.text for a vmlinux.
        _Section(".text", _SHT_NOBITS, b"", _SHF_ALLOC, image.start, size),
        _Section(".init.text", _SHT_NOBITS, b"", _SHF_ALLOC, image.end),
        _Section(".notes", _SHT_NOTE, note, _SHF_ALLOC, image.start),
        _Section(".debug_info", _SHT_PROGBITS, dwarf.info),
        _Section(".debug_abbrev", _SHT_PROGBITS, dwarf.abbrev),
        _Section(".debug_str", _SHT_PROGBITS, dwarf.str),
    ]


def _assemble(encoding: Encoding, image: _Image, sections: list[_Section]) -> bytes:
    shstrtab = _string_table([s.name for s in sections] + [".shstrtab"])
    sections = [*sections, _Section(".shstrtab", _SHT_STRTAB, shstrtab)]
    body, headers = bytearray(), [bytes(64)]
    base = EHDR_SIZE + 2 * PHDR_SIZE
    notes = Segment(PT_NOTE, 0, 0, 0, 0, 0)
    for s in sections:
        body += bytes(-(base + len(body)) % 8)
        offset = base + len(body)
        if s.type == _SHT_NOTE:
            size = len(s.contents)
            notes = Segment(PT_NOTE, offset, s.address, s.address, size, size, 4)
        headers.append(_section_header(encoding, s, offset, shstrtab))
        body += s.contents
    body += bytes(-(base + len(body)) % 8)
    load = Segment(PT_LOAD, base, image.start, 0, 0, image.end - image.start, 4096)
    header = encoding.header(
        ET_EXEC, 2, base + len(body), shnum=len(headers), shstrndx=len(headers) - 1
    )
    segments = encoding.segment(load) + encoding.segment(notes)
    return header + segments + bytes(body) + b"".join(headers)


def _symbol_table(
    encoding: Encoding, image: _Image, symbols: list[Symbol]
) -> tuple[_Section, _Section]:
    # Local symbols come first, and sh_info says where they end.
    local = [s for s in symbols if s.binding is SymbolBinding.LOCAL]
    others = [s for s in symbols if s.binding is not SymbolBinding.LOCAL]
    strtab = _string_table([s.name for s in symbols])
    table = bytearray(24)
    for s in local + others:
        info = _elf_number(s.binding) << 4 | _elf_number(s.kind)
        address = image.file_address(s.address)
        name = _name_offset(strtab, s.name)
        table += encoding.pack("IBBHQQ", name, info, 0, 1, address, s.size)
    symtab = _Section(".symtab", _SHT_SYMTAB, bytes(table), link=8, info=1 + len(local), entsize=24)
    return symtab, _Section(".strtab", _SHT_STRTAB, strtab)


def _elf_number(value: SymbolBinding | SymbolKind) -> int:
    # drgn's bindings are ELF's plus one, so that 0 is "unknown".
    return max(value.value - 1, 0) if isinstance(value, SymbolBinding) else value.value


def _string_table(texts: list[str]) -> bytes:
    return b"\0" + b"".join(dict.fromkeys(text.encode() + b"\0" for text in texts))


def _name_offset(table: bytes, name: str) -> int:
    return table.index(b"\0" + name.encode() + b"\0") + 1


def _section_header(encoding: Encoding, s: _Section, offset: int, shstrtab: bytes) -> bytes:
    name = _name_offset(shstrtab, s.name)
    size = s.size or len(s.contents)
    return encoding.section(
        name, s.type, s.flags, s.address, offset, size, s.link, s.info, 8, s.entsize
    )
