# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Managed Device Resources
------------------------

The ``drgn_zonedev.kernel.devres`` module finds the device behind a pgmap.

Who calls ``devm_memremap_pages()`` leaves a managed action in the ``struct
device``'s ``devres_head`` (:linux:`drivers/base/devres.c`). Everything that
this needs is in the debugging information of vmlinux, so it works for drivers
whose modules have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import FaultError, Object, Program, container_of, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.model import PgmapDevice
from drgn_zonedev.util.strings import c_string

__all__ = (
    "dev_pagemap_devices",
    "device_subsystem",
    "for_each_child_device",
    "for_each_device",
    "for_each_devres",
)


@takes_program_or_default
def for_each_device(prog: Program) -> Iterator[Object]:
    """
    Iterate over every device under ``/sys/devices``.

    :return: Iterator of ``struct device *``
    """
    head = prog["devices_kset"].list.address_of_()
    for kobj in list_entries(prog, "struct kobject", head, "entry"):
        yield container_of(kobj, "struct device", "kobj")


def for_each_child_device(dev: Object) -> Iterator[Object]:
    """
    Iterate over the direct children of a device, like ``device_for_each_child()``.

    :param dev: ``struct device *``
    :return: Iterator of ``struct device *``
    """
    private = dev.p.read_()
    if not private:
        return
    head = private.klist_children.k_list.address_of_()
    for child in list_entries(dev.prog_, "struct device_private", head, "knode_parent.n_node"):
        yield child.device.read_()


def for_each_devres(dev: Object) -> Iterator[tuple[int, int, int | None]]:
    """
    Iterate over the managed resources of a device.

    :param dev: ``struct device *``
    :return: Iterator of (address of the release function, address of the
        payload, size of the payload)
    """
    prog = dev.prog_
    devres_type = prog.type("struct devres")
    data = offsetof(devres_type, "data")
    # Unconditional since Linux kernel commit 09705dcb63d2 ("devres: Enable trace
    # events") (in v5.14). Before that, only with CONFIG_DEBUG_DEVRES.
    has_size = prog.type("struct devres_node").has_member("size")
    # Since Linux kernel commits 55e329d0f7a0 ("devres: add free_node callback to struct
    # devres_node") and 2b5c6a14b5b4 ("devres: don't require ARCH_DMA_MINALIGN for devres
    # actions") (in v7.1), the node's release function is not that of the payload but
    # that of the container: struct devres, which holds the payload's, or struct
    # devres_action, which has no other.
    has_containers = devres_type.has_member("release")
    action = offsetof(prog.type("struct devres_action"), "action") if has_containers else data
    action_release = _function_address(prog, "devm_action_release")
    for node in list_entries(prog, "struct devres_node", dev.devres_head.address_of_(), "entry"):
        release = node.release.value_()
        payload = node.value_() + (action if release == action_release else data)
        if has_containers and release != action_release:
            release = container_of(node, devres_type, "node").release.value_()
        yield release, payload, node.size.value_() if has_size else None


def _function_address(prog: Program, name: str) -> int | None:
    # By symbol: the debugging information of a function that is only an
    # address (devm_kmalloc_release() is empty) need not hold one.
    # drgn goes through all symbols for that, and there is a question per device.
    known = prog.cache.setdefault("zonedev_functions", {})
    if name not in known:
        try:
            known[name] = prog.symbol(name).address
        except LookupError:
            return None
    return known[name]


def device_subsystem(dev: Object) -> str:
    """
    Get the name of a device's bus or class, as ``/sys/.../subsystem`` shows it.

    :param dev: ``struct device *``
    """
    for member in ("bus", "class"):
        subsystem = dev.member_(member).read_()
        if subsystem:
            return c_string(subsystem.name)
    return ""


def _name(dev: Object) -> str:
    # dev_name()
    return c_string(dev.init_name) or c_string(dev.kobj.name)


def _disk_below(dev: Object) -> str | None:
    # device_add_disk() makes the disk a child of the device that owns the pgmap.
    for child in for_each_child_device(dev):
        if device_subsystem(child) == "block":
            return _name(child)
    return None


def _devices(prog: Program) -> Iterator[Object]:
    # The kernel's list is one damaged pointer away from ending early. Names
    # are a convenience: what was found before the damage is still good.
    try:
        yield from for_each_device(prog)
    except (FaultError, LookupError, AttributeError):
        return


@takes_program_or_default
def dev_pagemap_devices(prog: Program, pgmaps: frozenset[int]) -> dict[int, PgmapDevice]:
    """
    Find the devices that pgmaps were created for.

    A device owns a pgmap if ``devm_memremap_pages()`` left an action for it
    there, or if the pgmap lies in memory that the device's driver got from
    ``devm_kzalloc()``; the latter is true before ``memremap_pages()`` returns,
    too. All pgmaps are looked up in one walk over the devices.

    :param pgmaps: Addresses of ``struct dev_pagemap``.
    :return: Device by address of the pgmap. Pgmaps whose driver manages them
        in another way are missing.
    """
    found: dict[int, PgmapDevice] = {}
    releases = _Releases(
        action=_function_address(prog, "devm_action_release"),
        kmalloc=_function_address(prog, "devm_kmalloc_release"),
        memremap=_function_address(prog, "devm_memremap_pages_release"),
    )
    for dev in _devices(prog):
        if len(found) == len(pgmaps):
            break
        try:
            for pgmap in _owned(prog, dev, releases, pgmaps):
                found[pgmap] = PgmapDevice(
                    name=_name(dev),
                    kind=device_subsystem(dev),
                    address=dev.value_(),
                    disk=_disk_below(dev),
                )
        except (FaultError, LookupError, AttributeError):
            continue
    return found


@dataclass(frozen=True)
class _Releases:
    action: int | None
    kmalloc: int | None
    memremap: int | None


def _owned(
    prog: Program, dev: Object, releases: _Releases, pgmaps: frozenset[int]
) -> Iterator[int]:
    for release, payload, size in for_each_devres(dev):
        if release == releases.action:
            action = Object(prog, "struct action_devres *", payload)
            if action.action.value_() == releases.memremap and action.data.value_() in pgmaps:
                yield action.data.value_()
        elif release == releases.kmalloc and size is not None:
            yield from (p for p in pgmaps if payload <= p < payload + size)
