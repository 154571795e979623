# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Arguments
---------

Checks of helpers' arguments, so that a mistake is an exception and not a wrong answer.
"""

from __future__ import annotations

import operator

from drgn import IntegerLike, Object, TypeKind

__all__ = ("require_number", "require_struct")

_INTEGERS = (TypeKind.INT, TypeKind.ENUM, TypeKind.BOOL)


def require_number(value: IntegerLike, name: str = "PFN") -> int:
    """
    Check that an argument is an integer that is not negative, and return it.

    :param name: what the argument is, for the message
    :raises TypeError: if it is not an integer
    :raises ValueError: if it is negative
    """
    if isinstance(value, Object) and value.type_.unaliased_kind() not in _INTEGERS:
        found = value.type_.type_name()
        raise TypeError(f"expected a {name} (an integer), got an object of type {found}")
    try:
        number = operator.index(value)
    except TypeError:
        found = type(value).__name__
        raise TypeError(f"expected a {name} (an integer), got {found}") from None
    if number < 0:
        raise ValueError(f"expected a {name} (0 or more), got {number:#x}")
    return number


def require_struct(value: Object, name: str) -> None:
    """
    Check that an argument is a structure or a pointer to one.

    :param name: type of the structure, as in ``struct dev_pagemap``
    :raises TypeError: if it is anything else
    :raises ValueError: if it is ``NULL``
    """
    if not isinstance(value, Object):
        raise TypeError(f"expected a {name} *, got {type(value).__name__}")
    type_ = value.type_
    is_pointer = type_.unaliased_kind() == TypeKind.POINTER
    found = type_.unaliased().type if is_pointer else type_.unaliased()
    if found.unaliased().unqualified().type_name() != name:
        raise TypeError(f"expected a {name} *, got an object of type {type_.type_name()}")
    if is_pointer and not value:
        raise ValueError(f"expected a {name} *, got NULL")
