# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Ways into a guest's memory other than QEMU's, as users without QEMU have them.

::

    with take_kdump(kernel, SCENARIOS["fsdax-collision"]) as dumps:
        prog.set_core_dump(dumps.vmcore)
    with boot_inside(kernel, SCENARIOS["fsdax-collision"]) as guest:
        report = json.loads(guest.facts["inside"])
"""

from __future__ import annotations

from drgn_zonedev.lab.targets.capture import Kdump, take_kdump
from drgn_zonedev.lab.targets.filtered import (
    FORMATS,
    NOT_POSSIBLE,
    Format,
    makedumpfile,
    write_filtered,
)
from drgn_zonedev.lab.targets.inside import boot_inside, boot_inside_alone

__all__ = (
    "FORMATS",
    "NOT_POSSIBLE",
    "Format",
    "Kdump",
    "boot_inside",
    "boot_inside_alone",
    "makedumpfile",
    "take_kdump",
    "write_filtered",
)
