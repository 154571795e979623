# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Private names
-------------

Finds the names in a kernel's memory that an export would reveal: of devices and disks, of the
resources that drivers claim, and of the host.

Names are read as far as possible: if a list breaks off, or the end of a string is missing, what
came before is still found.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from drgn import FaultError, Object, Program

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.devices import device_ancestors, for_each_child_device, for_each_device
from drgn_zonedev.kernel.devres import for_each_dev_pagemap_owner
from drgn_zonedev.kernel.resource import for_each_resource_below
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.util.strings import string_at
from drgn_zonedev.vmcore.raw import read_raw

__all__ = (
    "PrivateName",
    "constant_names",
    "image",
    "is_public",
    "other_names",
    "printed_names",
)

# How much of a name c_string() reads.
_MAX_LENGTH = 512

# RAM that drivers add is named after them: System RAM (kmem), System RAM (virtio_mem). Names of
# memory blocks have only a number. "?" stands for a name that cannot be read.
_PUBLIC = re.compile(rb"System RAM(?: \(\w+\))?|memory\d+|\(none\)|\?|x*")

_Pointers = Iterator[tuple[int, str]]

_DAMAGE = (FaultError, LookupError, AttributeError)


@dataclass(frozen=True)
class PrivateName:
    """A name as it is in memory, without its NUL; ``of`` says what it is the name of."""

    text: bytes
    address: int
    of: str

    @property
    def span(self) -> Span:
        """Its addresses."""
        return self.address, self.address + len(self.text)


def image(prog: Program) -> Span:
    """Return the range of addresses of the kernel's image; empty if it is not known."""
    try:
        return prog.main_module().address_range or (0, 0)
    except LookupError:
        return 0, 0


def is_public(text: bytes) -> bool:
    """Return whether a name reveals nothing: it is RAM's, blanked, or unreadable."""
    return _PUBLIC.fullmatch(text) is not None


def printed_names(prog: Program) -> tuple[PrivateName, ...]:
    """Find the names that the analysis reads: of owners of pgmaps, their disks, and resources."""
    return tuple(_outside_the_image(prog, _printed(prog)))


def constant_names(prog: Program) -> frozenset[str]:
    """Find the names that the analysis reads from the kernel's image, as they are printed."""
    start, end = image(prog)
    inside = {address for address, _ in _printed(prog) if start <= address < end}
    return frozenset(string_at(prog, address) for address in inside)


def _printed(prog: Program) -> _Pointers:
    pgmaps = frozenset(p.address for p in take_snapshot(prog).pgmaps)
    owners = list(for_each_dev_pagemap_owner(prog, pgmaps))
    others = (dev for owner in owners for dev in chain(_children(owner), _parents(owner)))
    yield from _names_of_devices((*owners, *others))
    yield from _names_of_resources(prog)


def other_names(prog: Program) -> tuple[PrivateName, ...]:
    """Find the other names: of every device that can be reached, and of the host."""
    devices = {dev.value_(): dev for dev in _all_devices(prog)}
    found = _outside_the_image(prog, _names_of_devices(devices.values()))
    # After damage, anything may look like a device.
    likely = (name for name in found if name.text.isascii() and name.text.decode().isprintable())
    return (*likely, *_host_names(prog))


def _outside_the_image(prog: Program, pointers: Iterable[tuple[int, str]]) -> Iterator[PrivateName]:
    # Names in the kernel's image are constants.
    start, end = image(prog)
    for address, of in dict.fromkeys(pointers):
        if address and not start <= address < end:
            text = _text(prog, address)
            if not is_public(text):
                yield PrivateName(text, address, of)


def _text(prog: Program, address: int) -> bytes:
    text = bytearray()
    # Byte by byte, as drgn reads strings: an export does not have the bytes after them.
    with contextlib.suppress(FaultError):
        while len(text) < _MAX_LENGTH:
            byte = read_raw(prog, address + len(text), 1)
            if byte == b"\0":
                break
            text += byte
    return bytes(text)


def _all_devices(prog: Program) -> Iterator[Object]:
    with contextlib.suppress(*_DAMAGE):
        for dev in for_each_device(prog):
            yield dev
            yield from _children(dev)
            yield from _parents(dev)


def _children(dev: Object) -> Iterator[Object]:
    with contextlib.suppress(*_DAMAGE):
        yield from for_each_child_device(dev)


def _parents(dev: Object) -> Iterator[Object]:
    with contextlib.suppress(*_DAMAGE):
        yield from device_ancestors(dev)


def _names_of_devices(devices: Iterable[Object]) -> _Pointers:
    for dev in devices:
        with contextlib.suppress(*_DAMAGE):
            yield dev.kobj.name.value_(), "a device"
        with contextlib.suppress(*_DAMAGE):
            yield dev.init_name.value_(), "a device"


def _names_of_resources(prog: Program) -> _Pointers:
    with contextlib.suppress(*_DAMAGE):
        for resource in for_each_resource_below(prog["iomem_resource"].address_of_()):
            with contextlib.suppress(*_DAMAGE):
                yield resource.name.value_(), "a resource"


def _host_names(prog: Program) -> Iterator[PrivateName]:
    with contextlib.suppress(*_DAMAGE):
        uts = prog["init_uts_ns"].name
        for member in (uts.nodename, uts.domainname):
            address = member.address_of_().value_()
            text = _text(prog, address)
            if not is_public(text):
                yield PrivateName(text, address, "the host")
