# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Handles
-------

What makes plain results objects to go on with in a drgn session: they remember the
program that they are about, they print as the commands do, and they lead to drgn
objects.

The program is no field: results that say the same are equal, wherever they come
from, and what is pickled or written as JSON does not hold it.
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
    """Something that a drgn session shows with ``str()``, as the commands print it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Without drgn's REPL there is nothing to register with, and no reason to load it.
        cli = sys.modules.get("drgn.cli")
        if cli is not None:
            cli.display_str(cls)

    def __str__(self) -> str:
        return text_of(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _PROGRAM}

    @property
    def prog(self) -> Program:
        """The program that this is about; drgn's default program if nobody said."""
        prog: Program = self.__dict__.get(_PROGRAM) or get_default_prog()
        return prog


def bind(prog: Program, result: R) -> R:
    """Make a result remember its program."""
    object.__setattr__(result, _PROGRAM, prog)
    return result


class OfPage(Result):
    """A result about a run of PFNs."""

    start_pfn: int

    @property
    def page(self) -> Object:
        """``struct page *`` of the first PFN, whether it can be read or not."""
        from drgn.helpers.linux.mm import pfn_to_page

        return pfn_to_page(self.prog, self.start_pfn)


class OfPgmap(Result):
    """A result that a pgmap can have to do with, by its address."""

    pgmap: int | None

    @property
    def pgmap_object(self) -> Object | None:
        """``struct dev_pagemap *``, or ``None`` if no pgmap is concerned."""
        if self.pgmap is None:
            return None
        return Object(self.prog, "struct dev_pagemap *", self.pgmap)
