# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import struct
from typing import Literal

import pytest
from drgn import FindObjectFlags, Object, Program
from support.builtinkernel import BTF, DATA, SYMBOLS, builtin_program, builtin_types, carried
from support.rawkallsyms import TEXT, Image

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.finders import BuiltinDebugInfo
from drgn_zonedev.debuginfo.same_build import (
    differing_address,
    note_build_id,
    vmcoreinfo_build_id,
)

ONE, OTHER = bytes(range(20)), bytes(range(1, 21))
NOTES = DATA + 0x100


def note(name: bytes, kind: int, contents: bytes, order: str = "<") -> bytes:
    padded = [text + bytes(-len(text) % 4) for text in (name, contents)]
    return struct.pack(f"{order}III", len(name), len(contents), kind) + b"".join(padded)


def kernel(vmcoreinfo: str, build_id: bytes = b"") -> Program:
    """A kernel whose notes have a build ID, and which has more to say in VMCOREINFO."""
    notes = note(b"Linux\0", 0x100, b"6.1.0\0") + note(b"GNU\0", 3, build_id) if build_id else b""
    symbols = [*SYMBOLS[:-1], ("R__start_notes", NOTES)]
    symbols += [("R__stop_notes", NOTES + len(notes)), SYMBOLS[-1]]
    image = carried(builtin_types().bytes(), symbols)
    data = bytearray(image.data)
    data[NOTES - TEXT : NOTES - TEXT + len(notes)] = notes
    prog = builtin_program(Image(bytes(data), image.tables))
    text = prog["VMCOREINFO"].string_() + vmcoreinfo.encode()

    def find(prog: Program, name: str, flags: FindObjectFlags, _: str | None) -> Object | None:
        if name != "VMCOREINFO":
            return None
        return Object(prog, prog.array_type(prog.int_type("char", 1, True), len(text)), text)

    prog.register_object_finder("more", find, enable_index=0)
    return prog


def problem(prog: Program) -> str:
    with pytest.raises(DebugInfoError) as e:
        BuiltinDebugInfo(prog).objects()
    return str(e.value)


def test_kernel_of_the_build_that_vmcoreinfo_names_is_read() -> None:
    assert (
        BuiltinDebugInfo(kernel(f"BUILD-ID={ONE.hex()}\n", ONE))
        .objects()
        .find("max_pfn", FindObjectFlags.VARIABLE)
    )


def test_kernel_of_another_build_is_refused_and_both_are_named() -> None:
    why = problem(kernel(f"BUILD-ID={ONE.hex()}\n", OTHER))
    assert f"VMCOREINFO says {ONE.hex()}" in why
    assert f"notes {OTHER.hex()}" in why


@pytest.mark.parametrize(("told", "held"), [("", ONE), (f"BUILD-ID={ONE.hex()}\n", b""), ("", b"")])
def test_addresses_are_compared_if_a_build_id_is_not_known(told: str, held: bytes) -> None:
    same = kernel(f"{told}SYMBOL(node_data)={DATA + 0x40:x}\n", held)
    assert BuiltinDebugInfo(same).objects()
    other = kernel(f"{told}SYMBOL(node_data)={DATA + 0x48:x}\n", held)
    assert "disagrees with VMCOREINFO about addresses" in problem(other)


def test_kernel_without_variables_in_kallsyms_is_named() -> None:
    symbols = [symbol for symbol in SYMBOLS if symbol[0][0] in "tT"]
    image = carried(builtin_types().bytes(), symbols)
    # carried() adds the end of BTF, which such a kernel does not have either.
    data = image.data.replace(b"R__stop_BTF", b"T__stop_BTF").replace(b"R_", b"T_")
    why = problem(builtin_program(Image(data, image.tables)))
    assert why == "kallsyms knows functions, but no variables: CONFIG_KALLSYMS_ALL=n"


def test_kernel_with_variables_but_without_btf_is_not_taken_for_it() -> None:
    symbols = [symbol for symbol in SYMBOLS if symbol[1] != BTF]
    assert "CONFIG_DEBUG_INFO_BTF=n" in problem(
        builtin_program(carried(builtin_types().bytes(), symbols))
    )


@pytest.mark.parametrize(("order", "byteorder"), [("<", "little"), (">", "big")])
def test_build_id_is_found_behind_other_notes(
    order: str, byteorder: Literal["little", "big"]
) -> None:
    notes = note(b"Xen\0", 3, b"no", order) + note(b"GNU\0", 1, b"abi", order)
    assert note_build_id(notes, byteorder) is None
    assert note_build_id(notes + note(b"GNU\0", 3, ONE, order), byteorder) == ONE


def test_damaged_notes_have_no_build_id() -> None:
    whole = note(b"GNU\0", 3, ONE)
    assert note_build_id(whole, "little") == ONE
    for end in range(len(whole)):
        assert note_build_id(whole[:end], "little") is None
    assert note_build_id(b"\xff" * 64, "little") is None


def test_build_id_is_that_of_vmcoreinfo() -> None:
    assert vmcoreinfo_build_id(b"A=1\nBUILD-ID=00ff\nB=2\n") == b"\x00\xff"
    assert vmcoreinfo_build_id(b"A=1\n") is None
    assert vmcoreinfo_build_id(b"BUILD-ID=0f0\n") is None


def test_only_what_both_know_is_compared() -> None:
    known = {"_stext": 1, "init_uts_ns": 2, "mem_section": 3}
    assert differing_address(known, {"_stext": 1, "mem_section": 4}.get) is None
    assert differing_address(known, {"_stext": 1, "init_uts_ns": 5}.get) == ("init_uts_ns", 2, 5)
