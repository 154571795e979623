# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A Linux kernel in memory, for tests without QEMU and without debug info.

FakeKernel builds sections, memory blocks, dev_pagemaps and struct pages in the
layout of a given kernel version, and program() gives a drgn Program on it:

    kernel = FakeKernel("6.1")
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.device_pages(0x40000, 0x48000, pgmap)
    prog = kernel.program()
    kernel.poke_page_word(0x40123, 1, 0)    # prog sees it

collision(), in_flight(), partial(), teardown(), far() and without_usage() are ready-made
scenes.
"""

from .kernel import VMEMMAP, Altmap, FakeKernel
from .layouts import LAYOUTS
from .ram import PLACES, SECTION_PAGES, RamBuilder, busy_ram, fill_section
from .scenes import collision, far, in_flight, partial, teardown, without_usage
from .users import File, Process, Users

__all__ = (
    "LAYOUTS",
    "PLACES",
    "SECTION_PAGES",
    "VMEMMAP",
    "Altmap",
    "FakeKernel",
    "File",
    "Process",
    "RamBuilder",
    "Users",
    "busy_ram",
    "collision",
    "far",
    "fill_section",
    "in_flight",
    "partial",
    "teardown",
    "without_usage",
)
