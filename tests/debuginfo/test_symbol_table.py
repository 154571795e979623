# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import numpy as np
import pytest
from support.rawkallsyms import TEXT, kallsyms_image

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.kallsyms_tables import Memory, read_kallsyms
from drgn_zonedev.debuginfo.symbol_table import KernelSymbols, symbol_names, token_texts


def table(*symbols: tuple[str, int]) -> KernelSymbols:
    image = kallsyms_image([("T_stext", TEXT), *symbols])
    return read_kallsyms(Memory(image.read), {**image.tables, "_stext": TEXT})


def test_symbol_ends_where_the_next_one_begins() -> None:
    symbols = table(("Dmem_section", TEXT + 0x100), ("bmem_map", TEXT + 0x108))
    (found,) = symbols.named("mem_section")
    assert (found.address, found.size, found.letter) == (TEXT + 0x100, 8, "D")
    assert symbols.named("mem_map")[0].size == 0


def test_symbols_are_found_by_what_they_contain() -> None:
    symbols = table(("tfirst", TEXT + 0x10), ("Talias", TEXT + 0x20), ("tlocal", TEXT + 0x20))
    assert [s.name for s in symbols.at(TEXT + 0x1F)] == ["first"]
    assert [s.name for s in symbols.at(TEXT + 0x20)] == ["alias", "local"]
    # What is behind the last one has no end, and contains no more than its beginning.
    assert symbols.at(TEXT + 0x21) == ()
    assert symbols.at(TEXT - 1) == ()


def test_hole_between_parts_of_the_image_is_in_no_symbol() -> None:
    symbols = table(("Dlast_of_text", TEXT + 0x1000), ("Dfar_away", TEXT + (1 << 28)))
    assert [s.name for s in symbols.at(TEXT + 0x1000)] == ["last_of_text"]
    assert symbols.at(TEXT + 0x1001) == ()


def test_per_cpu_symbol_is_at_no_address() -> None:
    symbols = table(("Dfixed_percpu_data", 0), ("D__per_cpu_end", 0x1000))
    assert symbols.named("fixed_percpu_data")[0].address == 0
    assert symbols.at(0) == symbols.at(0x10) == ()


def test_anagram_is_another_name() -> None:
    symbols = table(("tab", TEXT + 1), ("tba", TEXT + 2))
    assert [s.address for s in symbols.named("ba")] == [TEXT + 2]
    assert symbols.named("bb") == ()


def test_name_that_several_symbols_have() -> None:
    symbols = table(("tsame", TEXT + 1), ("dsame", TEXT + 2))
    assert [s.letter for s in symbols.named("same")] == ["t", "d"]


def test_name_longer_than_127_tokens() -> None:
    name = "_RNvX" + "q" * 300
    assert table((f"T{name}", TEXT + 8)).named(name)[0].address == TEXT + 8


def test_all_symbols_come_in_order() -> None:
    symbols = table(("Tmemremap_pages", TEXT + 8), ("bmem_section", TEXT + 4))
    assert [s.name for s in symbols] == ["_stext", "memremap_pages", "mem_section"]
    assert len(symbols) == 3


TOKENS = tuple(bytes([code]) for code in range(256))


@pytest.mark.parametrize(
    ("packed", "count"),
    [(b"", 1), (b"\x02Ta\x05Tb", 2), (b"\x02Ta", 2), (b"\x00", 1), (b"\xff", 1), (b"\x81\x7fT", 1)],
)
def test_fewer_names_than_symbols_are_damage(packed: bytes, count: int) -> None:
    with pytest.raises(DebugInfoError, match=f"it does not have {count} names"):
        symbol_names(packed, count, TOKENS)


def test_index_of_other_tokens_is_damage() -> None:
    table = b"".join(bytes([max(code, 1)]) + b"\0" for code in range(256))
    index = np.arange(256) * 2
    assert len(token_texts(table, index)) == 256
    with pytest.raises(DebugInfoError, match="index"):
        token_texts(table, index + 2 * (index > 100))
    with pytest.raises(DebugInfoError, match="256 tokens"):
        token_texts(table[:100], index)
