# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Managed Device Resources
------------------------

The ``drgn_zonedev.kernel.devres`` module finds the device behind a pgmap.

A caller of ``devm_memremap_pages()`` leaves a managed action in the ``struct
device``'s ``devres_head`` (:linux:`drivers/base/devres.c`). Everything that
this needs is in the debugging information of vmlinux, so it works for drivers
whose modules have none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from drgn import FaultError, Object, Program, container_of, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.devices import (
    dev_driver,
    dev_name,
    dev_to_node,
    device_ancestors,
    device_subsystem,
    for_each_bus_device,
    for_each_child_device,
    for_each_device_with_resources,
)
from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.model import PgmapDevice

__all__ = (
    "dev_pagemap_devices",
    "for_each_dev_pagemap_owner",
    "for_each_devres",
    "guessed_words",
    "owned_pgmaps",
)

# Buses on which drivers of device memory bind, those with the fewest devices first.
_BUSES = ("dax", "nd", "cxl", "virtio", "pci")

# The parents of device memory that ndctl and cxl call regions.
_REGION = re.compile(r"region[0-9]{1,9}$")
_BUSES_OF_REGIONS = ("nd", "cxl")

_IN_REGION = re.compile(r"(?:dax|pfn|btt|namespace)([0-9]{1,9})\.[0-9]{1,9}$")

_T = TypeVar("_T")

# A driver of device memory manages a dozen resources.
_MAX_RESOURCES = 1 << 12

# Orders of kmalloc()'s slab objects that can hold a pgmap.
_KMALLOC_ORDERS = range(7, 14)

# Errors from reading damaged memory. Names are a convenience, so what was found before them is
# kept.
_DAMAGE = (FaultError, LookupError, AttributeError)


@dataclass(frozen=True)
class _Resource:
    """The address of the release function, and where the payload is; its size if known."""

    release: int
    payload: int
    size: int | None


def for_each_devres(dev: Object) -> Iterator[tuple[int, int, int | None]]:
    """
    Iterate over the managed resources of a device.

    :param dev: ``struct device *``
    :return: Iterator of (address of the release function, address of the
        payload, size of the payload)
    """
    layout = _devres_layout(dev.prog_)
    head = dev.devres_head.address_of_()
    for node in list_entries(dev.prog_, "struct devres_node", head, "entry"):
        resource = _resource_of(node, layout)
        yield resource.release, resource.payload, resource.size


@dataclass(frozen=True)
class _DevresLayout:
    """
    Where the payload is from a ``struct devres_node *``: at ``action`` if the node's release
    function is ``action_release``, else at ``data``.
    """

    data: int
    action: int
    action_release: int | None
    has_containers: bool
    has_size: bool


def _devres_layout(prog: Program) -> _DevresLayout:
    devres_type = prog.type("struct devres")
    data = offsetof(devres_type, "data")
    # Since Linux kernel commits 55e329d0f7a0 ("devres: add free_node callback to struct
    # devres_node") and 2b5c6a14b5b4 ("devres: don't require ARCH_DMA_MINALIGN for devres
    # actions") (in v7.1), the node's release function is not that of the payload but
    # that of the container: struct devres, which holds the payload's, or struct
    # devres_action, which has no other.
    has_containers = devres_type.has_member("release")
    return _DevresLayout(
        data=data,
        action=offsetof(prog.type("struct devres_action"), "action") if has_containers else data,
        action_release=_function_address(prog, "devm_action_release"),
        has_containers=has_containers,
        # Unconditional since Linux kernel commit 09705dcb63d2 ("devres: Enable trace
        # events") (in v5.14). Before that, only with CONFIG_DEBUG_DEVRES.
        has_size=prog.type("struct devres_node").has_member("size"),
    )


def _resource_of(node: Object, layout: _DevresLayout) -> _Resource:
    release = node.release.value_()
    is_action = release == layout.action_release
    if layout.has_containers and not is_action:
        release = container_of(node, "struct devres", "node").release.value_()
    payload = node.value_() + (layout.action if is_action else layout.data)
    return _Resource(release, payload, node.size.value_() if layout.has_size else None)


