# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which kernel a ``VMCOREINFO`` is of, and when it crashed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drgn_zonedev.util.strings import printable

__all__ = ("UNNAMED", "DumpedKernel", "parse_vmcoreinfo")

_MAX_WORD = 256


@dataclass(frozen=True)
class DumpedKernel:
    """
    What ``VMCOREINFO`` says; empty strings if it does not.

    :ivar build_id: In lower case, as the kernel writes it. Linux kernel commit 0935288c6e00
        ("kdump: append kernel build-id string to VMCOREINFO") (in v5.9) added it.
    :ivar crash_time: In seconds since 1970, which a machine without a clock counts from its
        boot; ``None`` if the kernel did not crash. ``crash_save_vmcoreinfo()`` appends it.
    """

    release: str = ""
    build_id: str = ""
    crash_time: int | None = None


UNNAMED = DumpedKernel()


def parse_vmcoreinfo(note: bytes) -> DumpedKernel:
    """Take from ``VMCOREINFO`` what names a kernel and its crash."""
    crash_time = _word(note, "CRASHTIME", r"\d{1,12}")
    return DumpedKernel(
        _word(note, "OSRELEASE", r".+"),
        _word(note, "BUILD-ID", r"[0-9a-fA-F]{2,64}").lower(),
        int(crash_time) if crash_time else None,
    )


def _word(note: bytes, name: str, pattern: str) -> str:
    found = re.search(rf"^{name}=({pattern})$".encode(), note, re.MULTILINE)
    return printable(found[1][:_MAX_WORD].decode(errors="backslashreplace")) if found else ""
