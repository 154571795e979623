# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Randomised Layout
-----------------

Tells whether BTF may not say where the members of some structs are.
"""

from __future__ import annotations

from drgn import FaultError, Program

__all__ = ("UNKNOWN_LAYOUT", "has_unknown_layout")

UNKNOWN_LAYOUT = (
    "GCC has randomised the layout of some structs (CONFIG_RANDSTRUCT), which BTF does not "
    "describe: do not rely on answers about devices and modules"
)

# TAINT_RANDSTRUCT, which a kernel has from the start.
_TAINT = 17
_MAX_BANNER = 512


def has_unknown_layout(prog: Program) -> bool:
    """
    Whether GCC has randomised the layout of structs (``CONFIG_RANDSTRUCT``), which it does
    not describe. Clang does, since Linux kernel commit 035f7f87b729 ("randstruct: Enable Clang
    support") (in v5.19). Since 7d32e69310d6 ("kbuild, btf: Fix dependencies for
    DEBUG_INFO_BTF") (in v5.7), only kernels with ``CONFIG_COMPILE_TEST`` have both.
    """
    try:
        tainted = prog.variable("tainted_mask").value_()
        banner = prog.symbol("linux_banner")
        text = prog.read(banner.address, min(banner.size, _MAX_BANNER))
    except (LookupError, FaultError):
        return False
    return bool(tainted >> _TAINT & 1) and b"clang version " not in text
