# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.schema import validated

from drgn_zonedev.oops_log.answer import OopsLog, read_log
from drgn_zonedev.render.oops import oops_document, oops_text
from drgn_zonedev.render.screen import Screen, is_folded

CORPUS = Path(__file__).parents[1] / "oops_log" / "corpus"
EXPECTED = json.loads((CORPUS / "expected.json").read_text())


def read(name: str) -> OopsLog:
    return read_log((CORPUS / f"{name}.log").read_bytes())


@pytest.mark.parametrize("name", EXPECTED)
def test_documents_conform_to_the_schema(name: str) -> None:
    document = validated(oops_document(read(name)))
    assert document["schema"] == "drgn-zonedev/oops/1"
    pages = {a["address"]: a["pfn"] for a in document["addresses"] if a["kind"] == "struct-page"}
    wanted = EXPECTED[name]["addresses"].items()
    assert pages == {a: e["pfn"] for a, e in wanted if e["kind"] == "struct-page"}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_text_has_every_answer(name: str) -> None:
    text = oops_text(read(name))
    for address, expected in EXPECTED[name]["addresses"].items():
        assert address in text
        if expected["pfn"] is not None:
            assert f"{expected['pfn']:#x}" in text
        if expected["pattern"] is not None:
            assert f"{expected['pattern']}: " in text
    for page in EXPECTED[name]["pages"]:
        if page["pfn"] is not None:
            assert f"PFN {page['pfn']:#x}" in text
    assert ("WHAT IS MISSING" in text) == bool(EXPECTED[name]["missing"])


def test_a_log_of_nothing_is_one_line() -> None:
    assert "\n" not in oops_text(read_log(b"nothing\n"))
    validated(oops_document(read_log(b"")))


def test_a_screen_has_what_fits_and_counts_the_rest() -> None:
    log = read("x86-64-list-corruption")
    assert not is_folded(oops_text(log, screen=Screen(20)))
    lines = "".join(f"GPR00: {0xC00C000000000000 + 64 * i:016x}\n" for i in range(99))
    long = read_log(b"DAR: c00c000000000000 DSISR: 40000000\n" + lines.encode())
    assert is_folded(oops_text(long, screen=Screen(20)))
    assert not is_folded(oops_text(long))


def test_text_of_a_log_is_escaped() -> None:
    log = read_log(b"page: refcount:1 mapcount:0 mapping:0000000000000000 pfn:0x1\n"
                   b"raw: 0000000000000000\npage dumped because: \x1b[2Jgone\x07\n")  # fmt: skip
    assert "\x1b" not in oops_text(log)
    assert "\x07" not in oops_text(log)
