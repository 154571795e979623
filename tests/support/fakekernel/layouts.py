# SPDX-License-Identifier: LGPL-2.1-or-later
"""
C layouts of the kernels that the fake kernel can pretend to be.

A file of the directory layouts/ is a kernel. Those in booted/ are what scripts/write-layouts
reads in the DWARF of the kernels that the lab boots; the others are published types of
kernels that nobody here boots, and hand/ has what was put together by reading. A file has
types only, so the macros that it needs are here.

ZONEDEV_LAYOUTS names a directory of more files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layoutfile import Layout, Macros, Member, Struct, load_layout

__all__ = (
    "LAYOUTS",
    "LAYOUT_FILES",
    "TABLES",
    "VARIANTS",
    "Layout",
    "Macros",
    "Member",
    "Struct",
    "with_page_size",
)

LAYOUTS = ("5.10", "6.1", "6.12", "7.2")
# Besides these, "6.12-proposal" and "7.3-proposal" are as lab/patches/ changes these kernels, and
# "6.1-no-zone-device" is 6.1 without CONFIG_ZONE_DEVICE, as Debian built it for arm64.

_FILES = Path(__file__).parent / "layouts"


def _files() -> dict[str, Path]:
    more = os.environ.get("ZONEDEV_LAYOUTS")
    directories = [_FILES, _FILES / "booted", _FILES / "hand", *([Path(more)] if more else [])]
    return {
        path.stem: path for directory in directories for path in sorted(directory.glob("*.json"))
    }


LAYOUT_FILES = _files()

_RISCV64: dict[str, Any] = {"architecture": "RISCV64", "max_physmem_bits": 56}
_LOONGARCH64: dict[str, Any] = {
    "architecture": "LOONGARCH64",
    "page_shift": 14,
    "section_size_bits": 29,
    "pageblock_order": 11,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "arm64-16k": ("arm64-5.16", {"page_shift": 14, "pageblock_order": 11}),
    "arm64-64k": ("arm64-5.16", {"page_shift": 16, "section_size_bits": 29, "pageblock_order": 13}),
    "ppc64-4k": ("ppc64-6.14", {"page_shift": 12, "pageblock_order": 9}),
    # The structures of memory hotplug are those of arm64.
    "riscv64": ("arm64-5.16", _RISCV64),
    "loongarch64-devices": ("arm64-5.16", _LOONGARCH64),
}
"""Kernels built for pages of another size, or another machine: whose types, and the macros."""


def _proposal(layout: Layout) -> Layout:
    bitmaps = ("subsection_map", "subsection_dev_map", "subsection_init_map")
    members = {"rcu": Member("struct callback_head", 0)}
    members |= {name: Member("unsigned long [1]", 16 + 8 * i) for i, name in enumerate(bitmaps)}
    members["pageblock_flags"] = Member("unsigned long [0]", 40)
    usage = Struct(40, False, members)
    structs = {**layout.structs, "mem_section_usage": usage}
    return dataclasses.replace(layout, name=f"{layout.name}-proposal", structs=structs)


def _without_zone_device(layout: Layout) -> Layout:
    bits, zones = dict(layout.enums["-section_bits"]), dict(layout.enums["zone_type"])
    del bits["SECTION_TAINT_ZONE_DEVICE_BIT"], zones["ZONE_DEVICE"]
    bits["SECTION_MAP_LAST_BIT"] -= 1
    zones["__MAX_NR_ZONES"] -= 1
    node = layout.structs["pglist_data"]
    number = f"struct zone [{zones['__MAX_NR_ZONES']}]"
    members = {**node.members, "node_zones": Member(number, node.members["node_zones"].offset)}
    return dataclasses.replace(
        layout,
        name=f"{layout.name}-no-zone-device",
        enums={**layout.enums, "-section_bits": bits, "zone_type": zones},
        structs={**layout.structs, "pglist_data": dataclasses.replace(node, members=members)},
    )


def _with_memory_failure(layout: Layout) -> Layout:
    """As another flavour of Debian is built: the one for clouds has no CONFIG_MEMORY_FAILURE."""
    flags = dict(layout.enums["pageflags"])
    if "PG_hwpoison" in flags:
        return layout
    # Flags behind it move up.
    bit = flags["PG_uncached"] + 1
    moved = {name: n + (n >= bit) for name, n in flags.items()}
    more = {"PG_hwpoison": bit}
    if "PG_anon_exclusive" in flags:
        # Since v5.16.
        more["PG_has_hwpoisoned"] = flags["PG_error"]
    return dataclasses.replace(layout, enums={**layout.enums, "pageflags": moved | more})


# What boots the lab's kernels has no use for it; the enumerators are those of Debian's.
_HUGETLB_FLAGS = {
    "HPG_restore_reserve": 0,
    "HPG_migratable": 1,
    "HPG_temporary": 2,
    "HPG_freed": 3,
    "HPG_vmemmap_optimized": 4,
}


def _with_hugetlb(layout: Layout) -> Layout:
    """As its debugging information is with enum hugetlb_page_flags, which layouts leave out."""
    if layout.name == "5.10" or "hugetlb_page_flags" in layout.enums:
        return layout
    enums = {**layout.enums, "hugetlb_page_flags": _HUGETLB_FLAGS}
    return dataclasses.replace(layout, enums=enums)


def _load() -> Mapping[str, Layout]:
    tables = {name: load_layout(path) for name, path in LAYOUT_FILES.items()}
    for name in (*LAYOUTS, "7.3"):
        booted = dataclasses.replace(tables[f"x86-64-{name}"], name=name)
        tables[name] = _with_hugetlb(_with_memory_failure(booted))
    for name in ("6.12", "7.3"):
        tables[f"{name}-proposal"] = _proposal(tables[name])
    tables["6.1-no-zone-device"] = _without_zone_device(tables["6.1"])
    for name, (of, macros) in VARIANTS.items():
        tables[name] = _variant(tables[of], name, macros)
    return tables


def _variant(layout: Layout, name: str, macros: Mapping[str, Any]) -> Layout:
    changed = dataclasses.replace(layout.macros, **macros)
    words = -(-changed.subsections_per_section // 64)
    usage = layout.structs["mem_section_usage"]
    members = dict(usage.members)
    bitmap, flags = members["subsection_map"], members["pageblock_flags"]
    members["subsection_map"] = Member(f"unsigned long [{words}]", bitmap.offset)
    end = bitmap.offset + 8 * words
    members["pageblock_flags"] = Member(flags.type, end)
    structs = {**layout.structs, "mem_section_usage": Struct(end, usage.anonymous, members)}
    return dataclasses.replace(layout, name=name, macros=changed, structs=structs)


TABLES = _load()


def with_page_size(layout: Layout, size: int) -> Layout:
    """
    The same kernel with more words at the end of struct page; with 56 bytes, it has no
    ``memcg_data``.
    """
    structs = dict(layout.structs)
    for name in ("page", "folio"):
        if name not in structs:
            continue
        before, old = structs[name], layout.structs["page"].size
        members = {
            key: Member(member.type, member.offset // old * size + member.offset % old)
            for key, member in before.members.items()
            if member.offset % old < size
        }
        structs[name] = Struct(-(-before.size // old) * size, before.anonymous, members)
    return dataclasses.replace(layout, structs=structs)
