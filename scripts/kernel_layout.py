# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the debugging information of a kernel says of its structures, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drgn import Program, Type, TypeKind

__all__ = ("KERNELS", "layout_of")

# Those that have been booted, and have dumps in vmcores/.
KERNELS = ("5.10", "6.1", "6.12", "7.2", "7.3")

STRUCTS = (
    *("mem_section", "mem_section_usage", "dev_pagemap", "dev_pagemap_ops", "vmem_altmap"),
    *("page", "folio", "percpu_ref", "percpu_ref_data", "percpu_rw_semaphore", "xarray"),
    *("xa_node", "memory_block", "memory_group", "zone", "pglist_data", "range", "resource"),
    *("free_area", "completion"),
)
ENUMS = (
    *("memory_type", "zone_type", "pageflags", "migratetype", "pagetype", "memory_block_state"),
    *("kpage_operation", "node_states", "pageblock_bits", "compound_dtor_id"),
)
# Each brings the anonymous enumeration that it is in.
CONSTANTS = ("SECTION_MARKED_PRESENT_BIT", "__PERCPU_REF_DEAD")
FUNCTIONS = ("pfn_to_online_page", "pgmap_pfn_valid", "vmemmap_populate")

_MEMBERS_OF = (TypeKind.STRUCT, TypeKind.UNION)

# [offset in bits, size in bits, type]
Member = list[Any]


def layout_of(prog: Program, name: str) -> dict[str, Any]:
    """Describe the structures that the plugin reads, in the form of the files of layouts."""
    layout: dict[str, Any] = {"name": name}
    for tag in STRUCTS:
        type_ = _type(prog, f"struct {tag}")
        if type_ is not None and type_.members is not None:
            layout[f"struct {tag}"] = {"size": type_.size, "members": dict(_members(type_))}
    for tag in ENUMS:
        type_ = _type(prog, f"enum {tag}")
        if type_ is not None:
            layout[f"enum {tag}"] = _enumerators(type_)
    for constant in CONSTANTS:
        try:
            layout.update(_enumerators(prog.constant(constant).type_))
        except LookupError:
            continue
    layout["functions"] = [function for function in FUNCTIONS if function in prog]
    return layout


def _type(prog: Program, name: str) -> Type | None:
    try:
        return prog.type(name)
    except LookupError:
        return None


def _enumerators(type_: Type) -> dict[str, int]:
    return {e.name: e.value for e in type_.enumerators or ()}


def _members(type_: Type, prefix: str = "", start: int = 0) -> Iterator[tuple[str, Member]]:
    for member in type_.members or ():
        kind, offset = _plain(member.type), start + member.bit_offset
        is_anonymous = kind.kind in _MEMBERS_OF and kind.tag is None
        if member.name is None or is_anonymous:
            below = prefix if member.name is None else f"{prefix}{member.name}."
            yield from _members(kind, below, offset)
        else:
            size = member.bit_field_size
            size = 8 * _size(member.type) if size is None else size
            yield prefix + member.name, [offset, size, member.type.type_name()]


def _size(type_: Type) -> int:
    type_ = _plain(type_)
    if type_.kind is TypeKind.ARRAY:
        return (type_.length or 0) * _size(type_.type)
    if type_.kind is TypeKind.ENUM and type_.type is not None:
        return _size(type_.type)
    return type_.size or 0


def _plain(type_: Type) -> Type:
    while type_.kind is TypeKind.TYPEDEF:
        type_ = type_.type
    return type_
