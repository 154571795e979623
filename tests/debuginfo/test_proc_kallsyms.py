# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.proc_kallsyms import parse_kallsyms

START = 0xFFFFFFFF81000000
LINES = (
    (0, "A", "fixed_percpu_data"),
    (START, "T", "_stext"),
    (START, "T", "_text"),
    (START + 0x1234, "t", "inlined.part.0"),
    (0xFFFFFFFF82ABCDEF, "D", "node_data"),
    (0xFFFFFFFF82ABCDFF, "b", "__key.7"),
)
TEXT = b"".join(b"%016x %s %s\n" % (a, x.encode(), n.encode()) for a, x, n in LINES)
MODULE = b"ffffffffc0000000 t node_data\t[nd_pmem]\nffffffffc0000010 t nd_pmem_probe\t[nd_pmem]\n"
KNOWN = {"_stext": START, "node_data": 0xFFFFFFFF82ABCDEF}


@pytest.mark.parametrize("text", [TEXT, TEXT + MODULE])
def test_symbols_are_the_kernels_own(text: bytes) -> None:
    symbols = parse_kallsyms(text, KNOWN)
    assert {(s.address, s.letter, s.name) for s in symbols} == set(LINES)
    assert [s.address for s in symbols.named("node_data")] == [KNOWN["node_data"]]
    assert [s.name for s in symbols.at(START + 0x1240)] == ["inlined.part.0"]
    assert not symbols.named("nd_pmem_probe")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"0000000000000000 T _stext\n" * 3, "hides addresses: try as root"),
        (TEXT.replace(b"82abcdef", b"82abcdee").replace(b"81000000 T", b"81000010 T"), "disagrees"),
        (b"", "not a list"),
        (b"\n\n\n", "not a list"),
        (b"ffffffff81000000 T\n", "not a list"),
        (MODULE, "not a list"),
    ],
)
def test_what_cannot_be_used_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(DebugInfoError, match=why):
        parse_kallsyms(text, KNOWN)
