# SPDX-License-Identifier: LGPL-2.1-or-later

"""The devices behind pgmaps, by the three ways that lead to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from drgn import Object, offsetof
from support.devicetree import DeviceTree

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.kernel.devices import device_links
from drgn_zonedev.kernel.devres import (
    dev_pagemap_devices,
    for_each_devres,
    guessed_words,
    owned_pgmaps,
)

# Managed resources know their size since v5.14, and have containers since v7.1.
RELEASES = ("5.10", "6.1", "7.3")
PGMAP_SIZE = 256


@pytest.fixture(params=RELEASES)
def tree(request: pytest.FixtureRequest) -> Iterator[DeviceTree]:
    directory = default_directory()
    assert directory is not None
    with StoredDump(directory / f"{request.param}-empty").program() as prog:
        found = DeviceTree(prog)
        for bus in ("platform", "pci", "nd", "dax", "cxl"):
            found.bus(bus)
        yield found


def named(tree: DeviceTree, *pgmaps: int) -> dict[int, str]:
    devices = dev_pagemap_devices(tree.prog, frozenset(pgmaps))
    return {pgmap: f"{device.kind}:{device.name}" for pgmap, device in devices.items()}


def reads_of_links(tree: DeviceTree, devices: list[int]) -> list[int]:
    """Where a device was read for the next one, or for what it manages."""
    links = {dev + link for dev in devices for link in device_links(tree.prog)}
    return [address for address in tree.reads if address in links]


def knows_sizes(tree: DeviceTree) -> bool:
    return tree.prog.type("struct devres_node").has_member("size")


@pytest.mark.parametrize("bus", ["platform", "pci", "nd", "dax"])
def test_device_with_the_action_is_found_on_any_bus(tree: DeviceTree, bus: str) -> None:
    others = [tree.device(f"other{i}", name) for i, name in enumerate(("platform", "nd", "dax"))]
    for other in others:
        tree.managed_memory(other, 64)
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(tree.device("it", bus), pgmap)
    assert named(tree, pgmap) == {pgmap: f"{bus}:it"}


@pytest.mark.parametrize("bus", ["platform", "nd"])
@pytest.mark.parametrize("offset", [0, 8, 128, 1024])
def test_device_whose_memory_holds_the_pgmap_is_found(
    tree: DeviceTree, bus: str, offset: int
) -> None:
    # Before memremap_pages() returns, there is no action.
    dev = tree.device("it", bus)
    tree.managed_memory(dev, 64)
    pgmap = tree.managed_memory(dev, offset + PGMAP_SIZE) + offset
    tree.managed_memory(dev, 64)
    expected = {pgmap: f"{bus}:it"} if knows_sizes(tree) else {}
    assert named(tree, pgmap) == expected


def test_memory_of_a_pgmap_leads_to_its_device_without_a_walk(tree: DeviceTree) -> None:
    others = [tree.device(f"other{i}", "platform") for i in range(20)]
    dev = tree.device("it", "nd")
    pgmap = tree.managed_memory(dev, PGMAP_SIZE)
    tree.managed_pgmap(dev, pgmap)
    assert named(tree, pgmap) == {pgmap: "nd:it"}
    if knows_sizes(tree):
        assert not reads_of_links(tree, others)


def test_device_on_a_bus_of_device_memory_is_found_without_the_others(tree: DeviceTree) -> None:
    others = [tree.device(f"other{i}", "platform") for i in range(20)]
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(tree.device("it", "dax"), pgmap)
    assert named(tree, pgmap) == {pgmap: "dax:it"}
    assert not reads_of_links(tree, others)


def test_device_without_resources_is_one_read(tree: DeviceTree) -> None:
    others = [tree.device(f"other{i}", "platform") for i in range(20)]
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(tree.device("it", "platform"), pgmap)
    assert named(tree, pgmap) == {pgmap: "platform:it"}
    assert reads_of_links(tree, others) == [other + device_links(tree.prog)[0] for other in others]


def test_devices_of_several_pgmaps(tree: DeviceTree) -> None:
    pgmaps = [tree.allocate(PGMAP_SIZE) for _ in range(3)]
    for name, bus, pgmap in zip("abc", ("platform", "dax", "nd"), pgmaps):
        tree.managed_pgmap(tree.device(name, bus), pgmap)
    lost = tree.allocate(PGMAP_SIZE)
    assert named(tree, *pgmaps, lost) == dict(zip(pgmaps, ("platform:a", "dax:b", "nd:c")))


def test_damaged_bus_does_not_hide_its_device(tree: DeviceTree) -> None:
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(tree.device("it", "dax"), pgmap)
    tree.hide(tree.prog["bus_kset"].value_() + 8)
    assert named(tree, pgmap) == {pgmap: "dax:it"}


def test_devices_in_front_of_damage_are_found(tree: DeviceTree) -> None:
    pgmaps = [tree.allocate(PGMAP_SIZE) for _ in range(2)]
    tree.managed_pgmap(tree.device("first", "platform"), pgmaps[0])
    bad = tree.device("bad", "platform")
    tree.managed_pgmap(tree.device("last", "platform"), pgmaps[1])
    tree.hide(bad + 8)
    assert named(tree, *pgmaps) == {pgmaps[0]: "platform:first"}


def test_resources_of_a_device(tree: DeviceTree) -> None:
    dev = tree.device("it", "nd")
    payload = tree.managed_memory(dev, 96)
    ((release, found, size),) = for_each_devres(Object(tree.prog, "struct device *", dev))
    assert (release, found) == (tree.symbol("devm_kmalloc_release"), payload)
    assert size == (96 if knows_sizes(tree) else None)


def test_words_that_were_guessed_are_not_needed(tree: DeviceTree) -> None:
    dev = tree.device("it", "nd")
    pgmap = tree.managed_memory(dev, 8 + PGMAP_SIZE) + 8
    tree.managed_memory(dev, 64)
    known = named(tree, pgmap)
    guessed = guessed_words(tree.prog, pgmap)
    assert guessed
    tree.reads.clear()
    owned = owned_pgmaps(Object(tree.prog, "struct device *", dev), frozenset((pgmap,)))
    assert list(owned) == list(known)
    for word in guessed - set(tree.reads):
        tree.hide(word)
    assert named(tree, pgmap) == known


# From the root down, as drivers/cxl, drivers/nvdimm and drivers/dax name their devices: daxctl list
# shows a number, which is that of the region.
CHAINS = {
    "cxl": (
        (
            ("root0", "cxl"),
            ("decoder0.0", "cxl"),
            ("region4", "cxl"),
            ("dax_region4", "cxl"),
            ("dax4.0", "dax"),
        ),
        4,
        "region4",
    ),
    "nd": (
        (("ndbus0", "nd"), ("region1", "nd"), ("dax1.0", "nd"), ("dax1.0", "dax")),
        1,
        "region1",
    ),
    "pfn": ((("ndbus0", "nd"), ("region2", "nd"), ("pfn2.1", "nd")), 2, "region2"),
    "hmem": ((("hmem.0", "platform"), ("dax0.0", "dax")), 0, None),
    "provider": ((("region7", "pci"), ("0000:00:01.0", "pci")), None, None),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_region_of_a_device_is_the_one_above_it(tree: DeviceTree, chain: str) -> None:
    devices, number, name = CHAINS[chain]
    dev = 0
    for device in devices:
        dev = tree.device(*device, parent=dev)
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(dev, pgmap)
    found = dev_pagemap_devices(tree.prog, frozenset((pgmap,)))[pgmap]
    assert (found.name, found.region, found.region_device) == (devices[-1][0], number, name)


def test_device_that_is_its_own_parent_has_no_region(tree: DeviceTree) -> None:
    dev = tree.device("dax0.0", "dax")
    tree.poke(dev + offsetof(tree.prog.type("struct device"), "parent"), dev)
    pgmap = tree.allocate(PGMAP_SIZE)
    tree.managed_pgmap(dev, pgmap)
    found = dev_pagemap_devices(tree.prog, frozenset((pgmap,)))[pgmap]
    assert (found.region, found.region_device) == (0, None)
