# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sections and Subsections
------------------------

The ``drgn_zonedev.kernel.mmzone`` module complements drgn's helpers for SPARSEMEM with
subsections (:linux:`include/linux/mmzone.h`) and the predicates that PFN walkers use.
:mod:`drgn_zonedev.kernel.sections` reads all sections at once.

Subsections exist since Linux kernel commit f46edbd1b151 ("mm/sparsemem: add
helpers track active portions of a section at boot") (in v5.3), with
``CONFIG_SPARSEMEM_VMEMMAP``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from drgn import (
    NULL,
    BadDataError,
    FaultError,
    IntegerLike,
    Object,
    PlatformFlags,
    Program,
    SymbolBinding,
    TypeKind,
    sizeof,
)
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import pfn_to_page
from drgn.helpers.linux.mmzone import (
    decode_section_flags,
    early_section,
    nr_to_section,
    online_section,
    valid_section,
)

from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.memremap import find_dev_pagemap, get_dev_pagemap
from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.reads import need_object

__all__ = (
    "Geometry",
    "SectionFlags",
    "decode_section_word",
    "for_each_subsection",
    "has_generic_pfn_valid",
    "online_device_section",
    "pfn_section_valid",
    "pfn_to_online_page",
    "pfn_valid",
    "require_section",
    "section_flags",
    "section_subsection_map",
    "section_vmemmap_preinit",
    "sparsemem_geometry",
    "subsection_map_index",
)

# SUBSECTION_SHIFT: a macro, 2 MiB on every architecture.
_SUBSECTION_SHIFT = 21

# The largest of any architecture: 57 on powerpc, 52 on x86-64 and arm64.
_MAX_PHYSMEM_BITS = 57

_Pfn = TypeVar("_Pfn", int, np.ndarray)

_INDIRECT = (TypeKind.POINTER, TypeKind.ARRAY)


@dataclass(frozen=True)
class Geometry:
    """Sizes of pages, subsections and sections, and the limit of physical memory."""

    page_shift: int
    section_size_bits: int
    max_physmem_bits: int

    @property
    def pages_per_section(self) -> int:
        """``PAGES_PER_SECTION``"""
        return 1 << (self.section_size_bits - self.page_shift)

    @property
    def pages_per_subsection(self) -> int:
        """``PAGES_PER_SUBSECTION``"""
        return 1 << (_SUBSECTION_SHIFT - self.page_shift)

    @property
    def subsections_per_section(self) -> int:
        """``SUBSECTIONS_PER_SECTION``"""
        return 1 << (self.section_size_bits - _SUBSECTION_SHIFT)

    @property
    def max_pfn(self) -> int:
        """One more than the largest PFN that the kernel can express."""
        return 1 << (self.max_physmem_bits - self.page_shift)

    def subsection_map_index(self, pfn: _Pfn) -> _Pfn:
        """``subsection_map_index()``, of one PFN or of an array."""
        return pfn % self.pages_per_section // self.pages_per_subsection


@takes_program_or_default
@once_per_program
def sparsemem_geometry(prog: Program) -> Geometry:
    """
    Get the sizes of pages, subsections and sections.

    :raises LookupError: if the kernel was not built with ``CONFIG_SPARSEMEM``
    :raises BadDataError: if the sizes in VMCOREINFO are impossible, ``mem_section`` is
        something else, or the kernel is one that nothing here can read
    """
    _refuse_unreadable_kernels(prog)
    geometry = Geometry(
        page_shift=prog["PAGE_SHIFT"].value_(),
        section_size_bits=prog["SECTION_SIZE_BITS"].value_(),
        max_physmem_bits=prog["MAX_PHYSMEM_BITS"].value_(),
    )
    # The sizes may come from the dump.
    page_shift, section_bits = geometry.page_shift, geometry.section_size_bits
    in_order = page_shift <= _SUBSECTION_SHIFT <= section_bits <= geometry.max_physmem_bits
    if not in_order or geometry.max_physmem_bits > _MAX_PHYSMEM_BITS:
        raise BadDataError(f"impossible sizes in VMCOREINFO: {geometry}")
    _require_mem_section(prog)
    return geometry


def _refuse_unreadable_kernels(prog: Program) -> None:
    assert prog.platform is not None
    if not prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN:
        # Words are read by the thousand, as those of a little-endian machine.
        name = prog.platform.arch.name.lower()
        raise BadDataError(f"{name} is big-endian, which is not supported: nothing was read")
    # Up to Linux kernel commit f1eca35a0dc7 ("mm/sparsemem: introduce struct
    # mem_section_usage") (in v5.3), a section was valid as a whole.
    try:
        section = prog.type("struct mem_section")
    except LookupError:
        return
    if section.has_member("pageblock_flags") and not section.has_member("usage"):
        raise BadDataError(
            "the kernel has no subsections, so it is older than v5.3, which is not supported"
        )
    # Up to Linux kernel commit bcfa4b72111c ("memremap: Convert to XArray") (in v4.20).
    if "pgmap_radix" in prog and "pgmap_array" not in prog:
        raise BadDataError(
            "the kernel has pgmaps in a radix tree, so it is older than v4.20, which is not "
            "supported"
        )


def _require_mem_section(prog: Program) -> None:
    # A pointer to pointers with CONFIG_SPARSEMEM_EXTREME, an array of arrays without.
    if "mem_section" not in prog:
        return
    roots = prog["mem_section"].type_
    if roots.kind in _INDIRECT and roots.type.kind == roots.kind:
        section = roots.type.type
        if section.kind == TypeKind.STRUCT and section.tag == "mem_section":
            return
    raise BadDataError(
        f"mem_section of the debugging information is a {roots.type_name()}, which no kernel "
        "has: give the vmlinux of the kernel"
    )


@dataclass(frozen=True)
class SectionFlags:
    """
    The flag bits of ``mem_section.section_mem_map``.

    A flag that the kernel does not have is 0, so that testing it is false: without
    ``CONFIG_ZONE_DEVICE``, there is no ``taint``. ``asks_subsection`` is true if
    ``pfn_to_online_page()`` requires the subsection to be populated, and ``asks_claim`` if
    it asks a bitmap whether a device has claimed it, in place of the taint.
    """

    present: int
    has_mem_map: int
    online: int
    early: int
    taint: int
    preinit: int
    map_mask: int
    asks_subsection: bool
    asks_claim: bool = False


@takes_program_or_default
@once_per_program
def section_flags(prog: Program) -> SectionFlags:
    """
    Get the section flags of this kernel.

    :raises LookupError: if the kernel was not built with ``CONFIG_SPARSEMEM``
    """
    # Since Linux kernel commit ed7802dd48f7 ("mm: memory_hotplug: enumerate all
    # supported section flags") (in v6.0), the flags are an anonymous enum.
    try:
        last = prog.constant("SECTION_MAP_LAST_BIT").value_()
    except LookupError:
        if _flag(prog, "SECTION_MARKED_PRESENT_BIT"):
            raise
        # Before that, they are macros. v5.12 to v5.19 also had
        # SECTION_TAINT_ZONE_DEVICE, from Linux kernel commit 1f90a3477df3 ("mm:
        # teach pfn_to_online_page() about ZONE_DEVICE section collisions") (in
        # v5.12). The macro leaves no trace in the debugging information, but in that
        # release, commit 9f605f260594 ("mm: move pfn_to_online_page() out of line")
        # turned pfn_to_online_page() from a macro into a function.
        taint = 1 << 4 if "pfn_to_online_page" in prog else 0
        map_mask = ~((taint or 8) * 2 - 1) & (1 << 64) - 1
        return SectionFlags(1, 2, 4, 8, taint, 0, map_mask, bool(taint))
    return SectionFlags(
        # These are older than the enum.
        present=1 << prog.constant("SECTION_MARKED_PRESENT_BIT").value_(),
        has_mem_map=1 << prog.constant("SECTION_HAS_MEM_MAP_BIT").value_(),
        online=1 << prog.constant("SECTION_IS_ONLINE_BIT").value_(),
        early=1 << prog.constant("SECTION_IS_EARLY_BIT").value_(),
        taint=_taint_flag(prog),
        # Linux kernel commit d65917c42373 ("mm/sparse: allow for alternate
        # vmemmap section init at boot") (in v6.15).
        preinit=_flag(prog, "SECTION_IS_VMEMMAP_PREINIT_BIT"),
        map_mask=~((1 << last) - 1) & (1 << 64) - 1,
        asks_subsection=True,
        # Of lab/patches/pfn_zone_device-7.3.edit; no release has it.
        asks_claim="section_pfn_claimed" in prog,
    )


def _flag(prog: Program, name: str) -> int:
    try:
        return 1 << int(prog.constant(name).value_())
    except LookupError:
        return 0


def _taint_flag(prog: Program) -> int:
    # Only with CONFIG_ZONE_DEVICE, like pgmap_array. With pgmap_array but without this
    # enumerator, the debugging information is incomplete: raise LookupError.
    name = "SECTION_TAINT_ZONE_DEVICE_BIT"
    return 1 << int(prog.constant(name).value_()) if "pgmap_array" in prog else _flag(prog, name)


@takes_program_or_default
def decode_section_word(prog: Program, word: IntegerLike) -> tuple[str, ...]:
    """
    Get the names of the flags in a value of ``mem_section.section_mem_map``,
    without their common prefix ``SECTION_``.

    :param word: ``unsigned long``
    """
    section = Object(prog, "struct mem_section", {"section_mem_map": operator.index(word)})
    return tuple(decode_section_flags(section).replace("SECTION_", "").split("|"))


def online_device_section(section: Object) -> bool:
    """
    Return whether a section is online and tainted by ZONE_DEVICE memory, like
    the kernel's ``online_device_section()``: only then does
    ``pfn_to_online_page()`` ask ``get_dev_pagemap()``.

    :param section: ``struct mem_section *``
    """
    section = section.read_()
    if not section:
        return False
    flags = section_flags(section.prog_)
    both = flags.online | flags.taint
    return bool(flags.taint) and section.section_mem_map.value_() & both == both


def section_vmemmap_preinit(section: Object) -> bool:
    """
    Return whether a section's memmap was deduplicated for HugeTLB at boot
    (``preinited_vmemmap_section()``).

    :param section: ``struct mem_section *``
    """
    section = section.read_()
    if not section:
        return False
    return bool(section.section_mem_map.value_() & section_flags(section.prog_).preinit)


@takes_program_or_default
def subsection_map_index(prog: Program, pfn: IntegerLike) -> int:
    """
    Get the bit of ``mem_section_usage.subsection_map`` that a PFN belongs to.

    :param pfn: ``unsigned long``
    """
    return sparsemem_geometry(prog).subsection_map_index(require_number(pfn))


def section_subsection_map(section: Object) -> int | None:
    """
    Get a section's bitmap of populated subsections.

    :param section: ``struct mem_section *``
    :return: Bit ``i`` is subsection ``i``. 0 if ``usage`` is ``NULL``: the
        section was never populated, or all of it was removed. ``None`` if the
        kernel has no subsections (``CONFIG_SPARSEMEM_VMEMMAP=n``).
    """
    try:
        usage = section.usage.read_()
        if not usage:
            return 0
        need_object(usage.subsection_map)
        words = usage.subsection_map.value_()
    except AttributeError:
        return None
    bits = 8 * sizeof(section.prog_.type("unsigned long"))
    return sum(int(word) << (i * bits) for i, word in enumerate(words))


@takes_program_or_default
def for_each_subsection(prog: Program, nr: IntegerLike) -> Iterator[tuple[int, int, bool]]:
    """
    Iterate over the subsections of a section.

    :param nr: Section number.
    :return: Iterator of (start PFN, end PFN, whether its bit is set)
    """
    geometry = sparsemem_geometry(prog)
    section = require_section(prog, nr)
    bitmap = section_subsection_map(section) if section else 0
    start_pfn = require_number(nr, "section number") * geometry.pages_per_section
    for i in range(geometry.subsections_per_section):
        pfn = start_pfn + i * geometry.pages_per_subsection
        is_set = bitmap is None or bool(bitmap >> i & 1)
        yield pfn, pfn + geometry.pages_per_subsection, is_set


@takes_program_or_default
def require_section(prog: Program, nr: IntegerLike) -> Object:
    """
    Get a section like :func:`drgn.helpers.linux.mmzone.nr_to_section()`, but check that
    the memory was really read: in an ELF dump, drgn reads zeros for memory that was left
    out, and small dumps have no roots beyond that of the last section.

    :param nr: Section number.
    :return: ``struct mem_section *`` (``NULL`` if there is none)
    :raises FaultError: if the root or the section cannot be read
    """
    nr = require_number(nr, "section number")
    try:
        section = nr_to_section(prog, nr)
        if section:
            need_object(section[0])
        elif prog["mem_section"]:
            need_object(prog["mem_section"][nr // prog["SECTIONS_PER_ROOT"].value_()])
    except FaultError:
        if nr <= prog["__highest_present_section_nr"].value_():
            raise
        return NULL(prog, "struct mem_section *")
    return section


def _section_of(prog: Program, pfn: int) -> Object:
    return require_section(prog, pfn // sparsemem_geometry(prog).pages_per_section)


@takes_program_or_default
def pfn_section_valid(prog: Program, pfn: IntegerLike) -> bool:
    """
    Return whether a PFN's subsection is populated, like the kernel's
    ``pfn_section_valid()``.

    :param pfn: ``unsigned long``
    """
    pfn = require_number(pfn)
    section = _section_of(prog, pfn)
    if not section:
        return False
    bitmap = section_subsection_map(section)
    return bitmap is None or bool(bitmap >> subsection_map_index(prog, pfn) & 1)


@takes_program_or_default
def has_generic_pfn_valid(prog: Program) -> bool:
    """
    Return whether the kernel uses the ``pfn_valid()`` of ``include/linux/mmzone.h``.

    With ``CONFIG_HAVE_ARCH_PFN_VALID``, the architecture has a function of its own, as arm64 had up
    to Linux kernel commit 3de360c3fdb3 ("arm64/mm: drop HAVE_ARCH_PFN_VALID") (in v5.16): a global
    one. Copies of the generic one, which is inline, are local.
    """
    try:
        return prog.symbol("pfn_valid").binding != SymbolBinding.GLOBAL
    except LookupError:
        return True


@takes_program_or_default
def pfn_valid(prog: Program, pfn: IntegerLike) -> bool:
    """
    Return whether a PFN has a ``struct page``, like the kernel's generic
    ``pfn_valid()``.

    This does not say whether the ``struct page`` is initialised: it is also true for
    memory that is offline, for ZONE_DEVICE memory that is not initialised yet or never
    will be, and for every hole in an early section.

    :param pfn: ``unsigned long``
    """
    pfn = require_number(pfn)
    if not 0 <= pfn < sparsemem_geometry(prog).max_pfn:
        return False
    section = _section_of(prog, pfn)
    if not valid_section(section):
        return False
    return early_section(section) or pfn_section_valid(prog, pfn)


@takes_program_or_default
def pfn_to_online_page(prog: Program, pfn: IntegerLike) -> Object:
    """
    Get the ``struct page`` of a PFN if it is online, by the rules of this kernel.

    Since Linux kernel commits 9f9b02e5b346 ("mm: teach pfn_to_online_page() to
    consider subsection validity") and 1f90a3477df3 ("mm: teach
    pfn_to_online_page() about ZONE_DEVICE section collisions") (in v5.12), the
    subsection must be populated, and in a tainted section the PFN must not
    have a live pgmap. Before that, only the section is checked: device pages that
    share a section with RAM are returned. A kernel with ``subsection_dev_map`` that asks it
    has no page where ``pgmap_array`` has a pgmap, live or not.

    :param pfn: ``unsigned long``
    :return: ``struct page *`` (``NULL`` if it is not online)
    """
    pfn = require_number(pfn)
    null = NULL(prog, "struct page *")
    if not 0 <= pfn < sparsemem_geometry(prog).max_pfn:
        return null
    section = _section_of(prog, pfn)
    if not online_section(section):
        return null
    if section_flags(prog).asks_subsection and not pfn_section_valid(prog, pfn):
        return null
    if section_flags(prog).asks_claim:
        return null if find_dev_pagemap(prog, pfn) else pfn_to_page(prog, pfn)
    if online_device_section(section) and get_dev_pagemap(prog, pfn):
        return null
    return pfn_to_page(prog, pfn)
