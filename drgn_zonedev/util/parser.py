# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Parser
------

:class:`argparse.ArgumentParser` lets the last of several values of an option win. That is right for
one that overrides a default, but with two dumps, or two ranges of PFNs, one is silently ignored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

__all__ = ("CommandParser",)


class _StoreOnce(argparse.Action):
    """Stores a value. Without a default to override, a second, other one is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if self.default is None and before not in (None, values):
            raise argparse.ArgumentError(self, "it is given more than once: give one of them")
        setattr(namespace, self.dest, values)


class CommandParser(argparse.ArgumentParser):
    """A parser that refuses to ignore a value that was given; its subparsers do the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # For add_argument() without an action.
        self.register("action", None, _StoreOnce)
