# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
from drgn import (
    Architecture,
    MissingDebugInfoError,
    ObjectNotFoundError,
    Platform,
    Program,
    SymbolBinding,
    SymbolKind,
)
from support.builtinkernel import BTF, DATA, SYMBOLS, builtin_program, builtin_types, carried
from support.exports import open_export
from support.rawkallsyms import TEXT, Image

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.finders import (
    FINDER,
    BuiltinDebugInfo,
    builtin_debug_info,
    offer_builtin_finders,
    register_builtin_finders,
    types_are_builtin,
)
from drgn_zonedev.export.store import unpacked

FWD, TYPEDEF, FUNC, FUNC_PROTO = 7, 8, 12, 13
VMCORES = Path(__file__).parents[2] / "vmcores"


@pytest.fixture
def prog() -> Program:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    register_builtin_finders(prog)
    return prog


def test_variable_has_its_declared_type(prog: Program) -> None:
    assert prog["max_pfn"].type_.type_name() == "unsigned long"
    assert prog["max_pfn"].value_() == 0x280000


def test_dimensions_come_from_what_depends_on_them(prog: Program) -> None:
    assert prog["node_states"].type_.type_name() == "nodemask_t [6]"
    assert prog["node_data"].type_.type_name() == "struct pglist_data *[64]"


def test_variable_that_nobody_declared_is_not_found(prog: Program) -> None:
    with pytest.raises(ObjectNotFoundError):
        prog["unknown_type"]


def test_variable_without_a_symbol_is_not_found(prog: Program) -> None:
    with pytest.raises(ObjectNotFoundError):
        prog["pgmap_array"]


def test_per_cpu_variable_has_the_type_in_btf(prog: Program) -> None:
    assert prog["runs"].address_ == 0x40
    assert prog["runs"].type_.type_name() == "unsigned long"


@pytest.mark.parametrize("kind", [None, TYPEDEF, FWD])
def test_variable_of_a_type_without_a_size_is_damage(kind: int | None) -> None:
    writer = builtin_types()
    writer.variable("more", writer.add(kind, "nothing", 0) if kind else 0)
    prog = builtin_program(carried(writer.bytes(), [*SYMBOLS, ("dmore", 0x48)]))
    register_builtin_finders(prog)
    with pytest.raises(DebugInfoError, match="more has no size"):
        prog["more"]


def test_array_of_what_has_no_size_is_damage() -> None:
    # node_states is nodemask_t [NR_NODE_STATES], by what is declared of it.
    writer = builtin_types()
    writer.add(TYPEDEF, "nodemask_v", writer.add(FUNC_PROTO, "", 0))
    data = writer.bytes().replace(b"\0nodemask_t\0", b"\0nodemask_u\0")
    data = data.replace(b"\0nodemask_v\0", b"\0nodemask_t\0")
    prog = builtin_program(carried(data, SYMBOLS))
    register_builtin_finders(prog)
    with pytest.raises(DebugInfoError, match="node_states has no size"):
        prog["node_states"]


def test_function_that_is_a_number_is_damage() -> None:
    writer = builtin_types()
    writer.add(FUNC, "more", 1)
    prog = builtin_program(carried(writer.bytes(), [*SYMBOLS, ("Tmore", TEXT + 0x38)]))
    register_builtin_finders(prog)
    with pytest.raises(DebugInfoError, match="more is not a function"):
        prog.function("more")


def test_constant_is_an_enumerator(prog: Program) -> None:
    assert prog["ZONE_DEVICE"].value_() == 3
    assert prog.constant("N_ONLINE").type_.type_name() == "enum node_states"


def test_function_is_where_its_symbol_is(prog: Program) -> None:
    function = prog.function("memremap_pages")
    assert function.address_ == TEXT + 0x10
    assert [p.name for p in function.type_.parameters] == ["nid"]


def test_function_that_btf_does_not_describe_takes_anything(prog: Program) -> None:
    function = prog.function("undescribed")
    assert function.address_ == TEXT + 0x30
    assert function.type_.is_variadic
    assert not function.type_.parameters


def test_clone_stands_for_its_function() -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    objects = BuiltinDebugInfo(prog).objects()
    assert objects.has_clone("inlined")
    assert not objects.has_clone("memremap_pages")


@pytest.mark.parametrize("name", ["inlined", "is_data"])
def test_function_without_text_of_its_own_is_not_found(prog: Program, name: str) -> None:
    with pytest.raises(ObjectNotFoundError):
        prog.function(name)


def test_symbols_are_found_by_name_and_address(prog: Program) -> None:
    symbol = prog.symbol("memremap_pages")
    assert (symbol.address, symbol.size, symbol.kind) == (TEXT + 0x10, 0x10, SymbolKind.FUNC)
    assert prog.symbol(TEXT + 0x1F).name == "memremap_pages"
    assert prog.symbol(DATA + 8).binding == SymbolBinding.LOCAL
    assert len(prog.symbols()) == len(SYMBOLS) + 1
    with pytest.raises(LookupError):
        prog.symbol("nonesuch")


def test_file_is_not_known_to_btf(prog: Program) -> None:
    with pytest.raises(LookupError):
        prog.type("struct zoneref", "mmzone.h")
    with pytest.raises(LookupError):
        prog.object("max_pfn", filename="memblock.c")


