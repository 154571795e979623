# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Reading
-------

The ``drgn_zonedev.kernel.reading`` module reads memory at addresses that may be
garbage.
"""

from __future__ import annotations

from drgn import FaultError, IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.dump import left_out

__all__ = ("first_unreadable", "read_memory")

_END = 1 << 64
# Nothing is mapped, or filtered, by less.
_SMALLEST_PAGE = 4096


@takes_program_or_default
def read_memory(
    prog: Program, address: IntegerLike, size: IntegerLike, physical: bool = False
) -> bytes:
    """
    Read memory like :meth:`drgn.Program.read()`, except that what lies beyond the
    end of the address space is memory that cannot be read like any other.

    :raises FaultError: if it cannot be read
    """
    address, size = int(address), int(size)
    if address < 0 or size < 0 or address + size > _END:
        raise FaultError("beyond the end of the address space", address % _END)
    try:
        return prog.read(address, size, physical)
    except OSError as e:
        # A dump's headers can lead to where no file has anything.
        raise FaultError(str(e.strerror or e), address) from e


@takes_program_or_default
def first_unreadable(prog: Program, address: IntegerLike, size: IntegerLike) -> int | None:
    """
    Get the first address of some virtual memory that cannot be read; ``None`` if all of
    it can.

    :attr:`drgn.FaultError.address` does not tell: it may be a physical address.
    """
    at, end = int(address), int(address) + int(size)
    while at < end:
        stop = min((at // _SMALLEST_PAGE + 1) * _SMALLEST_PAGE, end)
        try:
            read_memory(prog, at, stop - at)
        except FaultError as e:
            return e.address if at <= e.address < stop else at
        if left_out(prog, at):
            return at
        at = stop
    return None
