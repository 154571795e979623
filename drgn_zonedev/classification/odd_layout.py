# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Odd Layouts
-----------

Checks that the debugging information describes structures that a kernel can have. A damaged vmlinux
can turn a counter into an array, and code that uses it may then raise any exception. This check
tells that from a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import Program, Type, TypeKind, TypeMember

__all__ = ("odd_member", "odd_variable")

_INT = frozenset({TypeKind.INT, TypeKind.ENUM, TypeKind.BOOL})
_POINTER, _STRUCT = frozenset({TypeKind.POINTER}), frozenset({TypeKind.STRUCT})
_ARRAY = frozenset({TypeKind.ARRAY})

# For Linux 5.10 to 7.3; not every release has all of these.
_MEMBERS = {
    "dev_pagemap": (
        (_STRUCT, ("altmap",)),
        # Since Linux kernel commit b80892ca022e ("memremap: remove support for external
        # pgmap refcounts") (in v5.17), ref is in the pgmap.
        (_STRUCT | _POINTER, ("ref",)),
        (_INT, ("type", "flags", "nr_range", "vmemmap_shift")),
        (_POINTER, ("ops", "owner")),
    ),
    "mem_section": ((_INT, ("section_mem_map",)), (_POINTER, ("usage",))),
    "mem_section_usage": ((_ARRAY, ("subsection_map",)),),
    "memory_block": (
        (_INT, ("start_section_nr", "state", "nid", "nr_vmemmap_pages")),
        (_STRUCT, ("dev",)),
        (_POINTER, ("altmap", "zone")),
    ),
    "page": (
        (_INT | _STRUCT, ("flags",)),
        (_STRUCT, ("_refcount",)),
    ),
    "percpu_ref": ((_INT, ("percpu_count_ptr",)), (_POINTER, ("data",))),
    "percpu_ref_data": ((_STRUCT, ("count",)),),
    "pglist_data": (
        (_ARRAY, ("node_zones",)),
        (_INT, ("nr_zones", "node_id", "first_deferred_pfn")),
        (_INT, ("node_start_pfn", "node_spanned_pages", "node_present_pages")),
    ),
    "range": ((_INT, ("start", "end")),),
    "resource": (
        (_INT, ("start", "end", "flags")),
        (_POINTER, ("name", "parent", "sibling", "child")),
    ),
    "vmem_altmap": ((_INT, ("base_pfn", "reserve", "free", "align", "alloc")),),
    "xa_node": ((_INT, ("shift", "offset")), (_POINTER, ("parent", "array")), (_ARRAY, ("slots",))),
    "xarray": ((_POINTER, ("xa_head",)),),
    "zone": (
        (_INT, ("zone_start_pfn", "spanned_pages", "present_pages")),
        (_STRUCT, ("managed_pages",)),
        (_ARRAY, ("free_area",)),
        (_POINTER, ("zone_pgdat", "name")),
    ),
}


_VARIABLES = {
    "bus_kset": "struct kset *",
    "contig_page_data": "struct pglist_data",
    "deferred_pages": "struct static_key_true",
    "devices_kset": "struct kset *",
    "init_mm": "struct mm_struct",
    "iomem_resource": "struct resource",
    "memory_blocks": "struct xarray",
    "node_data": "struct pglist_data * []",
    "pgmap_array": "struct xarray",
    "vmemmap_base": "int",
}


def odd_variable(prog: Program) -> str | None:
    """Get the name of a variable whose type no kernel has."""
    for name, type_ in _VARIABLES.items():
        if name in prog and _described(prog[name].type_) != type_:
            return name
    return None


def _described(type_: Type) -> str:
    # Ignore sizes, qualifiers and typedefs.
    type_ = _unaliased(type_)
    if type_.kind is TypeKind.POINTER:
        return f"{_described(type_.type)} *"
    if type_.kind is TypeKind.ARRAY:
        return f"{_described(type_.type)} []"
    if type_.kind is TypeKind.STRUCT:
        return f"struct {type_.tag}"
    return "int" if type_.kind in _INT else type_.kind.name.lower()


def odd_member(prog: Program) -> str | None:
    """Get the name of a member of a structure whose kind of type no kernel has."""
    return next(_odd_members(prog), None)


def _odd_members(prog: Program) -> Iterator[str]:
    for tag, kinds in _MEMBERS.items():
        try:
            type_ = prog.type(f"struct {tag}")
        except LookupError:
            continue
        members = {member.name: member for member in type_.members or ()}
        for allowed, names in kinds:
            for name in names:
                if name in members and _is_odd(type_, members[name], allowed):
                    yield f"struct {tag}.{name}"


def _unaliased(type_: Type) -> Type:
    while type_.kind is TypeKind.TYPEDEF:
        type_ = type_.type
    return type_


def _is_odd(type_: Type, member: TypeMember, allowed: frozenset[TypeKind]) -> bool:
    kind = _unaliased(member.type)
    of_arrays = kind.kind is TypeKind.ARRAY and _unaliased(kind.type).kind is TypeKind.ARRAY
    return (
        kind.kind not in allowed
        or of_arrays
        or (kind.kind is TypeKind.ARRAY and not kind.length)
        or member.bit_field_size is not None
        or member.bit_offset >= 8 * (type_.size or 0)
    )