def test_reading_may_ask_the_program(caplog: pytest.LogCaptureFixture) -> None:
    # drgn looks for what translates addresses when memory is first read.
    caplog.set_level(logging.WARNING, logger="drgn.builtin")
    image = carried(builtin_types().bytes(), SYMBOLS)
    prog = builtin_program(image)
    asked: list[str] = []

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        with contextlib.suppress(LookupError):
            prog.type("struct zonelist")
        asked.append("struct zonelist")
        return image.read(address, size)

    prog.add_memory_segment(TEXT, len(image.data), read, False)
    info = register_builtin_finders(prog)
    assert info.symbols().named("max_pfn")
    assert asked
    assert prog["max_pfn"].value_() == 0x280000
    assert not caplog.records


def test_registering_reads_nothing() -> None:
    reads: list[int] = []
    prog = Program(Platform(Architecture.X86_64))

    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        reads.append(address)
        return bytes(size)

    prog.add_memory_segment(TEXT, 1 << 30, read, False)
    register_builtin_finders(prog)
    assert not reads


def problem(types: bytes, symbols: list[tuple[str, int]]) -> str:
    prog = builtin_program(carried(types, symbols))
    with pytest.raises(DebugInfoError) as e:
        BuiltinDebugInfo(prog).objects()
    return str(e.value)


def test_kernel_without_btf_is_named() -> None:
    symbols = [symbol for symbol in SYMBOLS if symbol[0] != "R__start_BTF"]
    assert "CONFIG_DEBUG_INFO_BTF=n" in problem(b"", symbols)


def test_btf_that_is_not_in_the_dump_is_named() -> None:
    symbols = [(name, BTF - (1 << 24) if name == "R__start_BTF" else a) for name, a in SYMBOLS]
    assert "the dump left out" in problem(builtin_types().bytes(), symbols)


def test_pages_of_btf_that_a_filter_left_out_are_named() -> None:
    # An ELF dump has zeros in place of them.
    writer = builtin_types()
    for nr in range(300):
        writer.struct(f"s{nr}", 8, ("member", 1, 0))
    image = carried(writer.bytes(), SYMBOLS)
    at = BTF - TEXT + 0x1000
    assert any(image.data[at : at + 0x1000])
    data = image.data[:at] + bytes(0x1000) + image.data[at + 0x1000 :]
    with pytest.raises(DebugInfoError) as e:
        BuiltinDebugInfo(builtin_program(Image(data, image.tables))).objects()
    assert str(e.value) == f"the dump left out {BTF + 0x1000:#x}, which is in the kernel's BTF"


def test_damaged_btf_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    # Whoever has loaded symbols in this process has silenced drgn.
    caplog.set_level(logging.WARNING, logger="drgn.builtin")
    prog = builtin_program(carried(b"\0" * 64, SYMBOLS))
    info = register_builtin_finders(prog)
    for _ in range(2):
        with pytest.raises(LookupError):
            prog.type("struct page")
    assert [record.getMessage() for record in caplog.records] == [
        "no types and symbols without vmlinux: BTF is damaged: it does not begin with a header "
        "of version 1"
    ]
    with pytest.raises(DebugInfoError, match="damaged"):
        info.objects()


def test_program_without_vmcoreinfo_says_so() -> None:
    info = register_builtin_finders(Program(Platform(Architecture.X86_64)))
    with pytest.raises(DebugInfoError, match="VMCOREINFO"):
        info.symbols()


def test_other_word_size_is_refused() -> None:
    prog = builtin_program(carried(b"", SYMBOLS), Architecture.I386)
    with pytest.raises(DebugInfoError, match="64 bits"):
        BuiltinDebugInfo(prog).symbols()


def test_offered_finders_wait_until_vmlinux_was_looked_for() -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    offer_builtin_finders(prog)
    offer_builtin_finders(prog)
    assert builtin_debug_info(prog) is None
    assert FINDER in prog.enabled_debug_info_finders()
    with pytest.raises(LookupError):
        prog.type("struct zoneref")
    main = prog.main_module("kernel", create=True)
    with contextlib.suppress(MissingDebugInfoError):
        prog.load_module_debug_info(main)
    # This is what drgn asks, and it is not told.
    with pytest.raises(LookupError):
        prog.type("struct module")
    assert prog.type("struct zoneref").size == 16


def test_finders_are_registered_once() -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    assert register_builtin_finders(prog) is register_builtin_finders(prog)


def test_vmlinux_is_not_added_to() -> None:
    with unpacked(VMCORES / "6.1-empty") as files:
        prog = open_export(files)
    assert not BuiltinDebugInfo(prog).is_used()
    register_builtin_finders(prog)
    assert not types_are_builtin(prog)
    assert prog.type("struct page").size == 64
    with pytest.raises(LookupError):
        prog["runqueues"]


def test_explicit_registration_answers_the_first_question() -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    offer_builtin_finders(prog)
    with contextlib.suppress(MissingDebugInfoError):
        prog.load_module_debug_info(prog.main_module("kernel", create=True))
    assert register_builtin_finders(prog).ignored_once is None
