# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn import Program
from support.builtinkernel import SYMBOLS, builtin_program, builtin_types, carried

from drgn_zonedev.debuginfo.finders import types_are_builtin
from drgn_zonedev.opening import types
from drgn_zonedev.opening.failures import CannotJudgeError, CannotOpenError
from drgn_zonedev.opening.symbols import MissingSymbolsError
from drgn_zonedev.opening.types import TypeChoice, load_types

WITHOUT_BTF = [symbol for symbol in SYMBOLS if "BTF" not in symbol[0]]


def kernel(symbols: list[tuple[str, int]] = SYMBOLS) -> Program:
    return builtin_program(carried(builtin_types().bytes(), symbols))


@pytest.fixture
def no_vmlinux(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_symbols(prog: Program, symbols: list[str], names: object) -> None:
        raise MissingSymbolsError("no debugging symbols for Linux 6.1.0: give its vmlinux with -s")

    monkeypatch.setattr(types, "load_symbols", load_symbols)


def test_btf_is_used_without_looking_for_vmlinux() -> None:
    prog = kernel()
    load_types(prog, [], TypeChoice.BTF)
    assert types_are_builtin(prog)
    assert prog["max_pfn"].value_() == 0x280000


@pytest.mark.usefixtures("no_vmlinux")
def test_btf_stands_in_for_a_missing_vmlinux(capsys: pytest.CaptureFixture[str]) -> None:
    prog = kernel()
    load_types(prog, [])
    assert types_are_builtin(prog)
    assert "types come from the kernel's BTF" in capsys.readouterr().err


@pytest.mark.usefixtures("no_vmlinux")
@pytest.mark.parametrize(
    ("symbols", "choice"), [(["vmlinux"], TypeChoice.AUTO), ([], TypeChoice.DWARF)]
)
def test_vmlinux_that_was_asked_for_is_not_done_without(
    symbols: list[str], choice: TypeChoice
) -> None:
    prog = kernel()
    with pytest.raises(MissingSymbolsError):
        load_types(prog, symbols, choice)
    assert not types_are_builtin(prog)


@pytest.mark.usefixtures("no_vmlinux")
def test_both_reasons_are_given_if_there_is_neither() -> None:
    with pytest.raises(CannotJudgeError) as e:
        load_types(kernel(WITHOUT_BTF), [])
    assert "give its vmlinux with -s" in str(e.value)
    assert "CONFIG_DEBUG_INFO_BTF=n" in str(e.value)


def test_kernel_without_btf_cannot_be_judged_by_it() -> None:
    with pytest.raises(CannotJudgeError, match="CONFIG_DEBUG_INFO_BTF=n: give vmlinux with -s"):
        load_types(kernel(WITHOUT_BTF), [], TypeChoice.BTF)


def test_vmlinux_is_not_given_in_vain() -> None:
    with pytest.raises(CannotOpenError, match="remove -s"):
        load_types(kernel(), ["vmlinux"], TypeChoice.BTF)
