# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What the kernels of the lab say of themselves is what their DWARF says. It takes the
kernels that ``zonedev lab fetch`` has put into the cache.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from drgn import (
    Architecture,
    FindObjectFlags,
    Object,
    Platform,
    Program,
    Type,
    TypeKind,
    TypeKindSet,
    sizeof,
)
from drgn.commands import run_command
from support.builtinkernel import builtin_program
from support.exports import open_export
from support.vmlinuximage import vmlinux_image

from drgn_zonedev.debuginfo.declarations import DECLARED_TYPES
from drgn_zonedev.debuginfo.finders import BuiltinDebugInfo, register_builtin_finders
from drgn_zonedev.export.kept_names import CONSTANTS, TYPES, VARIABLES
from drgn_zonedev.export.store import unpacked
from drgn_zonedev.lab import KERNELS, Kernel
from drgn_zonedev.lab.kernels.known import kernel_dir, load_kernel
from drgn_zonedev.pfn_walkers import judge
from drgn_zonedev.pfn_walkers.kernel_release import KernelRelease
from drgn_zonedev.pfn_walkers.table import WALKERS, Walker

PACKAGE = Path(__file__).parents[2] / "drgn_zonedev"
VMCORES = PACKAGE.parent / "vmcores"
NAME = re.compile(r"[A-Za-z_]\w*")
TYPE = re.compile(r"\b(?:struct|union|enum) [a-z_]\w*")

# Rooms that look nothing up in a kernel by these finders.
OTHERS = ("lab", "debuginfo")

# A variable of one plain word is only recognised where it is looked up.
LOOKED_UP = re.compile(r"prog_?(?:\[|\.variable\()\"(\w+)\"|\"(\w+)\" in prog\b")
# Members, of which the kernel has static variables, too.
MEMBERS = {"nr_range"}
# What is PAGE_SIZE bytes long needs a program that knows PAGE_SIZE.
OF_A_PAGE = "empty_zero_page"


@dataclass(frozen=True)
class Pair:
    """One kernel, by its vmlinux and by itself."""

    kernel: Kernel
    dwarf: Program
    btf: Program
    builtin: BuiltinDebugInfo


@pytest.fixture(scope="module", params=KERNELS)
def pair(request: pytest.FixtureRequest) -> Pair:
    kernel = load_kernel(request.param, kernel_dir(request.param))
    if kernel is None or kernel.system_map is None:
        pytest.skip(f"zonedev lab fetch {request.param} has not been run")
    dwarf = Program(Platform(Architecture.X86_64))
    dwarf.extra_module("vmlinux", create=True).try_file(kernel.vmlinux, force=True)
    image = vmlinux_image(kernel.vmlinux, kernel.system_map)
    # VMCOREINFO of Linux 5.10 does not say where the tables are.
    btf = builtin_program(replace(image, tables={}) if request.param == "5.10" else image)
    return Pair(kernel, dwarf, btf, register_builtin_finders(btf))


def plain(t: Type) -> Type:
    while t.kind == TypeKind.TYPEDEF:
        t = t.type
    return t.unqualified()


def differences(ours: Type, theirs: Type, where: str) -> Iterator[str]:
    """Compare two types, and what they have within themselves."""
    ours, theirs = plain(ours), plain(theirs)
    if ours.kind != theirs.kind:
        yield f"{where}: {ours.kind} {theirs.kind}"
    elif ours.kind in (TypeKind.STRUCT, TypeKind.UNION):
        yield from _different_members(ours, theirs, where)
    elif ours.kind == TypeKind.ENUM:
        pairs = [[(e.name, e.value) for e in t.enumerators or ()] for t in (ours, theirs)]
        if pairs[0] != pairs[1]:
            yield f"{where}: enumerators"
    elif ours.kind == TypeKind.ARRAY:
        # BTF does not tell [0] and [] apart, nor has it more than one dimension.
        if total(ours) != total(theirs):
            yield f"{where}: {ours.type_name()} {theirs.type_name()}"
    elif ours.kind == TypeKind.POINTER:
        if plain(ours.type).kind != plain(theirs.type).kind:
            yield f"{where}: points to {ours.type.type_name()}, {theirs.type.type_name()}"
    elif ours.kind == TypeKind.INT:
        # BTF does not say whether char has a sign.
        signs = ours.name == "char" or ours.is_signed == theirs.is_signed
        if ours.size != theirs.size or not signs:
            yield f"{where}: {ours} {theirs}"


