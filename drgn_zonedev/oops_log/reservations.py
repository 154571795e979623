# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Reservations of Boot
--------------------

Finds the pages without RAM that boot reserves for firmware tables. No zone spans them, and an
oops about one need not have its PFN in a register, but the boot log lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from drgn_zonedev.oops_log.lines import LogLine
from drgn_zonedev.util.intervals import Span, difference, union

__all__ = ("reserved_outside_ram",)

_RAM = re.compile(
    r"BIOS-e820: \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\] {1,4}(?:usable|System RAM)"
)
_RESERVED = re.compile(
    r"ACPI: Reserving \S{1,8} table memory at \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]"
)

# Firmware has some dozens of tables.
_MOST = 256


def reserved_outside_ram(lines: Iterable[LogLine], page_size: int) -> tuple[Span, ...]:
    """Get the half-open ranges of PFNs that boot reserves, and that are not RAM."""
    ram: list[Span] = []
    reserved: list[Span] = []
    for line in lines:
        if "[mem 0x" not in line.text:
            continue
        for pattern, found in ((_RAM, ram), (_RESERVED, reserved)):
            if (match := pattern.search(line.text)) is not None and len(found) < _MOST:
                start, last = int(match[1], 16), int(match[2], 16)
                found.append((start // page_size, last // page_size + 1))
    if not ram:
        return ()
    known = union(ram)
    return union(part for span in reserved for part in difference(span, known))
