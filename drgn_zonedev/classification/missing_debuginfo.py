# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Missing Debugging Information
-----------------------------

What to do without a type, a variable or an enumerator that the debugging
information does not have: what needs it is not judged, and it is named once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Callable, TypeVar

from drgn_zonedev.model import Unjudged

__all__ = ("debug_info", "lacking", "optional", "unless_told", "what_lacks")

_T = TypeVar("_T")

# drgn's words; whatever else raises these exceptions is a mistake of ours.
_WORDS = re.compile(
    r"could not find (?:variable |constant |function |type )?'(?P<name>[^']+)'"
    r"|'(?P<type>[^']+)' has no member '(?P<member>[^']+)'"
)

# Who provides it. What is not listed is in every vmlinux that was not stripped.
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
    # A pointer or an array of it.
    return re.sub(r"[ *]*(\[\d*\])*$", "", found["name"].replace("const ", ""))


@contextlib.contextmanager
def debug_info() -> Iterator[None]:
    """
    Have drgn's two ways to say that something is not in the debugging information
    be one: a member whose type is missing is an ``AttributeError``.

    :raises LookupError: for either
    """
    try:
        yield
    except AttributeError as e:
        if _name(e) is None:
            raise
        raise LookupError(str(e)) from e


def what_lacks(e: Exception) -> str:
    """Say what the debugging information lacks, and what would provide it."""
    name = _name(e)
    if name is None:
        return f"the debugging information lacks something: {e}"
    option = _OPTIONS.get(name)
    if option:
        return f"the kernel was built without {option}, or its debugging information lacks {name}"
    return (
        f"the debugging information lacks {name}, which that of the kernel's package has "
        "(Debian: linux-image-...-dbg, Fedora: kernel-debuginfo), if CONFIG_DEBUG_INFO is not "
        "reduced"
    )


def lacking(e: Exception, consequence: str) -> Unjudged:
    """Get what is to be told of something that is lacking, and what does not work without."""
    return Unjudged(0, 0, f"{consequence}: {what_lacks(e)}")


def optional(told: list[Unjudged], consequence: str, default: _T, read: Callable[[], _T]) -> _T:
    """
    Read something that can be done without.

    :param told: what is lacking is added to it
    :param consequence: what does not work without
    """
    try:
        with debug_info():
            return read()
    except LookupError as e:
        if _name(e) is None:
            raise
        told.append(lacking(e, consequence))
        return default


def unless_told(unjudged: Sequence[Unjudged]) -> tuple[Unjudged, ...]:
    """Leave out what names something that was named before."""
    kept: list[Unjudged] = []
    names: set[str] = set()
    for u in unjudged:
        found = re.search(r"debugging information lacks ([\w. ]+\w)", u.reason)
        if u.start_pfn == u.end_pfn and found:
            if found[1] in names:
                continue
            names.add(found[1])
        kept.append(u)
    return tuple(kept)