def total(t: Type) -> int:
    length = t.length or 0
    return length * (total(t.type) if t.type.kind == TypeKind.ARRAY else sizeof(t.type))


def _different_members(ours: Type, theirs: Type, where: str) -> Iterator[str]:
    if ours.is_complete() != theirs.is_complete():
        yield f"{where}: complete {ours.is_complete()} {theirs.is_complete()}"
    if not (ours.is_complete() and theirs.is_complete()):
        return
    shapes = [
        (t.size, [(m.name, m.bit_offset, m.bit_field_size) for m in t.members])
        for t in (ours, theirs)
    ]
    if shapes[0] != shapes[1]:
        yield f"{where}: {shapes[0]} {shapes[1]}"
        return
    for mine, its in zip(ours.members, theirs.members):
        yield from differences(mine.type, its.type, f"{where}.{mine.name}")


def variable(prog: Program, name: str) -> Object | None:
    try:
        return prog.variable(name)
    except LookupError:
        return None


@functools.cache
def sources() -> tuple[str, ...]:
    paths = (p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in OTHERS)
    return tuple(path.read_text() for path in paths)


@functools.cache
def texts() -> frozenset[str]:
    """Every string of the package that may be looked up in a kernel."""
    bodies = (statement for source in sources() for statement in ast.parse(source).body)
    nodes = (node for body in bodies if not _is_all(body) for node in ast.walk(body))
    return frozenset(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_all(statement: ast.stmt) -> bool:
    # __all__ has the package's own names.
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


def names() -> list[str]:
    return sorted(text for text in texts() if NAME.fullmatch(text))


def variable_names() -> list[str]:
    found = (match for source in sources() for match in LOOKED_UP.finditer(source))
    looked_up = {match[1] or match[2] for match in found}
    return sorted(looked_up | {*VARIABLES} | {name for name in names() if "_" in name} - MEMBERS)


def types_in(prog: Program, names: Iterable[str]) -> Iterator[tuple[str, Type]]:
    for name in names:
        with contextlib.suppress(LookupError):
            yield name, prog.type(name)


def constants_in(prog: Program, names: Iterable[str]) -> Iterator[tuple[str, Object]]:
    for name in names:
        with contextlib.suppress(LookupError):
            yield name, prog.constant(name)


def variables_in(prog: Program, names: Iterable[str]) -> Iterator[tuple[str, Object]]:
    for name in names:
        found = variable(prog, name)
        if found is not None:
            yield name, found


def test_types_that_the_package_names(pair: Pair) -> None:
    asked = {match for text in texts() for match in TYPE.findall(text)} | {*TYPES}
    known = dict(types_in(pair.dwarf, sorted(asked)))
    assert len(known) > 60
    assert "struct dev_pagemap" in known
    for name, theirs in known.items():
        assert not list(differences(pair.btf.type(name), theirs, name))


def test_variables_have_their_types_and_addresses(pair: Pair) -> None:
    compared = 0
    for name, c_type in DECLARED_TYPES.items():
        theirs = variable(pair.dwarf, name)
        # PAGE_SIZE comes from a real program; jiffies is an alias that a linker makes.
        if theirs is None or "PAGE_SIZE" in c_type:
            continue
        ours = pair.btf.variable(name)
        assert ours.address_ == theirs.address_, name
        if name == "uevent_seqnum":
            assert sizeof(ours) == sizeof(theirs) == 8
        elif c_type.endswith("[]"):
            assert not list(differences(ours.type_.type, theirs.type_.type, name))
        else:
            assert not list(differences(ours.type_, theirs.type_, name))
        compared += 1
    assert compared > 100


def test_variables_that_the_package_names_are_declared(pair: Pair) -> None:
    known = dict(variables_in(pair.dwarf, variable_names()))
    assert len(known) > 30
    assert "mem_section" in known
    missing = {name for name in known if variable(pair.btf, name) is None}
    assert missing <= {OF_A_PAGE}


@dataclass(frozen=True)
class Asked:
    """Collects what a program is asked for."""

    types: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)

    def watch(self, prog: Program) -> None:
        prog.register_type_finder("asked", self._type, enable_index=0)
        prog.register_object_finder("asked", self._object, enable_index=0)

    def _type(self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> None:
        self.types.update(f"{KEYWORDS.get(kind, '')}{name}" for kind in kinds)

    def _object(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> None:
        self.objects.add(name)


KEYWORDS = {TypeKind.STRUCT: "struct ", TypeKind.UNION: "union ", TypeKind.ENUM: "enum "}
COMMANDS = ("check", "walkers", "proposal", "pgmaps", "sections", "ranges", "pfn 0x24400")


def asked_for(kernel: str) -> Asked:
    """What all commands ask a stored dump for, by themselves and by drgn's helpers."""
    asked = Asked()
    with unpacked(VMCORES / f"{kernel}-fsdax-collision") as files:
        for command in COMMANDS:
            prog = open_export(files)
            asked.watch(prog)
            with contextlib.redirect_stdout(io.StringIO()):
                run_command(prog, f"zonedev {command}")
    return asked


def test_what_commands_ask_for(pair: Pair) -> None:
    asked = asked_for(pair.kernel.name)
    assert {"struct mem_section", "struct dev_pagemap", "struct page"} <= asked.types
    for name, theirs in types_in(pair.dwarf, sorted(asked.types)):
        # BTF has a function's types only where something refers to them.
        assert not list(differences(pair.btf.type(name), theirs, name)), name
    for name, theirs in constants_in(pair.dwarf, sorted(asked.objects)):
        assert pair.btf.constant(name).value_() == theirs.value_(), name
    known = dict(variables_in(pair.dwarf, sorted(asked.objects)))
    assert {"mem_section", "pgmap_array", "iomem_resource"} <= known.keys()
    assert {name for name in known if variable(pair.btf, name) is None} <= {OF_A_PAGE}


def test_per_cpu_variables(pair: Pair) -> None:
    theirs, ours = (variable(prog, "runqueues") for prog in (pair.dwarf, pair.btf))
    assert theirs is not None
    assert ours is not None
    assert ours.address_ == theirs.address_
    assert not list(differences(ours.type_, theirs.type_, "runqueues"))


def test_enumerators_that_the_package_names(pair: Pair) -> None:
    known = dict(constants_in(pair.dwarf, [*names(), *CONSTANTS]))
    assert len(known) > 40
    assert "PG_locked" in known
    for name, theirs in known.items():
        ours = pair.btf.constant(name)
        assert ours.value_() == theirs.value_(), name
        assert not list(differences(ours.type_, theirs.type_, name))


def test_walkers_and_their_guards(pair: Pair) -> None:
    major, minor, sublevel = map(int, re.findall(r"\d+", pair.kernel.version)[:3])
    release = (major, minor, sublevel)
    assert judge._present(pair.dwarf, WALKERS[0])
    for walker in WALKERS:
        ours, theirs = (judged(prog, walker, release) for prog in (pair.btf, pair.dwarf))
        assert ours == theirs, walker.name


def judged(prog: Program, walker: Walker, release: KernelRelease) -> tuple[object, ...]:
    guard = judge._guard(prog, walker, release)
    return judge._present(prog, walker), guard, judge._is_by_release(prog, walker, guard)


def system_map(pair: Pair) -> set[tuple[str, int]]:
    assert pair.kernel.system_map
    lines = pair.kernel.system_map.read_text().splitlines()
    return {(line.split(" ")[2], int(line.split(" ")[0], 16)) for line in lines}


def test_functions_are_where_the_linker_put_them(pair: Pair) -> None:
    # DWARF may describe what is left of a function of which a part was inlined.
    listed = system_map(pair)
    for name in ("memremap_pages", "memunmap_pages", "vfree"):
        theirs, ours = pair.dwarf.function(name), pair.btf.function(name)
        assert (name, ours.address_) in listed
        parameters = [[p.name for p in o.type_.parameters] for o in (ours, theirs)]
        assert parameters[0] == parameters[1]


def test_symbols_are_those_of_the_linker(pair: Pair) -> None:
    listed, ours = system_map(pair), {(s.name, s.address) for s in pair.builtin.symbols()}
    # Linkers add symbols, and kallsyms leaves out those of its own tables.
    assert len(listed - ours) < 20
    assert len(listed & ours) > 80000
