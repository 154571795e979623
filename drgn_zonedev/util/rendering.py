# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A registry of renderers: ``render`` registers a function per type of result, so that rooms
below need not import it.
"""

from __future__ import annotations

import functools
import importlib

__all__ = ("rendered_by", "result_text", "text_of")

_RENDERERS: set[str] = set()


def rendered_by(module: str) -> None:
    """
    Name a module that registers renderers with :func:`result_text`. It is imported
    when the first result is rendered.
    """
    _RENDERERS.add(module)


def text_of(result: object) -> str:
    """
    Render a result as text.

    :raises TypeError: if its type has no renderer
    """
    while _RENDERERS:
        importlib.import_module(_RENDERERS.pop())
    return result_text(result)


@functools.singledispatch
def result_text(result: object) -> str:
    """The renderer of types without one: raise an exception."""
    raise TypeError(f"{type(result).__name__} has no renderer: use repr()")
