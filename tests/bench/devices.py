# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices of a TiB in compound pages: what of their memmap is read, and how fast."""

from __future__ import annotations

import json
import sys
from functools import partial

from drgn import Program
from support.largedevice import LargeDevice

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.model import Case
from drgn_zonedev.verification.verify import verify

from .measure import Measurement, interleave, seconds
from .memory import growth_of, in_child

__all__ = ("PAGE_SIZES", "measure_devices")

PAGE_SIZES = {"2 MiB": 9, "1 GiB": 18}
_GIB_PER_TIB = 1024


def measure_devices(gib: int, rounds: int) -> list[Measurement]:
    """
    Verify synthetic devdax namespaces of so many GiB, and read what that reads.

    The latter is how much of the time the memory takes that answers.
    """
    devices = {name: LargeDevice(gib, shift) for name, shift in PAGE_SIZES.items()}
    programs = {name: device.program() for name, device in devices.items()}
    scale = _GIB_PER_TIB / gib
    contenders = {}
    for name in PAGE_SIZES:
        verified = partial(_verify, programs[name], devices[name].pages)
        read = partial(_read, programs[name], devices[name])
        contenders[f"verify, a TiB in {name} pages"] = partial(_scaled, verified, scale)
        contenders[f"raw read of the same, {name} pages"] = partial(_scaled, read, scale)
    found = interleave(contenders, rounds, "s")
    for name, shift in PAGE_SIZES.items():
        share = _share_read(devices[name], programs[name])
        found.append(Measurement(f"bytes read, a TiB in {name} pages", "of the memmap", (share,)))
        peak = in_child("bench.devices", str(gib), str(shift))
        found.append(Measurement(f"memory of verify, a TiB in {name} pages", "MiB", (peak,)))
    return found


def _scaled(work: partial[None], scale: float) -> float:
    return scale * seconds(work)


def _verify(prog: Program, pages: int) -> None:
    # RAM has the struct pages.
    verification = verify(prog, [r for r in classify(prog) if r.case is Case.DEVICE])
    assert verification.findings == ()
    assert verification.unjudged == ()
    assert verification.coverage.pages_verified == pages


def _read(prog: Program, device: LargeDevice) -> None:
    for address, size in device.memory():
        prog.read(address, size)


def _share_read(device: LargeDevice, prog: Program) -> float:
    # As counted where it is read, and with the page tables.
    before = device.memmap_bytes + device.table_bytes
    _verify(prog, device.pages)
    return (device.memmap_bytes + device.table_bytes - before) / device.nominal_bytes


def peak_of(gib: int, shift: int) -> float:
    """
    Verify a device.

    :return: MiB that the process grew by at most.
    """
    # What is imported and allocated once and for all is drgn's and numpy's.
    small = LargeDevice(1, shift)
    _verify(small.program(), small.pages)
    device = LargeDevice(gib, shift)
    return growth_of(partial(_verify, device.program(), device.pages))


if __name__ == "__main__":
    print(json.dumps(peak_of(int(sys.argv[1]), int(sys.argv[2]))))
