# SPDX-License-Identifier: LGPL-2.1-or-later

"""The structures of a synthetic kernel, compared with each other."""

from __future__ import annotations

from support.fakekernel import FakeKernel

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import Inconsistencies, inconsistencies

__all__ = ("compared",)


def compared(kernel: FakeKernel) -> Inconsistencies:
    """Read a machine once, classify it, and compare its structures."""
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    return inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot))
