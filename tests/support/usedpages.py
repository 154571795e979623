# SPDX-License-Identifier: LGPL-2.1-or-later

"""A synthetic machine with a device whose pages are used."""

from __future__ import annotations

from dataclasses import dataclass

from drgn import Object
from support.fakekernel import FakeKernel, File, Process, Users

from drgn_zonedev.page_users.find_pins import find_pins
from drgn_zonedev.page_users.pins import Pins, UsedPages

START, END = 0x40000, 0x48000
FIRST = 0x41000


@dataclass
class Machine:
    """A device of one section, a file on it, and two processes."""

    kernel: FakeKernel
    pgmap: int
    users: Users
    file_system: int
    file: File
    first: Process
    second: Process
    idle: int

    @property
    def counts_mappings(self) -> bool:
        return not self.kernel.layout.has_member("page", "pgmap")

    def set_used(self, pfn: int, *, mapped: int = 0, others: int = 0, pages: int = 1) -> None:
        """Set the counts of pages that are mapped, and referenced besides."""
        counted = mapped if self.counts_mappings else 0
        self.users.count(pfn, self.idle + counted + others, counted, pages)

    def pins(self, what: int | str | Object | None = None) -> Pins:
        return find_pins(self.kernel.program(), what)

    def used(self) -> list[UsedPages]:
        found = self.pins()
        assert found.gaps == ()
        (pgmap,) = found.pgmaps
        return list(pgmap.uses)


def machine(
    layout: str, type: str = "MEMORY_DEVICE_FS_DAX", *, shift: int = 0, ref: str = "live"
) -> Machine:
    kernel = FakeKernel(layout, users=True)
    kernel.section(START // 0x8000)
    count = None if ref == "live" else 1
    pgmap = kernel.pgmap((START, END), type=type, vmemmap_shift=shift, ref=ref, count=count)
    kernel.device_pages(START, END, pgmap)
    users = Users(kernel)
    file_system = users.file_system("/mnt")
    file = users.file(file_system, "file")
    first, second = users.process(100, "first"), users.process(101, "second")
    idle = kernel.idle_refcount(type)
    return Machine(kernel, pgmap, users, file_system, file, first, second, idle)


def mapped_file(layout: str) -> Machine:
    made = machine(layout)
    made.users.own(made.file, FIRST, 1)
    made.set_used(FIRST, mapped=1, others=1)
    made.users.map(made.first, made.file, [FIRST])
    return made
