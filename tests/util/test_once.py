# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a program is asked once."""

from __future__ import annotations

import pytest
from drgn import Program

from drgn_zonedev.util.once import once_per_program


def test_each_program_is_asked_once() -> None:
    asked: list[Program] = []

    @once_per_program
    def nothing(prog: Program) -> None:
        asked.append(prog)

    first, second = Program(), Program()
    for prog in (first, second, first):
        assert nothing(prog) is None
    assert asked == [first, second]


def test_what_is_raised_is_raised_again() -> None:
    asked: list[Program] = []

    @once_per_program
    def missing(prog: Program) -> None:
        asked.append(prog)
        raise LookupError

    prog = Program()
    for count in (1, 2):
        with pytest.raises(LookupError):
            missing(prog)
        assert len(asked) == count
