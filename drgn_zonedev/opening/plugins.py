# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which plugins drgn loads when the command line opens a program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ("without_repl_plugins",)

_VARIABLE = "DRGN_DISABLE_PLUGINS"

# What drgn itself brings along for its REPL.
_REPL_PLUGINS = ("builtin_commands", "crash_commands")


@contextlib.contextmanager
def without_repl_plugins() -> Iterator[None]:
    """
    Have drgn load no commands of its REPL with the first program. All other plugins are
    loaded: they may find debugging symbols.
    """
    before = os.environ.get(_VARIABLE)
    # drgn compares "*" with the whole value.
    if before != "*":
        os.environ[_VARIABLE] = ",".join((*_REPL_PLUGINS, *filter(None, [before])))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
