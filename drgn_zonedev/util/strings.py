# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Strings
-------

The ``drgn_zonedev.util.strings`` module reads untrusted strings. In a damaged or hostile
dump, a name can be a gigabyte long, or contain control sequences of a terminal.
"""

from __future__ import annotations

import operator

from drgn import FaultError, IntegerLike, Object, Program, TypeKind
from drgn.helpers.common.prog import takes_program_or_default

__all__ = ("c_string", "printable", "string_at", "string_or")

# Names of devices, resources, symbols and caches are shorter; KSYM_NAME_LEN is 512.
_MAX_LENGTH = 512


def printable(text: str) -> str:
    """
    Escape everything in a text that could deceive a terminal or its user: control
    characters, line breaks, invisible characters, and characters that change the direction
    of writing. Bytes that are not UTF-8 become ``\\xNN``. Escaping twice changes nothing more.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    # Of a path that is not UTF-8, os.fsdecode() makes surrogates.
    if "\udc80" <= c <= "\udcff":
        return rf"\x{ord(c) & 0xFF:02x}"
    return c.encode("unicode_escape").decode()


@takes_program_or_default
def string_at(prog: Program, address: IntegerLike) -> str:
    """
    Read a string, at most as long as a name can be, and make it :func:`printable()`.

    :param address: ``char *``
    :raises FaultError: if it cannot be read
    """
    address = operator.index(address)
    if not 0 <= address < 1 << 64:
        # An offset was added to a garbage pointer.
        raise FaultError("beyond the end of the address space", address % (1 << 64))
    type_ = prog.array_type(prog.int_type("char", 1, True), _MAX_LENGTH)
    return c_string(Object(prog, type_, address=address))


def c_string(string: Object) -> str:
    """
    Like :func:`string_at()`, for an object.

    :param string: ``char *`` or ``char []``
    :return: The empty string for ``NULL``.
    :raises FaultError: if it cannot be read
    """
    if string.type_.unaliased_kind() == TypeKind.POINTER:
        address = string.value_()
        return string_at(string.prog_, address) if address else ""
    return printable(string.string_()[:_MAX_LENGTH].decode(errors="backslashreplace"))


def string_or(string: Object, fallback: str) -> str:
    """Like :func:`c_string()`, but return *fallback* if the string cannot be read."""
    try:
        return c_string(string)
    except FaultError:
        return fallback
