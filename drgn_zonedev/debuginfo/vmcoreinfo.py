# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``VMCOREINFO`` says of addresses."""

from __future__ import annotations

import re

__all__ = ("vmcoreinfo_symbols",)

_SYMBOL = re.compile(r"^SYMBOL\(([^)\n]+)\)=([0-9A-Fa-f]{1,16})$", re.MULTILINE)


def vmcoreinfo_symbols(vmcoreinfo: bytes) -> dict[str, int]:
    """Get the addresses of the symbols that the kernel leaves in its dumps."""
    text = vmcoreinfo.decode("ascii", "replace")
    return {name: int(address, 16) for name, address in _SYMBOL.findall(text)}