def _function_address(prog: Program, name: str) -> int | None:
    # By symbol: the debugging information of a function that is only an
    # address (devm_kmalloc_release() is empty) need not hold one.
    # drgn searches all symbols for that, and this is asked for each device.
    known = prog.cache.setdefault("zonedev_functions", {})
    if name not in known:
        try:
            known[name] = prog.symbol(name).address
        except LookupError:
            return None
    return known[name]


@takes_program_or_default
def dev_pagemap_devices(prog: Program, pgmaps: frozenset[int]) -> dict[int, PgmapDevice]:
    """
    Find the devices that pgmaps were created for.

    A device owns a pgmap if ``devm_memremap_pages()`` left an action for it
    there, or if the pgmap lies in memory that the device's driver got from
    ``devm_kzalloc()``; the latter is true before ``memremap_pages()`` returns,
    too. Such memory leads to its device. The other pgmaps are looked up in one walk over
    the buses that have device memory, and what is not found there in one over all devices.

    :param pgmaps: Addresses of ``struct dev_pagemap``.
    :return: Device by address of the pgmap. Pgmaps whose driver manages them
        in another way are missing.
    """
    found: dict[int, PgmapDevice] = {}
    for pgmap, dev in _all_owners(prog, pgmaps):
        with contextlib.suppress(*_DAMAGE):
            driver, module = _optional(dev_driver, dev) or (None, None)
            found[pgmap] = PgmapDevice(
                name=dev_name(dev),
                kind=device_subsystem(dev),
                address=dev.value_(),
                disk=_disk_below(dev),
                driver=driver,
                module=module,
                node=_optional(dev_to_node, dev),
                region=_region(dev_name(dev)),
                region_device=_optional(_region_device, dev),
            )
        if len(found) == len(pgmaps):
            break
    return found


@takes_program_or_default
def for_each_dev_pagemap_owner(prog: Program, pgmaps: frozenset[int]) -> Iterator[Object]:
    """
    Iterate over every device that :func:`dev_pagemap_devices()` may look at, even if too
    little of it can be read to name it.

    :param pgmaps: Addresses of ``struct dev_pagemap``.
    :return: Iterator of ``struct device *``
    """
    yield from {dev.value_(): dev for _, dev in _all_owners(prog, pgmaps)}.values()


_Owners = Iterator[tuple[int, Object]]


def _all_owners(prog: Program, pgmaps: frozenset[int]) -> _Owners:
    # The cheapest walk comes first.
    walks = (_owners_of_memory, _owners_on_buses, _owners_anywhere)
    return chain.from_iterable(walk(prog, pgmaps) for walk in walks if pgmaps)


def _owners_of_memory(prog: Program, pgmaps: frozenset[int]) -> _Owners:
    for pgmap in sorted(pgmaps):
        with contextlib.suppress(*_DAMAGE):
            node = _node_in_front(prog, pgmap)
            dev = _device_of(node) if node is not None else None
            if dev is not None:
                yield pgmap, dev


def _owners_on_buses(prog: Program, pgmaps: frozenset[int]) -> _Owners:
    return _owners(for_each_bus_device(prog, *_BUSES), pgmaps)


def _owners_anywhere(prog: Program, pgmaps: frozenset[int]) -> _Owners:
    return _owners(for_each_device_with_resources(prog), pgmaps)


def _owners(devices: Iterator[Object], pgmaps: frozenset[int]) -> _Owners:
    with contextlib.suppress(*_DAMAGE):
        for dev in devices:
            with contextlib.suppress(*_DAMAGE):
                for pgmap in owned_pgmaps(dev, pgmaps):
                    yield pgmap, dev


def owned_pgmaps(dev: Object, pgmaps: frozenset[int]) -> Iterator[int]:
    """
    Find those of some pgmaps that a device owns.

    :param dev: ``struct device *``
    :param pgmaps: Addresses of ``struct dev_pagemap``.
    """
    prog = dev.prog_
    action_release = _function_address(prog, "devm_action_release")
    memremap_release = _function_address(prog, "devm_memremap_pages_release")
    for release, payload, size in for_each_devres(dev):
        if release == action_release:
            action = Object(prog, "struct action_devres *", payload)
            if action.action.value_() == memremap_release and action.data.value_() in pgmaps:
                yield action.data.value_()
        else:
            allocation = _Resource(release, payload, size)
            yield from (p for p in pgmaps if _is_in(prog, p, allocation))


