# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernel Facts
------------

Gets the facts about the kernel that every answer depends on.
"""

from __future__ import annotations

from drgn import Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.layout_parts import never_booted
from drgn_zonedev.classification.missing_debuginfo import optional
from drgn_zonedev.debuginfo.finders import types_are_builtin
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.memremap import has_zone_device
from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
from drgn_zonedev.model import KernelFacts
from drgn_zonedev.util.strings import c_string

__all__ = ("kernel_facts",)


@takes_program_or_default
def kernel_facts(prog: Program) -> KernelFacts:
    """
    Get the facts about the kernel that every answer depends on.

    :raises LookupError: if the debugging information does not have them
    """
    geometry, flags = sparsemem_geometry(prog), section_flags(prog)
    # Without struct page in the debugging information, its size and vmemmap are 0.
    layout = optional("", None, lambda: page_layout(prog)).value
    assert prog.platform is not None
    return KernelFacts(
        release=c_string(prog["UTS_RELEASE"]),
        architecture=prog.platform.arch.name.lower(),
        live=bool(prog.flags & ProgramFlags.IS_LIVE),
        page_size=1 << geometry.page_shift,
        section_size=1 << geometry.section_size_bits,
        subsection_size=geometry.pages_per_subsection << geometry.page_shift,
        sizeof_page=layout.size if layout else 0,
        vmemmap=layout.vmemmap if layout else 0,
        highest_present_section_nr=prog["__highest_present_section_nr"].value_(),
        features={
            "section_taint_zone_device": bool(flags.taint),
            "section_is_vmemmap_preinit": bool(flags.preinit),
            "vmemmap_shift": _has_vmemmap_shift(prog),
            "pgmap_in_folio": bool(layout and layout.pgmap_in_folio),
            "compound_info_is_mask": bool(layout and layout.compound_mask),
        },
        types_from_btf=types_are_builtin(prog),
        never_booted=never_booted(prog),
        max_nr_zones=optional("", 0, lambda: prog.constant("__MAX_NR_ZONES").value_()).value,
    )


def _has_vmemmap_shift(prog: Program) -> bool:
    # A kernel without CONFIG_ZONE_DEVICE may not have the type.
    pgmap = optional("", None, lambda: prog.type("struct dev_pagemap")).value
    return has_zone_device(prog) and pgmap is not None and pgmap.has_member("vmemmap_shift")
