# SPDX-License-Identifier: LGPL-2.1-or-later

"""Why a program cannot be debugged, and what to do about it."""

from __future__ import annotations

from types import SimpleNamespace

from drgn import PlatformFlags, Program, ProgramFlags
from drgn.helpers.linux.mm import follow_phys

__all__ = (
    "INCOMPLETE",
    "CannotJudgeError",
    "CannotOpenError",
    "require_kernel",
    "require_little_endian",
    "require_page_tables",
    "why_not_opened",
)

INCOMPLETE = (
    "use a complete dump with less left out (makedumpfile --reassemble joins the parts of a split "
    "one), or the running kernel"
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


def require_little_endian(prog: Program, name: str) -> None:
    """
    Refuse big-endian machines: words are read by the thousand, as those of a little-endian one.

    :raises CannotJudgeError: if it is one
    """
    assert prog.platform is not None
    if not prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN:
        arch = prog.platform.arch.name.lower()
        raise CannotJudgeError(
            f"{name} is of {arch}, which is big-endian: that is not supported, and nothing was read"
        )


def require_page_tables(prog: Program, name: str) -> None:
    """
    Refuse architectures whose virtual addresses drgn cannot translate: struct pages have no other.

    :raises CannotJudgeError: if it is of such an architecture
    """
    assert prog.platform is not None
    try:
        # It says so before it looks at the table.
        follow_phys(SimpleNamespace(prog_=prog, pgd=0), 0)
    except NotImplementedError as e:
        arch = prog.platform.arch.name.lower()
        raise CannotJudgeError(
            f"drgn cannot translate virtual addresses of {arch}, so {name} cannot be judged: run "
            "zonedev -k on that machine"
        ) from e
    except Exception:
        # Anything else is about the address.
        return
