# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Missing Debugging Information
-----------------------------

Handles types, variables and enumerators that are missing in the debugging information:
checks that need one are reported as not judged, once for each missing name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, Generic, TypeVar

from drgn_zonedev.model import Unjudged

__all__ = ("Attempt", "debug_info", "named_once", "optional", "what_is_missing")

_T = TypeVar("_T")

# drgn's messages for missing names. With any other message, the exception is a bug of ours.
_WORDS = re.compile(
    r"could not find (?:variable |constant |function |type )?'(?P<name>[^']+)'"
    r"|'(?P<type>[^']+)' has no member '(?P<member>[^']+)'"
)

# Names that exist only with a kernel option. A vmlinux that is not stripped has all others.
_OPTIONS = {
    "pgmap_array": "CONFIG_ZONE_DEVICE",
    "struct dev_pagemap": "CONFIG_ZONE_DEVICE",
    "ZONE_DEVICE": "CONFIG_ZONE_DEVICE",
    "enum memory_type": "CONFIG_ZONE_DEVICE",
    "mem_section": "CONFIG_SPARSEMEM",
    "SECTION_SIZE_BITS": "CONFIG_SPARSEMEM",
    "SECTIONS_PER_ROOT": "CONFIG_SPARSEMEM",
    "NR_SECTION_ROOTS": "CONFIG_SPARSEMEM",
    "struct mem_section": "CONFIG_SPARSEMEM",
    "struct mem_section_usage": "CONFIG_SPARSEMEM",
    "mem_map": "CONFIG_SPARSEMEM_VMEMMAP",
    "memory_blocks": "CONFIG_MEMORY_HOTPLUG",
    "sections_per_block": "CONFIG_MEMORY_HOTPLUG",
    "struct memory_block": "CONFIG_MEMORY_HOTPLUG",
}


def _name(e: Exception) -> str | None:
    found = _WORDS.search(str(e))
    if found is None:
        return None
    if found["member"]:
        return f"{found['type']}.{found['member']}"
    # Remove pointers and arrays.
    return re.sub(r"[ *]*(\[\d*\])*$", "", found["name"].replace("const ", ""))


@contextlib.contextmanager
def debug_info() -> Iterator[None]:
    """
    Unify drgn's two exceptions for missing debugging information: also turn the
    ``AttributeError`` for a member whose type is missing into a :exc:`LookupError`.

    :raises LookupError: for both
    """
    try:
        yield
    except AttributeError as e:
        if _name(e) is None:
            raise
        raise LookupError(str(e)) from e


def what_is_missing(e: Exception) -> str:
    """Say what is missing in the debugging information, and how to get it."""
    name = _name(e)
    if name is None:
        return f"the debugging information is incomplete: {e}"
    option = _OPTIONS.get(name)
    if option:
        return (
            f"the kernel was built without {option}, or its debugging information does not have "
            f"{name}"
        )
    return (
        f"the debugging information does not have {name}, which the kernel's debugging package has "
        "(Debian: linux-image-...-dbg, Fedora: kernel-debuginfo), if CONFIG_DEBUG_INFO is not "
        "reduced"
    )


@dataclass(frozen=True)
class Attempt(Generic[_T]):
    """
    The result of reading something optional. If it was missing, ``value`` is a substitute,
    and ``unjudged`` says what was missing.
    """

    value: _T
    unjudged: tuple[Unjudged, ...] = ()


def optional(consequence: str, substitute: _T, read: Callable[[], _T]) -> Attempt[_T]:
    """
    Read something optional.

    :param consequence: What cannot be judged without it.
    :raises LookupError: if *read* raises it for anything but missing debugging information
    """
    try:
        with debug_info():
            return Attempt(read())
    except LookupError as e:
        name = _name(e)
        if name is None:
            raise
        reason = f"{consequence}: {what_is_missing(e)}"
        return Attempt(substitute, (Unjudged(0, 0, reason, missing=name),))


def named_once(unjudged: Sequence[Unjudged]) -> tuple[Unjudged, ...]:
    """Keep only the first report of each missing name."""
    kept: list[Unjudged] = []
    names: set[str] = set()
    for u in unjudged:
        if u.missing is None or u.missing not in names:
            kept.append(u)
        if u.missing is not None:
            names.add(u.missing)
    return tuple(kept)
