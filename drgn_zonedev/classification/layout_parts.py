# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Layout Parts
------------

Finds which parts of a kernel's layout are the same as in a booted kernel. Code for other
layouts was written from the kernel's source, and never compared with a kernel's own answers.

The fingerprint of a part lists its members and enumerators that exist, with their offsets and
values. ``scripts/write-layouts`` writes the fingerprints of booted kernels from their dumps to
``booted_layouts.json``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drgn import Program, Type, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

__all__ = ("PARTS", "LayoutPart", "fingerprint", "layout_parts", "never_booted")

_BOOTED = Path(__file__).with_name("booted_layouts.json")


@dataclass(frozen=True)
class _Part:
    """
    Members of structures, by tag, and enumerators. Sizes and offsets decide only where structs
    lie in arrays or are read as words; where they do not, configurations may differ.
    """

    structs: dict[str, tuple[str, ...]]
    enumerators: tuple[str, ...] = ()
    sized: tuple[str, ...] = ()
    offsets: bool = True


_SECTION_BITS = ("MARKED_PRESENT", "HAS_MEM_MAP", "IS_ONLINE", "IS_EARLY", "TAINT_ZONE_DEVICE")

_PARTS = {
    "sections": _Part(
        {
            "mem_section": ("section_mem_map", "usage"),
            "mem_section_usage": ("subsection_map",),
        },
        (
            *(f"SECTION_{name}_BIT" for name in _SECTION_BITS),
            *("SECTION_IS_VMEMMAP_PREINIT_BIT", "SECTION_MAP_LAST_BIT"),
        ),
        ("mem_section",),
    ),
    "pgmaps": _Part(
        {
            "dev_pagemap": (
                *("altmap", "res", "ref", "internal_ref", "type", "flags", "vmemmap_shift"),
                *("nr_range", "range", "ranges"),
            ),
            "vmem_altmap": ("base_pfn", "end_pfn", "reserve", "free", "align", "alloc"),
            "percpu_ref": ("count", "percpu_count_ptr", "data"),
            "xarray": ("xa_head",),
            "xa_node": ("shift", "slots"),
        },
        (
            *("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT", "MEMORY_DEVICE_FS_DAX"),
            *("MEMORY_DEVICE_DEVDAX", "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_PCI_P2PDMA"),
        ),
    ),
    "memory blocks": _Part(
        {"memory_block": ("start_section_nr", "state", "zone", "altmap", "nr_vmemmap_pages")},
        ("MEM_ONLINE", "MEM_OFFLINE"),
        offsets=False,
    ),
    "struct pages": _Part(
        {
            "page": (
                *("flags", "lru", "pgmap", "compound_head", "compound_info", "compound_order"),
                *("mapping", "_mapcount", "page_type", "_refcount"),
            ),
            "folio": ("pgmap", "_flags_1", "_folio_order"),
        },
        ("PG_reserved", "PG_head", "ZONE_DEVICE", "__MAX_NR_ZONES"),
        ("page", "folio"),
    ),
    "zones": _Part(
        {
            "zone": ("zone_start_pfn", "spanned_pages", "present_pages", "vmemmap_tails"),
            "pglist_data": ("node_zones", "first_deferred_pfn"),
        },
        offsets=False,
    ),
}

PARTS = tuple(_PARTS)
"""The names of all parts."""


@dataclass(frozen=True)
class LayoutPart:
    """A part of a kernel's layout, and the releases of booted kernels that have the same."""

    name: str
    fingerprint: str
    booted: tuple[str, ...]


@takes_program_or_default
def layout_parts(prog: Program) -> tuple[LayoutPart, ...]:
    """Get the parts of a kernel's layout."""
    known = _booted()
    found = {name: fingerprint(prog, name) for name in PARTS}
    return tuple(LayoutPart(n, f, tuple(known[n].get(f, ()))) for n, f in found.items())


@takes_program_or_default
def never_booted(prog: Program) -> tuple[str, ...]:
    """Get the names of the parts whose layout no booted kernel has."""
    return tuple(part.name for part in layout_parts(prog) if not part.booted)


@takes_program_or_default
def fingerprint(prog: Program, part: str) -> str:
    """
    Get the fingerprint of a part.

    :param part: One of :data:`PARTS`.
    """
    text = "\n".join(_facts(prog, _PARTS[part]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _booted() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(_BOOTED.read_text(encoding="utf-8"))
    return {name: found.get(name, {}) for name in PARTS}


def _fact(type_: Type, member: str, part: _Part) -> Iterator[str]:
    try:
        if type_.has_member(member):
            yield f"{type_.tag}.{member} {offsetof(type_, member) if part.offsets else ''}"
    except LookupError:
        # The debugging information does not have the type of a member.
        yield f"{type_.tag}.{member} -"


def _facts(prog: Program, part: _Part) -> Iterator[str]:
    for tag, members in part.structs.items():
        try:
            type_ = prog.type(f"struct {tag}")
        except LookupError:
            yield f"{tag} -"
            continue
        if tag in part.sized:
            yield f"{tag} {sizeof(type_)}"
        for member in members:
            yield from _fact(type_, member, part)
    for name in part.enumerators:
        try:
            yield f"{name} {prog.constant(name).value_()}"
        except LookupError:
            continue
    if part is _PARTS["sections"] and "SECTION_MARKED_PRESENT_BIT" not in prog:
        # Where the flags are macros, this function shows which there are.
        yield f"pfn_to_online_page {'pfn_to_online_page' in prog}"
