# SPDX-License-Identifier: LGPL-2.1-or-later

"""
How results get a text: the room that renders registers a function per type, and
nothing below it imports it.
"""

from __future__ import annotations

import functools
import importlib

__all__ = ("rendered_by", "result_text", "text_of")

_RENDERERS: set[str] = set()


def rendered_by(module: str) -> None:
    """
    Name a module that registers renderers with :func:`result_text`. It is imported
    when something is rendered, not before.
    """
    _RENDERERS.add(module)


def text_of(result: object) -> str:
    """
    Get the text of a result, as its room renders it.

    :raises TypeError: if nothing renders it
    """
    while _RENDERERS:
        importlib.import_module(_RENDERERS.pop())
    return result_text(result)


@functools.singledispatch
def result_text(result: object) -> str:
    """Render what no room renders: nothing."""
    raise TypeError(f"{type(result).__name__} has no text of its own: use repr()")
