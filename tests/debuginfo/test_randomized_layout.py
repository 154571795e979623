# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import logging

import pytest
from drgn import Program
from support.builtinkernel import DATA, SYMBOLS, builtin_program, builtin_types, carried
from support.rawkallsyms import TEXT, Image

from drgn_zonedev.debuginfo.finders import register_builtin_finders
from drgn_zonedev.debuginfo.randomized_layout import has_unknown_layout
from drgn_zonedev.opening.types import TypeChoice, load_types

GCC, CLANG = b"Linux 6.1 (gcc-12 12.2.0)", b"Linux 6.1 (clang version 19)"
# TAINT_WARN, and TAINT_RANDSTRUCT of include/linux/panic.h.
WARNED, RANDOMISED = 1 << 9, 1 << 17


def kernel(tainted_mask: int, banner: bytes) -> Program:
    image = carried(builtin_types().bytes(), SYMBOLS)
    data = bytearray(image.data)
    for address, contents in ((0x68, tainted_mask.to_bytes(8, "little")), (0x70, banner)):
        at = DATA + address - TEXT
        data[at : at + len(contents)] = contents
    return builtin_program(Image(bytes(data), image.tables))


@pytest.mark.parametrize(
    ("tainted_mask", "banner", "unknown"),
    [
        (RANDOMISED, GCC, True),
        (RANDOMISED | WARNED, GCC, True),
        (RANDOMISED, CLANG, False),
        (WARNED, GCC, False),
        (0, GCC, False),
    ],
)
def test_only_gcc_does_not_describe_what_it_randomised(
    tainted_mask: int, banner: bytes, unknown: bool
) -> None:
    prog = kernel(tainted_mask, banner)
    register_builtin_finders(prog)
    assert has_unknown_layout(prog) is unknown


def test_kernel_that_does_not_say_is_not_warned_of() -> None:
    symbols = [symbol for symbol in SYMBOLS if symbol[0] != "Dtainted_mask"]
    prog = builtin_program(carried(builtin_types().bytes(), symbols))
    register_builtin_finders(prog)
    assert not has_unknown_layout(prog)


def test_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    load_types(kernel(RANDOMISED, GCC), [], TypeChoice.BTF)
    (line,) = capsys.readouterr().err.splitlines()
    assert "CONFIG_RANDSTRUCT" in line
    load_types(kernel(0, GCC), [], TypeChoice.BTF)
    assert not capsys.readouterr().err


def test_drgn_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="drgn.builtin")
    prog = kernel(RANDOMISED, GCC)
    register_builtin_finders(prog)
    for _ in range(2):
        assert prog["max_pfn"].value_()
    (record,) = caplog.records
    assert "CONFIG_RANDSTRUCT" in record.getMessage()
