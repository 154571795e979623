# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Arguments
---------

What helpers say to arguments that make no sense, before these yield nonsense.
"""

from __future__ import annotations

import operator

from drgn import IntegerLike, Object, TypeKind

__all__ = ("require_number", "require_struct")

_INTEGERS = (TypeKind.INT, TypeKind.ENUM, TypeKind.BOOL)


def require_number(value: IntegerLike, name: str = "PFN") -> int:
    """
    Get a number that is not negative.

    :param name: what it is
    :raises TypeError: if it is no integer
    :raises ValueError: if it is negative
    """
    if isinstance(value, Object) and value.type_.unaliased_kind() not in _INTEGERS:
        raise TypeError(f"a {value.type_.type_name()} is no {name}: give an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"a {type(value).__name__} is no {name}: give an integer") from None
    if number < 0:
        raise ValueError(f"{number:#x} is no {name}: give one that is not negative")
    return number


def require_struct(value: Object, name: str) -> None:
    """
    Refuse what is neither a structure nor a pointer to one.

    :param name: the structure's, as in ``struct dev_pagemap``
    :raises TypeError: if it is anything else
    :raises ValueError: if it is ``NULL``
    """
    if not isinstance(value, Object):
        raise TypeError(f"a {type(value).__name__} is no {name} *")
    type_ = value.type_
    is_pointer = type_.unaliased_kind() == TypeKind.POINTER
    found = type_.unaliased().type if is_pointer else type_.unaliased()
    if found.unaliased().unqualified().type_name() != name:
        raise TypeError(f"a {type_.type_name()} is no {name} *")
    if is_pointer and not value:
        raise ValueError(f"this {name} * is NULL: there is none")
