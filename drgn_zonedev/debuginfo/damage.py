# SPDX-License-Identifier: LGPL-2.1-or-later

"""The exception of this package, and a check for zeros in place of missing pages."""

from __future__ import annotations

from drgn import BadDataError

__all__ = ("DebugInfoError", "require_contents")

_PAGE = 1 << 12


class DebugInfoError(BadDataError):  # type: ignore[misc]  # drgn's stubs lack it
    """The kernel's own types or symbols are missing, unreadable or damaged; says which."""


def require_contents(data: bytes, address: int, what: str) -> None:
    """
    Refuse data in which a whole page is zeros: pages that a filter left out of an ELF dump read so.

    :param address: The address of the data.
    :param what: What the data is part of, for the message. None of its pages are zeros.
    :raises DebugInfoError: if a page is zeros
    """
    for at in range(-address % _PAGE, len(data) - _PAGE + 1, _PAGE):
        if not any(data[at : at + _PAGE]):
            raise DebugInfoError(f"the dump left out {address + at:#x}, which is in {what}")
