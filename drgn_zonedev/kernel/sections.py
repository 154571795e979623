# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sections in Bulk
----------------

The ``drgn_zonedev.kernel.sections`` module reads all sections at once, as numpy
arrays: a machine can have half a million of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import FaultError, Program, Type, TypeKind, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.mmzone import Geometry, SectionFlags, section_flags, sparsemem_geometry
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.vmcore.reads import SMALLEST_PAGE, first_unreadable, read_memory

__all__ = ("Sections", "common_mem_map", "section_mem_map", "sections")

# A section has holes at the ends of RAM and of devices; the largest machines have some
# thousand of them. In a damaged kernel, half a million sections can have a hundred holes
# each.
_MAX_CHANGES = 1 << 13

# 64 TiB have half as many roots. With 52 bits of physical address, a damaged kernel can have
# 131,072 invalid ones.
_MAX_UNREADABLE = 1 << 12


@dataclass(frozen=True, repr=False)
class Sections:
    """
    All present sections at once; row ``i`` of each array is one section.

    ``subsection_map`` is a matrix of 64-bit words: bit ``b`` of a section is
    bit ``b % 64`` of word ``b // 64``. Rows where ``usage_readable`` is false
    are meaningless. ``unreadable`` lists spans of section numbers whose ``struct
    mem_section`` could not be read, each with the address that could not be read or, if
    the pointer to it is invalid, the address of that pointer. ``crowded`` marks rows whose
    bitmaps were readable, but are ignored: together, they change more often than those of
    any machine.
    """

    geometry: Geometry
    nr: np.ndarray
    address: np.ndarray
    word: np.ndarray
    usage: np.ndarray
    usage_readable: np.ndarray
    subsection_map: np.ndarray
    unreadable: tuple[tuple[int, int, int], ...]
    crowded: np.ndarray

    def __len__(self) -> int:
        return len(self.nr)

    def __repr__(self) -> str:
        numbers = f", {self.nr[0]} to {self.nr[-1]}" if len(self) else ""
        gaps = f", {len(self.unreadable)} spans not readable" if self.unreadable else ""
        return f"<Sections: {len(self)} present{numbers}{gaps}>"

    def find(self, nr: int) -> int | None:
        """Get the row of a section by its number; ``None`` if it is not present."""
        row = int(np.searchsorted(self.nr, nr))
        return row if row < len(self) and int(self.nr[row]) == nr else None

    def rows(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        """Get the rows of the sections that ``[start_pfn, end_pfn)`` touches."""
        pages = self.geometry.pages_per_section
        first = np.searchsorted(self.nr, start_pfn // pages)
        last = np.searchsorted(self.nr, (end_pfn - 1) // pages, side="right")
        return np.arange(first, last)

    def row_of(self, pfn: np.ndarray) -> np.ndarray:
        """Get the row of each PFN's section, or -1 if it is not present."""
        nr = pfn // self.geometry.pages_per_section
        if not len(self):
            return np.full(len(nr), -1)
        row = np.minimum(np.searchsorted(self.nr, nr), len(self) - 1)
        return np.where(self.nr[row] == nr, row, -1)

    def test_bit(self, bitmap: np.ndarray, row: np.ndarray, pfn: np.ndarray) -> np.ndarray:
        """
        ``test_bit(subsection_map_index(pfn), bitmap)`` for each PFN.

        :param bitmap: Like ``subsection_map``.
        :param row: The result of :meth:`row_of` the PFNs; the bit is false where that is -1.
        """
        if not len(self):
            return np.zeros(len(pfn), bool)
        bit = self.geometry.subsection_map_index(pfn)
        words = bitmap[row, bit // 64] >> (bit % 64).astype(np.uint64)
        return (words & np.uint64(1)).astype(bool) & (row >= 0)

    def unpacked(self, bitmap: np.ndarray) -> np.ndarray:
        """Get rows of a bitmap like ``subsection_map`` as booleans, a column per subsection."""
        raw = np.ascontiguousarray(bitmap).astype("<u8").view(np.uint8)
        raw = raw.reshape(len(bitmap), 8 * bitmap.shape[1])
        bits: np.ndarray = np.unpackbits(raw, axis=1, bitorder="little")
        return bits[:, : self.geometry.subsections_per_section].astype(bool)

    @cached_property
    def mixed(self) -> np.ndarray:
        """Which sections are only partly populated."""
        maps, bits = self.subsection_map, min(self.geometry.subsections_per_section, 64)
        inside: np.ndarray = ((maps != 0) & (maps != np.uint64((1 << bits) - 1))).any(axis=1)
        return inside | (maps != maps[:, :1]).any(axis=1)


@takes_program_or_default
def sections(prog: Program) -> Sections:
    """
    Read all present sections.

    Each root of the section array takes one read, and so do usages that lie together. So
    this takes milliseconds where an object per section takes seconds.

    :raises LookupError: if the kernel was not built with ``CONFIG_SPARSEMEM``
    """
    flags = section_flags(prog)
    section_type = prog.type("struct mem_section")
    word_at = offsetof(section_type, "section_mem_map") // 8
    parts, unreadable = _present_sections(prog, section_type, word_at, flags)
    width = sizeof(section_type) // 8
    nr = np.concatenate([np.empty(0, np.int64), *(part.nr for part in parts)])
    addresses = np.concatenate([np.empty(0, np.uint64), *(part.address for part in parts)])
    rows = np.concatenate([np.empty((0, width), np.uint64), *(part.words for part in parts)])
    usage = _usage_pointers(section_type, rows)
    bitmaps, readable = _subsection_maps(prog, usage)
    if not section_type.has_member("usage"):
        # Every kernel has this member: a pointer that is not known is not NULL.
        readable = np.zeros(len(usage), bool)
    found = Sections(
        geometry=sparsemem_geometry(prog),
        nr=nr,
        address=addresses,
        word=rows[:, word_at].copy(),
        usage=usage,
        usage_readable=readable,
        subsection_map=bitmaps,
        unreadable=_together(unreadable),
        crowded=np.zeros(len(nr), bool),
    )
    base = common_mem_map(found, flags)
    if base is not None:
        prog.cache["zonedev_mem_map"] = base
    return _without_crowded(found)


@dataclass(frozen=True)
class _MemSections:
    """Each row is a ``struct mem_section``: its number, its address and its words."""

    nr: np.ndarray
    address: np.ndarray
    words: np.ndarray


def _present_sections(
    prog: Program, section_type: Type, word_at: int, flags: SectionFlags
) -> tuple[list[_MemSections], list[tuple[int, int, int]]]:
    # Those of each root, and the spans of section numbers whose root cannot be read, each with
    # an address.
    size = sizeof(section_type)
    found, unreadable, seen = [], [], set()
    for first_nr, count, place, address in _section_roots(prog):
        try:
            # Each root is a separate allocation, so a pointer that comes twice is invalid.
            if address is None or address in seen:
                raise FaultError("invalid pointer to a root of the section array", place)
            seen.add(address)
            raw = read_memory(prog, address, count * size)
        except FaultError:
            bad = address and first_unreadable(prog, address, count * size)
            unreadable.append((first_nr, first_nr + count, bad or place))
            continue
        words = np.frombuffer(raw, "<u8").reshape(count, -1)
        slots = np.flatnonzero(words[:, word_at] & np.uint64(flags.present))
        where = np.uint64(address) + slots.astype(np.uint64) * np.uint64(size)
        found.append(_MemSections(slots + first_nr, where, words[slots]))
    return found, unreadable


@takes_program_or_default
def section_mem_map(prog: Program) -> int | None:
    """
    Get the :func:`common_mem_map()` of a program. It does not change, so the sections are only
    read if they were not read before.
    """
    if "zonedev_mem_map" not in prog.cache:
        sections(prog)
    return prog.cache.get("zonedev_mem_map")


def _without_crowded(found: Sections) -> Sections:
    # All later code takes time and memory for each change.
    rows = np.flatnonzero(found.mixed)
    bits = found.unpacked(found.subsection_map[rows])
    changes = (bits[:, 1:] != bits[:, :-1]).sum(axis=1)
    if changes.sum() <= _MAX_CHANGES:
        return found
    order = np.argsort(changes, kind="stable")
    crowded = np.zeros(len(found), bool)
    crowded[rows[order[np.cumsum(changes[order]) > _MAX_CHANGES]]] = True
    return dataclasses.replace(
        found,
        crowded=crowded,
        usage_readable=found.usage_readable & ~crowded,
        subsection_map=np.where(crowded[:, None], np.uint64(0), found.subsection_map),
    )


def _together(unreadable: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    # One span for neighbours that need the same page, and if there are too many, for neighbours.
    crowded = len(unreadable) > _MAX_UNREADABLE
    spans: list[tuple[int, int, int]] = []
    page = None
    for first, end, address in unreadable:
        if spans and spans[-1][1] == first and (crowded or address // SMALLEST_PAGE == page):
            spans[-1] = (spans[-1][0], end, spans[-1][2])
        else:
            spans.append((first, end, address))
        page = address // SMALLEST_PAGE
    return tuple(spans)


def _section_roots(prog: Program) -> Iterator[tuple[int, int, int, int | None]]:
    # Yields (first section number, number of sections, address of the pointer to the root,
    # the pointer or None if it cannot be read).
    per_root = prog["SECTIONS_PER_ROOT"].value_()
    count = prog["__highest_present_section_nr"].value_() + 1
    nr_roots = min(-(-count // per_root), prog["NR_SECTION_ROOTS"].value_())
    mem_section = prog["mem_section"]
    if mem_section.type_.unaliased_kind() != TypeKind.POINTER:
        # CONFIG_SPARSEMEM_STATIC: one array of arrays.
        address = mem_section.address_of_().value_()
        yield 0, nr_roots * per_root, address, address
        return
    base = mem_section.value_()
    if not base:
        return
    places = np.uint64(base) + np.arange(nr_roots, dtype=np.uint64) * np.uint64(8)
    roots, readable = _read_roots(prog, places)
    for root in np.flatnonzero((roots != 0) | ~readable).tolist():
        address = int(roots[root]) if readable[root] else None
        yield root * per_root, per_root, int(places[root]), address


def _read_roots(prog: Program, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # The pointers, and which of them could be read. A dump leaves out pages, and an export what is
    # after the last root: so only one page is looked at pointer by pointer.
    roots, readable = np.zeros(len(places), np.uint64), np.zeros(len(places), bool)
    edges = np.flatnonzero(np.diff(places // np.uint64(SMALLEST_PAGE))) + 1
    may_be_partial = True
    for rows in np.split(np.arange(len(places)), edges) if len(places) else []:
        try:
            raw = read_memory(prog, int(places[rows[0]]), 8 * len(rows))
        except FaultError:
            if may_be_partial:
                records, readable[rows] = read_records(prog, places[rows], 8)
                roots[rows] = records.view("<u8")[:, 0]
            may_be_partial = False
            continue
        roots[rows], readable[rows] = np.frombuffer(raw, "<u8"), True
    return roots, readable


def _usage_pointers(section_type: Type, rows: np.ndarray) -> np.ndarray:
    try:
        offset = offsetof(section_type, "usage")
    except LookupError:
        return np.zeros(len(rows), np.uint64)
    return rows[:, offset // 8].copy()


def common_mem_map(found: Sections, flags: SectionFlags) -> int | None:
    """
    Get the ``section_mem_map`` without its flags that most sections have. With
    ``CONFIG_SPARSEMEM_VMEMMAP``, all sections have the same value, ``vmemmap``, because
    ``sparse_encode_mem_map()`` subtracts the section's first PFN.

    :return: ``None`` if no value is that of more than half of the sections.
    """
    words = found.word[(found.word & np.uint64(flags.has_mem_map)) != 0]
    bases = words & np.uint64(flags.map_mask)
    if not len(bases):
        return None
    # The usual case, and much faster.
    if (bases == bases[0]).all():
        return int(bases[0])
    values, counts = np.unique(bases, return_counts=True)
    most = counts.argmax()
    return int(values[most]) if 2 * counts[most] > len(bases) else None


def _subsection_maps(prog: Program, usage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # struct mem_section_usage::subsection_map only exists with
    # CONFIG_SPARSEMEM_VMEMMAP; without it a section is valid as a whole.
    words = -(-sparsemem_geometry(prog).subsections_per_section // 64)
    try:
        usage_type = prog.type("struct mem_section_usage")
    except LookupError:
        # Every kernel has this type, so the debugging information is incomplete.
        return np.zeros((len(usage), words), np.uint64), np.zeros(len(usage), bool)
    try:
        offset = offsetof(usage_type, "subsection_map")
    except LookupError:
        if "vmemmap_populate" in prog:
            # drgn, too, takes this function as the sign of CONFIG_SPARSEMEM_VMEMMAP.
            return np.zeros((len(usage), words), np.uint64), np.zeros(len(usage), bool)
        full = np.full((len(usage), words), np.iinfo(np.uint64).max)
        return full, np.ones(len(usage), bool)
    bitmaps = np.zeros((len(usage), words), np.uint64)
    readable = np.ones(len(usage), bool)
    populated = np.flatnonzero(usage)
    # Boot sections keep their usages in one array per node, others in slab pages: read
    # usages together if they are less than a page apart.
    raw, readable[populated] = read_records(
        prog, usage[populated] + np.uint64(offset), words * 8, max_gap=4096
    )
    bitmaps[populated] = raw.view("<u8")
    return bitmaps, readable
