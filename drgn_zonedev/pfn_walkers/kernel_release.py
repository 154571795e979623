# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Release of a Kernel
-----------------------

Where a guard changed without a trace in the debugging information, the release decides. Stable
trees take fixes, so that the third number counts, too; and some distributions hide it.
"""

from __future__ import annotations

import re

from drgn import FaultError, ObjectAbsentError, Program

from drgn_zonedev.util.strings import c_string

__all__ = ("Release", "StableRelease", "has_change", "kernel_release")

Release = tuple[int, int]
StableRelease = tuple[int, int, int]

_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,5}))?")
_DEBIAN = re.compile(r"\bDebian (\d{1,4})\.(\d{1,4})\.(\d{1,5})")

# Debian's kernels before 6.12 are named after their ABI. Exports do not have the version beside it.
_DEBIAN_ABI = {
    "5.10.0-32-": (5, 10, 223),
    "6.1.0-56-": (6, 1, 192),
    "6.1.0-57-": (6, 1, 192),
}


def kernel_release(prog: Program) -> StableRelease:
    """
    Get the release that a kernel was built from.

    The third number is 0 if only the distributor knows it: then nothing is known of fixes.
    """
    name = c_string(prog["UTS_RELEASE"])
    found = _RELEASE.match(name)
    if not found:
        return (0, 0, 0)
    release = (int(found[1]), int(found[2]), int(found[3] or 0))
    if release[2]:
        return release
    known = (at for abi, at in _DEBIAN_ABI.items() if name.startswith(abi))
    return next(known, None) or _release_in_version(prog) or release


def _release_in_version(prog: Program) -> StableRelease | None:
    # utsname()->version
    try:
        version = c_string(prog["init_uts_ns"].name.version)
    except (LookupError, ObjectAbsentError, FaultError):
        return None
    found = _DEBIAN.search(version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def has_change(
    release: StableRelease, since: Release, stable: tuple[StableRelease, ...] = ()
) -> bool:
    """Whether a release has what came with ``since``, or with ``stable`` ones of their trees."""
    backported = any(tree[:2] == release[:2] and tree <= release for tree in stable)
    return backported or since <= release[:2]
