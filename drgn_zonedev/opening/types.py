# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Source of Types
---------------

Chooses the source of types and symbols: vmlinux, which has more of them, or BTF and kallsyms in the
kernel's own memory.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping

from drgn import Program

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.finders import register_builtin_finders
from drgn_zonedev.debuginfo.randomized_layout import UNKNOWN_LAYOUT, has_unknown_layout
from drgn_zonedev.opening.core import distrust_headers
from drgn_zonedev.opening.failures import CannotJudgeError, CannotOpenError
from drgn_zonedev.opening.symbols import MissingSymbolsError, load_symbols

__all__ = ("TypeChoice", "load_types")


class TypeChoice(enum.Enum):
    """The values of ``--types``."""

    AUTO = "auto"
    DWARF = "dwarf"
    BTF = "btf"


def load_types(
    prog: Program,
    symbols: list[str],
    choice: TypeChoice = TypeChoice.AUTO,
    names: Mapping[str, str] | None = None,
) -> None:
    """
    Load the types and symbols of a program's kernel.

    :param symbols: The files given by ``-s``. If one is not of this kernel, that is an
        error; BTF does not replace it.
    :param names: Names to show in errors, for files that are copies.
    :raises CannotOpenError: if one of the files cannot be used
    :raises CannotJudgeError: if the kernel's types cannot be found
    """
    if choice is TypeChoice.BTF:
        if symbols:
            raise CannotOpenError("--types btf does not use vmlinux: remove -s")
        _read_builtin(prog)
        return
    try:
        load_symbols(prog, symbols, names)
    except MissingSymbolsError as e:
        if symbols or choice is TypeChoice.DWARF:
            raise
        _read_builtin(prog, e)
        print("zonedev: there is no vmlinux: types come from the kernel's BTF", file=sys.stderr)


def _read_builtin(prog: Program, missing: MissingSymbolsError | None = None) -> None:
    distrust_headers(prog)
    try:
        register_builtin_finders(prog).objects()
    except DebugInfoError as e:
        if missing is None:
            raise CannotJudgeError(f"no types from BTF: {e}: give vmlinux with -s") from e
        raise CannotJudgeError(f"{missing}; without it: {e}") from e
    if has_unknown_layout(prog):
        print(f"zonedev: {UNKNOWN_LAYOUT}", file=sys.stderr)