def _is_in(prog: Program, pgmap: int, resource: _Resource) -> bool:
    if resource.release != _function_address(prog, "devm_kmalloc_release"):
        return False
    return resource.size is not None and 0 <= pgmap - resource.payload < resource.size


def _node_in_front(prog: Program, pgmap: int) -> Object | None:
    # What devm_kzalloc() gives begins with a devres_node.
    layout = _devres_layout(prog)
    # Since Linux kernel commit 59bb47985c1d ("mm, sl[aou]b: guarantee natural alignment for
    # kmalloc(power-of-two)") (in v5.4), an object begins at a multiple of its size. In
    # others, the pgmap may come first.
    for node in _nodes_to_try(prog, pgmap):
        with contextlib.suppress(FaultError):
            if _is_in(prog, pgmap, _resource_of(node, layout)):
                return node
    return None


def _nodes_to_try(prog: Program, pgmap: int) -> list[Object]:
    starts = (pgmap & -1 << order for order in _KMALLOC_ORDERS)
    tried = dict.fromkeys((*starts, pgmap - offsetof(prog.type("struct devres"), "data")))
    return [Object(prog, "struct devres_node *", start) for start in tried]


def guessed_words(prog: Program, pgmap: int) -> frozenset[int]:
    """
    Get the addresses of the words that :func:`dev_pagemap_devices()` looks at to find out
    that they are not part of a ``struct devres_node``, or of a ``struct device``. Some may
    be part of others.

    :param pgmap: Address of a ``struct dev_pagemap``.
    """
    found = _node_in_front(prog, pgmap)
    words = {
        word
        for node in _nodes_to_try(prog, pgmap)
        if found is None or node.value_() != found.value_()
        for word in _words_of_node(node)
    }
    dev = _device_of(found) if found is not None else None
    for other in _ring(found) if found is not None else ():
        guess = _device_at(other)
        if dev is None or guess.value_() != dev.value_():
            words |= {guess.kobj.kset.address_, guess.bus.address_, guess.member_("class").address_}
    return frozenset(word for word in words if word is not None)


def _words_of_node(node: Object) -> Iterator[int | None]:
    yield node.release.address_
    if node.prog_.type("struct devres_node").has_member("size"):
        yield node.size.address_
    if node.prog_.type("struct devres").has_member("release"):
        yield container_of(node, "struct devres", "node").release.address_


def _ring(node: Object) -> Iterator[Object]:
    entries = list_entries(node.prog_, "struct devres_node", node.entry.address_of_(), "entry")
    return islice(entries, _MAX_RESOURCES)


def _device_at(head: Object) -> Object:
    return container_of(head.entry.address_of_(), "struct device", "devres_head")


def _device_of(node: Object) -> Object | None:
    # The list is circular: one of its apparent nodes is the head, which is in the device.
    kset = node.prog_["devices_kset"].value_()
    devices = (_device_at(other) for other in _ring(node))
    return next((dev for dev in devices if _is_device(dev, kset)), None)


def _is_device(dev: Object, kset: int) -> bool:
    with contextlib.suppress(FaultError):
        return bool(dev.kobj.kset.value_() == kset)
    # Exports of version 0.1 have only the names of a device.
    with contextlib.suppress(FaultError):
        return device_subsystem(dev) in _BUSES
    return False


def _optional(read: Callable[[Object], _T | None], dev: Object) -> _T | None:
    # An export has no more of a device than its names.
    with contextlib.suppress(*_DAMAGE):
        return read(dev)
    return None


def _region(name: str) -> int | None:
    # dax0.1, pfn0.1 and others begin with the number of their region.
    found = _IN_REGION.match(name)
    return int(found[1]) if found else None


def _region_device(dev: Object) -> str | None:
    # A dax device is the child of a dax_region, or of a pfn device, in the region.
    for ancestor in device_ancestors(dev):
        name = dev_name(ancestor)
        if _REGION.match(name) and device_subsystem(ancestor) in _BUSES_OF_REGIONS:
            return name
    return None


def _disk_below(dev: Object) -> str | None:
    # device_add_disk() makes the disk a child of the device that owns the pgmap.
    for child in for_each_child_device(dev):
        if device_subsystem(child) == "block":
            return dev_name(child)
    return None
