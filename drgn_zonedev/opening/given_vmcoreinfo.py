# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads VMCOREINFO from a file, for a dump or a guest without its own."""

from __future__ import annotations

import drgn

from drgn_zonedev.opening.failures import CannotOpenError

__all__ = ("read_vmcoreinfo",)

# VMCOREINFO_BYTES in include/linux/vmcore_info.h is a page.
_MAX_BYTES = 1 << 16


def read_vmcoreinfo(path: str) -> bytes:
    """
    Read a file of VMCOREINFO, as in ``/sys/kernel/vmcoreinfo``'s note.

    :raises CannotOpenError: if it cannot be read, or drgn does not understand it
    """
    try:
        with open(path, "rb") as f:
            text = f.read(_MAX_BYTES + 1)
    except OSError as e:
        raise CannotOpenError(
            f"cannot read {path}: {e.strerror or e}: check the path given to --vmcoreinfo"
        ) from e
    if len(text) > _MAX_BYTES:
        raise CannotOpenError(f"{path} is too long for VMCOREINFO: give a file of its text")
    try:
        drgn.Program(vmcoreinfo=text)
    except (drgn.BadDataError, ValueError) as e:
        raise CannotOpenError(f"{path}: {e}: give a file of VMCOREINFO's text") from e
    return text
