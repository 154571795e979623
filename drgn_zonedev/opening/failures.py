# SPDX-License-Identifier: LGPL-2.1-or-later

"""Why a program cannot be debugged, and what to do about it."""

from __future__ import annotations

from drgn import Program, ProgramFlags

__all__ = (
    "INCOMPLETE",
    "CannotJudgeError",
    "CannotOpenError",
    "require_kernel",
    "why_not_opened",
)

INCOMPLETE = (
    "take the dump whole and with less left out (parts of a split one: makedumpfile "
    "--reassemble), or look at the running kernel"
)
"""What to do about a dump without memory that everything else depends on."""


class CannotOpenError(Exception):
    """The program cannot be opened; the message says what to do about it."""


class CannotJudgeError(Exception):
    """The program can be opened, but does not contain enough to judge it."""


def why_not_opened(name: str, e: Exception, advice: str) -> str:
    """
    Say why drgn could not open something.

    :param advice: What to do about it, unless it is a lack of permission.
    """
    if isinstance(e, PermissionError):
        return f"cannot open {name}: {e.strerror}: try as root"
    reason = e.strerror if isinstance(e, OSError) and e.strerror else e
    return f"cannot open {name}: {reason}: {advice}"


def require_kernel(prog: Program, name: str) -> None:
    """
    Refuse what is not a kernel, such as a process's core.

    :raises CannotOpenError: if it is not a kernel
    """
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        raise CannotOpenError(f"{name} is not a Linux kernel: give a vmcore, not a process's core")
