# SPDX-License-Identifier: LGPL-2.1-or-later

"""What does not change in a program is worked out once, and kept in the program's cache."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from drgn import Program

__all__ = ("once_per_program",)

# The type of the function as it is: takes_program_or_default() looks at the name of its parameter.
_F = TypeVar("_F", bound=Callable[[Program], Any])


def once_per_program(function: _F) -> _F:
    """Keep the result of a function in :attr:`drgn.Program.cache`. What it raises is not kept."""
    key = f"{function.__module__}.{function.__name__}"

    @functools.wraps(function)
    def kept(prog: Program) -> Any:
        cache = prog.cache
        if key not in cache:
            cache[key] = function(prog)
        return cache[key]

    return cast(_F, kept)
