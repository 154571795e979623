# SPDX-License-Identifier: LGPL-2.1-or-later

"""The one exception of this room."""

from __future__ import annotations

from drgn import BadDataError

__all__ = ("DebugInfoError",)


class DebugInfoError(BadDataError):  # type: ignore[misc]  # drgn's stubs lack it
    """The kernel's own types or symbols are missing, unreadable or damaged; says which."""
