# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Running Kernel
------------------
"""

from __future__ import annotations

import drgn

from drgn_zonedev.opening.failures import CannotOpenError, require_little_endian, why_not_opened
from drgn_zonedev.util.signals import held_back

__all__ = ("open_live",)


def open_live(vmcoreinfo: bytes | None = None) -> drgn.Program:
    """
    Open the running kernel, without its debugging symbols.

    :param vmcoreinfo: From :func:`.read_vmcoreinfo()`; replaces that of the kernel.
    :raises CannotOpenError: if drgn cannot open it
    :raises CannotJudgeError: if it is of a big-endian machine
    """
    prog = drgn.Program(vmcoreinfo=vmcoreinfo)
    try:
        # drgn loads its plugins here, and ignores whatever they raise.
        with held_back():
            prog.set_kernel()
    except Exception as e:
        raise CannotOpenError(_why_not_opened(e)) from e
    require_little_endian(prog, "the running kernel")
    return prog


def _why_not_opened(e: Exception) -> str:
    advice = "try as root, with /proc/kcore, or give a vmcore with -c"
    return why_not_opened("the running kernel", e, advice)
