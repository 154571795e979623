# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The options that a kernel was built with, where its configuration lies beside its vmlinux: in a
build tree, and in the cache if the lab has built it. That of Debian is in a package of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from drgn_zonedev.lab.kernels.known import Kernel

__all__ = ("missing_options",)


def missing_options(kernel: Kernel, needed: Iterable[str]) -> list[str]:
    """
    Return those of some options that a kernel was built without; none if that is not known.

    :param needed: Without ``CONFIG_``.
    """
    paths = [kernel.vmlinux.with_name(name) for name in ("config", ".config")]
    text = next((path.read_text(errors="replace") for path in paths if path.is_file()), None)
    if text is None:
        return []
    built = set(re.findall(r"^CONFIG_(\w+)=[ym]$", text, re.MULTILINE))
    return [name for name in needed if name not in built]
