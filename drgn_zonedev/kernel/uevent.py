# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Events
------

The ``drgn_zonedev.kernel.uevent`` module tells whether something happened to the
devices of a running kernel between two looks at it.
"""

from __future__ import annotations

from drgn import FaultError, Program, TypeKind
from drgn.helpers.common.prog import takes_program_or_default

__all__ = ("uevent_seqnum",)


@takes_program_or_default
def uevent_seqnum(prog: Program) -> int | None:
    """
    Get the number of events that the kernel has sent to user space.

    A driver that is bound to a device or unbound from it, and a memory block that
    is set online or offline, count one each (``kobject_uevent_env()``), so a pgmap
    cannot be replaced by one that looks the same without this number moving. Who
    calls ``memremap_pages()`` for other reasons need not count.

    :return: ``None`` if the debugging information does not have it.
    """
    try:
        seqnum = prog["uevent_seqnum"]
        # u64 before Linux kernel commit 2444a80c1cc2 ("kobject: make uevent_seqnum
        # atomic") (in v6.9).
        is_struct = seqnum.type_.unaliased_kind() == TypeKind.STRUCT
        return int((seqnum.counter if is_struct else seqnum).value_())
    except (LookupError, AttributeError, FaultError):
        return None
