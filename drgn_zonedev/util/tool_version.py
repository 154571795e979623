# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which version of this package is installed, for what it writes."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version

__all__ = ("tool_version",)


@functools.cache
def tool_version() -> str:
    """Get the version, or ``unknown`` if the package runs from a directory."""
    try:
        return version("drgn-zonedev")
    except PackageNotFoundError:
        return "unknown"
