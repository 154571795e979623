# SPDX-License-Identifier: LGPL-2.1-or-later

"""
/proc/kallsyms
--------------

Reads the symbols of the running kernel from /proc/kallsyms, for kernels whose tables cannot be read
through /proc/kcore.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from drgn_zonedev.debuginfo.damage import DebugInfoError
from drgn_zonedev.debuginfo.symbol_table import (
    MAX_SYMBOLS,
    KernelSymbols,
    SymbolNames,
    agrees,
    kernel_symbols,
    name_sums,
)

__all__ = ("parse_kallsyms",)

# "ffffffff81000000 T _stext": the columns of the letter and the name.
_ADDRESS, _LETTER, _NAME = 16, 17, 19
# Symbols of modules come after the kernel's own.
_MODULE = b"\t["

_CHARACTERS = tuple(bytes([code]) for code in range(256))


def parse_kallsyms(text: bytes, known: Mapping[str, int]) -> KernelSymbols:
    """
    Read the symbols in the text of /proc/kallsyms, without those of modules.

    :param known: Addresses in ``VMCOREINFO``, with which the symbols are compared.
    :raises DebugInfoError: if they are hidden, or not those of the kernel
    """
    own = _own_lines(text)
    data = np.frombuffer(own, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if not 0 < len(ends) <= MAX_SYMBOLS or (ends - starts <= _NAME).any():
        raise DebugInfoError("/proc/kallsyms is not a list of addresses, letters and names")
    addresses = _addresses(data, starts)
    if not addresses.any():
        raise DebugInfoError("/proc/kallsyms hides addresses: try as root")
    names = _names(own, starts, ends)
    if not agrees(names, addresses, known):
        raise DebugInfoError("/proc/kallsyms disagrees with VMCOREINFO about addresses")
    return kernel_symbols(names, addresses, known["_stext"])


def _own_lines(text: bytes) -> bytes:
    module = text.find(_MODULE)
    return text[: text.rfind(b"\n", 0, module) + 1] if module >= 0 else text


def _addresses(data: np.ndarray, starts: np.ndarray) -> np.ndarray:
    digits = data[starts[:, None] + np.arange(_ADDRESS)].astype(np.uint64)
    # "0" to "9" are 0x30 to 0x39, "a" to "f" 0x61 to 0x66.
    values = (digits & np.uint64(0xF)) + np.uint64(9) * (digits >> np.uint64(6))
    shifts = np.arange(_ADDRESS)[::-1].astype(np.uint64) * np.uint64(4)
    addresses: np.ndarray = (values << shifts).sum(1, np.uint64)
    return addresses


def _names(text: bytes, starts: np.ndarray, ends: np.ndarray) -> SymbolNames:
    # As in kallsyms' own tables, the letter is right before the name.
    data = np.frombuffer(text, np.uint8).copy()
    data[starts + _NAME - 1] = data[starts + _LETTER]
    packed, begins = data.tobytes(), starts + _NAME - 1
    sums = name_sums(packed, _CHARACTERS, begins, ends)
    return SymbolNames(packed, begins, ends, _CHARACTERS, sums)
