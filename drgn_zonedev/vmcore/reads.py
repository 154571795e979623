# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Reading
-------

The ``drgn_zonedev.vmcore.reads`` module reads memory at addresses that may be
garbage, from dumps that may have left it out.

What an ELF dump left out reads as zeros in drgn. A memory segment that faults for each
hole would have drgn's helpers fault, too, but drgn cannot remove a segment from a user's
program again, and a million holes take 0.4 s and 120 MiB. So zeros are looked up
here, when they are read.
"""

from __future__ import annotations

from drgn import NULL, FaultError, IntegerLike, Object, Program, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.vmcore.absence import refuse_what_is_left_out
from drgn_zonedev.vmcore.left_out import leaves_something_out
from drgn_zonedev.vmcore.raw import END, read_raw

__all__ = (
    "SMALLEST_PAGE",
    "first_unreadable",
    "need_object",
    "null_pointer",
    "read_memory",
    "read_object",
    "read_word",
)

# Nothing is mapped, or filtered, by less.
SMALLEST_PAGE = 4096


@takes_program_or_default
def read_memory(
    prog: Program, address: IntegerLike, size: IntegerLike, physical: bool = False
) -> bytes:
    """
    Read memory like :meth:`drgn.Program.read()`, but fault beyond the end of the address
    space, and where an ELF dump left out memory, for which drgn returns zeros.

    :raises FaultError: if it cannot be read
    """
    address = int(address)
    raw = read_raw(prog, address, int(size), physical)
    if leaves_something_out(prog):
        refuse_what_is_left_out(prog, address, raw, physical)
    return raw


def read_word(prog: Program, address: int) -> int:
    """
    Read a pointer of a 64-bit kernel.

    :raises FaultError: if it cannot be read
    """
    return int.from_bytes(read_memory(prog, address, 8), "little")


@takes_program_or_default
def first_unreadable(prog: Program, address: IntegerLike, size: IntegerLike) -> int | None:
    """
    Get the first address of some virtual memory that cannot be read; ``None`` if all of
    it can.

    :attr:`drgn.FaultError.address` may be a physical address instead.
    """
    at, end = int(address), int(address) + int(size)
    while at < end:
        stop = min((at // SMALLEST_PAGE + 1) * SMALLEST_PAGE, end)
        try:
            read_memory(prog, at, stop - at)
        except FaultError as e:
            # Behind the last address is the first one, as for the kernel.
            return (e.address if at <= e.address < stop else at) % END
        at = stop
    return None


def need_object(obj: Object) -> None:
    """
    Refuse an object that an ELF dump left out, as a whole or in part: drgn would read zeros.

    :param obj: Reference object; anything that has no address is fine.
    :raises FaultError: if any of it was left out
    """
    if obj.address_ is not None and leaves_something_out(obj.prog_):
        read_memory(obj.prog_, obj.address_, sizeof(obj))


def read_object(obj: Object) -> Object:
    """
    Read all of an object at once, like :meth:`drgn.Object.read_()`, but see
    :func:`read_memory()`.

    :param obj: Reference object.
    :raises FaultError: if any of it cannot be read
    """
    assert obj.address_ is not None
    raw = read_memory(obj.prog_, obj.address_, sizeof(obj))
    return Object.from_bytes_(obj.prog_, obj.type_, raw)


def null_pointer(prog: Program, type_name: str) -> Object:
    """
    Get ``NULL`` of a type, or a ``void *`` if the kernel at hand does not have it.

    :param type_name: Of the pointer.
    """
    try:
        return NULL(prog, type_name)
    except LookupError:
        return NULL(prog, "void *")
