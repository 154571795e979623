# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Events
------

The ``drgn_zonedev.kernel.uevent`` module detects changes to the devices of a running
kernel between two readings.
"""

from __future__ import annotations

from drgn import FaultError, Program, TypeKind
from drgn.helpers.common.prog import takes_program_or_default

__all__ = ("uevent_seqnum",)


@takes_program_or_default
def uevent_seqnum(prog: Program) -> int | None:
    """
    Get the number of events that the kernel has sent to user space.

    Binding a driver to a device, unbinding it, and setting a memory block online or
    offline each send an event (``kobject_uevent_env()``). So a pgmap cannot be replaced by
    one that looks the same without this number changing. Other callers of
    ``memremap_pages()`` need not send events.

    :return: ``None`` if the debugging information does not have the counter.
    """
    try:
        seqnum = prog["uevent_seqnum"]
        # u64 before Linux kernel commit 2444a80c1cc2 ("kobject: make uevent_seqnum
        # atomic") (in v6.9).
        is_struct = seqnum.type_.unaliased_kind() == TypeKind.STRUCT
        return int((seqnum.counter if is_struct else seqnum).value_())
    except (LookupError, AttributeError, FaultError):
        return None
