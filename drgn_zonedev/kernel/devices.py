# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Devices
-------

The ``drgn_zonedev.kernel.devices`` module iterates over the devices of a kernel whose
memory may be damaged. drgn's :mod:`drgn.helpers.linux.device` never ends on a list that has
a cycle, and finds a bus by its ``struct bus_type``, which may be in a module without
debugging information.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, Object, Program, container_of, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.vmcore.reads import read_memory, read_word

__all__ = (
    "dev_driver",
    "dev_name",
    "dev_to_node",
    "device_ancestors",
    "device_links",
    "device_subsystem",
    "for_each_bus_device",
    "for_each_child_device",
    "for_each_device",
    "for_each_device_with_resources",
)

# Below /sys/devices, a dozen is deep; a damaged chain can be endless.
_MAX_DEPTH = 64


@takes_program_or_default
def for_each_device(prog: Program) -> Iterator[Object]:
    """
    Iterate over every device under ``/sys/devices``.

    :return: Iterator of ``struct device *``
    """
    head = prog["devices_kset"].list.address_of_()
    for kobj in list_entries(prog, "struct kobject", head, "entry"):
        yield container_of(kobj, "struct device", "kobj")


@takes_program_or_default
def for_each_device_with_resources(prog: Program) -> Iterator[Object]:
    """
    Like :func:`for_each_device()`, but only for the few devices that manage resources. One
    read of each device gets its resources and the next device.

    :return: Iterator of ``struct device *``
    """
    entry, resources = device_links(prog)
    pointer = prog.pointer_type(prog.type("struct device"))
    head = prog["devices_kset"].list.address_of_().value_()
    seen = {head}
    node = read_word(prog, head)
    read = _both_links
    while node not in seen:
        seen.add(node)
        address = node - entry & (1 << 64) - 1
        try:
            node, first = read(prog, node, address + resources)
        except FaultError:
            # An export holds no more of a device than these.
            read = _each_link
            node, first = read(prog, node, address + resources)
        if first != address + resources:
            yield Object(prog, pointer, address)


def _both_links(prog: Program, first: int, second: int) -> tuple[int, int]:
    # The kobject comes before the resources in every kernel.
    raw = read_memory(prog, first, second + 8 - first)
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[-8:], "little")


def _each_link(prog: Program, first: int, second: int) -> tuple[int, int]:
    return read_word(prog, first), read_word(prog, second)


def device_links(prog: Program) -> tuple[int, int]:
    """
    Get the offsets in ``struct device`` of its entry in the list of all devices, and of the
    list of its managed resources.
    """
    device_type = prog.type("struct device")
    return offsetof(device_type, "kobj.entry"), offsetof(device_type, "devres_head")


@takes_program_or_default
def for_each_bus_device(prog: Program, *buses: str) -> Iterator[Object]:
    """
    Iterate over the devices on buses, one bus after the other, like ``bus_for_each_dev()``.

    :param buses: Names as in ``/sys/bus``; those that the kernel does not have are skipped.
    :return: Iterator of ``struct device *``
    """
    found: dict[str, Object] = {}
    head = prog["bus_kset"].list.address_of_()
    for bus in list_entries(prog, "struct subsys_private", head, "subsys.kobj.entry"):
        found.setdefault(c_string(bus.subsys.kobj.name), bus)
        if all(name in found for name in buses):
            break
    for bus in (found[name] for name in buses if name in found):
        devices = bus.klist_devices.k_list.address_of_()
        for private in list_entries(prog, "struct device_private", devices, "knode_bus.n_node"):
            yield private.device.read_()


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


def device_ancestors(dev: Object) -> Iterator[Object]:
    """
    Iterate over the parent of a device, its parent, and so on; not further than is possible.

    :param dev: ``struct device *``
    :return: Iterator of ``struct device *``
    """
    for _ in range(_MAX_DEPTH):
        dev = dev.parent.read_()
        if not dev:
            return
        yield dev


def device_subsystem(dev: Object) -> str:
    """
    Get the name of a device's bus or class, as ``/sys/.../subsystem`` shows it.

    :param dev: ``struct device *``
    """
    for member in ("bus", "class"):
        if subsystem := dev.member_(member).read_():
            return c_string(subsystem.name)
    return ""


def dev_name(dev: Object) -> str:
    """
    Get the name of a device, like ``dev_name()``.

    :param dev: ``struct device *``
    """
    return c_string(dev.init_name) or c_string(dev.kobj.name)


def dev_driver(dev: Object) -> tuple[str, str | None] | None:
    """
    Get the name of the driver that is bound to a device, and that of its module, ``None`` if it
    is built in.

    :param dev: ``struct device *``
    """
    driver = dev.driver.read_()
    if not driver:
        return None
    owner = driver.owner.read_()
    return c_string(driver.name), c_string(owner.name) if owner else None


def dev_to_node(dev: Object) -> int | None:
    """
    Get the NUMA node that a device is on, like ``dev_to_node()``; ``None`` for NUMA_NO_NODE.

    :param dev: ``struct device *``
    """
    node = int(dev.numa_node.value_())
    return node if node >= 0 else None
