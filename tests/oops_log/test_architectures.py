# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.architectures import ARCHITECTURES, architecture_of_lines

WORD = "0000000000000001"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x86-64", f"RAX: {WORD} RBX: {WORD} RCX: {WORD}"),
        ("arm64", f"x29: {WORD} x28: {WORD} x27: {WORD}"),
        ("ppc64", f"GPR04: {WORD} {WORD} {WORD} {WORD}"),
        ("s390x", f"Krnl GPRS: {WORD} {WORD} {WORD} {WORD}"),
        ("riscv64", f"status: {WORD} badaddr: {WORD} cause: {WORD}"),
    ],
)
def test_an_oops_shows_its_architecture(name: str, text: str) -> None:
    found = architecture_of_lines(["nothing", text])
    assert found is ARCHITECTURES[name]


def test_without_a_sign_there_is_none() -> None:
    assert architecture_of_lines(["page: refcount:1", ""]) is None
    assert architecture_of_lines([]) is None
