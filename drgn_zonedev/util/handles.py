# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Handles
-------

Base classes that make plain results useful in a drgn session: a result remembers its
program, prints like the commands, and gets the drgn objects that it is about.

The program is not a field: equal results of different programs compare equal, and pickles
and JSON do not contain it.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from drgn import Object, Program, get_default_prog

from drgn_zonedev.util.rendering import text_of

__all__ = ("OfPage", "OfPgmap", "Result", "bind")

_PROGRAM = "_prog"
R = TypeVar("R", bound="Result")


class Result:
    """A result that a drgn session shows with ``str()``, in the format of the commands."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Only if drgn's REPL is running; do not load it for this.
        cli = sys.modules.get("drgn.cli")
        if cli is not None:
            cli.display_str(cls)

    def __str__(self) -> str:
        return text_of(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _PROGRAM}

    @property
    def prog(self) -> Program:
        """The program that this result is about, or else drgn's default program."""
        prog: Program = self.__dict__.get(_PROGRAM) or get_default_prog()
        return prog


def bind(prog: Program, result: R) -> R:
    """Bind a result to its program."""
    object.__setattr__(result, _PROGRAM, prog)
    return result


class OfPage(Result):
    """A result about a run of PFNs."""

    start_pfn: int

    @property
    def page(self) -> Object:
        """``struct page *`` of the first PFN; it may not be readable."""
        from drgn.helpers.linux.mm import pfn_to_page

        return pfn_to_page(self.prog, self.start_pfn)


class OfPgmap(Result):
    """A result that may concern a pgmap, by its address."""

    pgmap: int | None

    @property
    def pgmap_object(self) -> Object | None:
        """``struct dev_pagemap *``, or ``None`` if no pgmap is concerned."""
        if self.pgmap is None:
            return None
        return Object(self.prog, "struct dev_pagemap *", self.pgmap)
