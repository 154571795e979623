# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where a kernel keeps the names of devices that an export would reveal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from drgn import FaultError, Object, Program

from drgn_zonedev.classification.reading import take_snapshot, with_devices
from drgn_zonedev.kernel.devices import device_subsystem, for_each_child_device
from drgn_zonedev.kernel.resource import for_each_resource_below
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.util.strings import c_string

__all__ = ("device_names",)


def device_names(prog: Program) -> Iterator[Span]:
    """Find the names of the devices behind pgmaps, their disks, and their resources."""
    for pgmap in with_devices(prog, take_snapshot(prog).pgmaps):
        if pgmap.device is not None:
            device = Object(prog, "struct device *", pgmap.device.address)
            with contextlib.suppress(FaultError):
                yield from _names(device)
    with contextlib.suppress(FaultError, LookupError):
        yield from _resource_names(prog)


def _names(device: Object) -> Iterator[Span]:
    disks = [c for c in for_each_child_device(device) if device_subsystem(c) == "block"]
    for named in (device, *disks):
        yield _string(named.kobj.name)


def _resource_names(prog: Program) -> Iterator[Span]:
    start, end = prog.main_module().address_range or (0, 0)
    for resource in for_each_resource_below(prog["iomem_resource"].address_of_()):
        name = resource.name.read_()
        # What is in the kernel's image is a constant, and RAM is RAM wherever
        # its name is.
        if not name or start <= name.value_() < end:
            continue
        with contextlib.suppress(FaultError):
            if not c_string(name).startswith("System RAM"):
                yield _string(name)


def _string(pointer: Object) -> Span:
    return pointer.value_(), pointer.value_() + len(pointer.string_())
