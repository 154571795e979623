# SPDX-License-Identifier: LGPL-2.1-or-later

"""The one exception of this room, and zeros that stand for what is missing."""

from __future__ import annotations

from drgn import BadDataError

__all__ = ("DebugInfoError", "require_contents")

_PAGE = 1 << 12


class DebugInfoError(BadDataError):  # type: ignore[misc]  # drgn's stubs lack it
    """The kernel's own types or symbols are missing, unreadable or damaged; says which."""


def require_contents(data: bytes, address: int, what: str) -> None:
    """
    Refuse data in which a whole page is zeros: in ELF dumps, filters leave pages out like that.

    :param address: Of the data.
    :param what: Of which no page is zeros.
    :raises DebugInfoError: if there is one
    """
    for at in range(-address % _PAGE, len(data) - _PAGE + 1, _PAGE):
        if not any(data[at : at + _PAGE]):
            raise DebugInfoError(f"the dump left out {address + at:#x}, which is in {what}")
