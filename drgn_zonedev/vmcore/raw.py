# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Raw Reads
---------

Memory as drgn reads it, at addresses that may be garbage. Only
:mod:`~drgn_zonedev.vmcore.reads` tells zeros from what a dump left out.
"""

from __future__ import annotations

from drgn import FaultError, Program

__all__ = ("END", "read_raw")

END = 1 << 64
"""One more than the last address."""


def read_raw(prog: Program, address: int, size: int, physical: bool = False) -> bytes:
    """
    Read memory like :meth:`drgn.Program.read()`, except that what lies beyond the
    end of the address space is memory that cannot be read like any other.

    :raises FaultError: if it cannot be read
    """
    if address < 0 or size < 0 or address + size > END:
        raise FaultError("beyond the end of the address space", address % END)
    try:
        return prog.read(address, size, physical)
    except OSError as e:
        # A dump's headers can lead to where no file has anything.
        raise FaultError(str(e.strerror or e), address) from e
