# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.rawkallsyms import TEXT, Image, kallsyms_image

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.kallsyms_tables import Memory, read_kallsyms

# More than 256, so that there is more than one marker.
SYMBOLS = [
    ("T_stext", TEXT),
    *((f"tfunction_{i}_{i * i}", TEXT + 16 * i) for i in range(1, 700)),
    ("Dinit_uts_ns", TEXT + 0x8000),
]
KNOWN = {"_stext": TEXT, "init_uts_ns": TEXT + 0x8000}
RULES = ["base", "per_cpu", "place", "addresses"]


def memory(image: Image) -> Memory:
    def read(address: int, size: int) -> bytes:
        try:
            return image.read(address, size)
        except LookupError as e:
            raise DebugInfoError(str(e)) from e

    return Memory(read)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("offsets_first", [False, True])
def test_symbols_by_vmcoreinfo(rule: str, offsets_first: bool) -> None:
    image = kallsyms_image(SYMBOLS, rule, offsets_first)
    symbols = read_kallsyms(memory(image), {**image.tables, **KNOWN})
    assert [(s.letter + s.name, s.address) for s in symbols] == SYMBOLS


@pytest.mark.parametrize(
    ("rule", "offsets_first"),
    [("base", True), ("per_cpu", True), ("addresses", True), ("base", False), ("place", False)],
)
def test_symbols_without_vmcoreinfo(rule: str, offsets_first: bool) -> None:
    image = kallsyms_image(SYMBOLS, rule, offsets_first)
    symbols = read_kallsyms(memory(image), KNOWN)
    assert [(s.letter + s.name, s.address) for s in symbols] == SYMBOLS


def test_per_cpu_symbols_are_not_relative() -> None:
    image = kallsyms_image([("D__per_cpu_start", 0), ("Drunqueues", 0x1A40), *SYMBOLS])
    symbols = read_kallsyms(memory(image), {**image.tables, **KNOWN})
    assert symbols.named("runqueues")[0].address == 0x1A40


def test_relocated_kernel_is_found_where_it_is() -> None:
    # KASLR moves relative_base, which the offsets of all but per-CPU symbols are relative to.
    image = kallsyms_image([(name, address + 0x2000000) for name, address in SYMBOLS])
    known = {name: address + 0x2000000 for name, address in KNOWN.items()}
    symbols = read_kallsyms(memory(image), {**image.tables, **known})
    assert symbols.named("init_uts_ns")[0].address == TEXT + 0x2008000


def test_symbols_of_another_kernel_are_refused() -> None:
    image = kallsyms_image(SYMBOLS)
    with pytest.raises(DebugInfoError, match="another kernel"):
        read_kallsyms(memory(image), {**image.tables, **KNOWN, "init_uts_ns": TEXT + 0x8010})


def test_kernel_without_kallsyms_is_refused() -> None:
    image = Image(bytes(1 << 21), {})
    with pytest.raises(DebugInfoError, match="CONFIG_KALLSYMS=n"):
        read_kallsyms(memory(image), KNOWN)


def test_nothing_is_known_without_the_start_of_the_kernel() -> None:
    with pytest.raises(DebugInfoError, match="VMCOREINFO"):
        read_kallsyms(memory(kallsyms_image(SYMBOLS)), {})


@pytest.mark.parametrize("damaged", ["num_syms", "token_index", "token_table", "names"])
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xFF])
def test_overwritten_table_is_one_error(damaged: str, byte: int) -> None:
    image = kallsyms_image(SYMBOLS)
    at = image.tables[f"kallsyms_{damaged}"] - TEXT
    data = image.data[:at] + bytes([byte]) * 64 + image.data[at + 64 :]
    broken = Image(data, image.tables)
    with pytest.raises(DebugInfoError):
        read_kallsyms(memory(broken), {**image.tables, **KNOWN})


def test_table_that_is_not_in_the_dump_is_named() -> None:
    image = kallsyms_image(SYMBOLS)
    known = {**image.tables, **KNOWN, "kallsyms_offsets": TEXT - 0x1000000}
    with pytest.raises(DebugInfoError, match="is not in the image"):
        read_kallsyms(memory(image), known)


@pytest.mark.parametrize("nr", [0, 1])
def test_page_of_names_that_a_filter_left_out_is_named(nr: int) -> None:
    image = kallsyms_image(SYMBOLS)
    names = image.tables["kallsyms_names"]
    page = -(-names // 0x1000 - nr) * 0x1000
    assert page + 0x1000 <= image.tables["kallsyms_token_table"]
    data = bytearray(image.data)
    data[page - TEXT : page - TEXT + 0x1000] = bytes(0x1000)
    with pytest.raises(DebugInfoError) as e:
        read_kallsyms(memory(Image(bytes(data), image.tables)), {**image.tables, **KNOWN})
    assert str(e.value) == f"the dump left out {page:#x}, which is in kallsyms"
