# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Release of a Kernel
-----------------------

Where a guard changed without a trace in the debugging information, the release decides. Stable
trees take fixes, so that the third number counts, too; and some distributions hide it. Where it
matters and is not known, the answer is unknown.
"""

from __future__ import annotations

import re
from typing import Optional

from drgn import FaultError, ObjectAbsentError, Program

from drgn_zonedev.util.strings import c_string

__all__ = ("KernelRelease", "Release", "StableRelease", "has_change", "kernel_release")

Release = tuple[int, int]
StableRelease = tuple[int, int, int]
KernelRelease = tuple[int, int, Optional[int]]

_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,5}))?")
_DISTRIBUTOR = re.compile(r"-\d")
_DEBIAN = re.compile(r"\bDebian (\d{1,4})\.(\d{1,4})\.(\d{1,5})")

# Debian's kernels before 6.12 are named after their ABI. Early exports do not have the version
# beside it.
_DEBIAN_ABI = {
    "5.10.0-32-": (5, 10, 223),
    "6.1.0-56-": (6, 1, 192),
    "6.1.0-57-": (6, 1, 192),
}


def kernel_release(prog: Program) -> KernelRelease:
    """
    Get the release that a kernel was built from.

    The third number is ``None`` if only the distributor knows it: then nothing is known of fixes.
    All is 0 if the name has no numbers.
    """
    name = c_string(prog["UTS_RELEASE"])
    found = _RELEASE.match(name)
    if not found:
        return (0, 0, None)
    release = (int(found[1]), int(found[2]))
    third = int(found[3] or 0)
    # 6.1.0-13 is a distributor's number of any 6.1; 6.1.0 and 6.1.0-mine are Linus's.
    if third or not _DISTRIBUTOR.match(name, found.end()):
        return (*release, third)
    known = (at for abi, at in _DEBIAN_ABI.items() if name.startswith(abi))
    return next(known, None) or _release_in_version(prog) or (*release, None)


def _release_in_version(prog: Program) -> StableRelease | None:
    # utsname()->version
    try:
        version = c_string(prog["init_uts_ns"].name.version)
    except (LookupError, ObjectAbsentError, FaultError):
        return None
    found = _DEBIAN.search(version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def has_change(
    release: KernelRelease, since: Release, stable: tuple[StableRelease, ...] = ()
) -> bool | None:
    """
    Whether a release has what came with ``since``, or with ``stable`` ones of their trees:
    ``None`` if the number that decides it is not known.
    """
    if since <= release[:2]:
        return True
    if not any(release[:2]):
        return None
    of_tree = [tree[2] for tree in stable if tree[:2] == release[:2]]
    if of_tree and release[2] is None:
        return None
    return any(third <= (release[2] or 0) for third in of_tree)
