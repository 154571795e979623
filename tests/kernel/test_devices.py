# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a device says of itself."""

from __future__ import annotations

import pytest
from drgn import Object, Program
from support.structures import Structures

from drgn_zonedev.kernel.devices import dev_driver, dev_to_node
from drgn_zonedev.kernel.devres import _region

STRUCTS = {
    "device": (("driver", "struct device_driver *"), ("numa_node", "int")),
    "device_driver": (("name", "char *"), ("owner", "struct module *")),
    "module": (("name", "char [56]"),),
}


def device(prog: Program, **members: object) -> Object:
    """A device by value, whose strings are in memory."""
    return Object(prog, "struct device", members)


@pytest.mark.parametrize(("node", "expected"), [(-1, None), (0, 0), (3, 3)])
def test_numa_node(node: int, expected: int | None) -> None:
    prog = Structures(STRUCTS).program()
    assert dev_to_node(device(prog, numa_node=node)) == expected


def test_device_without_a_driver() -> None:
    prog = Structures(STRUCTS).program()
    assert dev_driver(device(prog)) is None


@pytest.mark.parametrize("built_in", [False, True])
def test_driver_and_its_module(built_in: bool) -> None:
    made = Structures(STRUCTS)
    name = made.string("nvme")
    module = made.new("module")
    made.poke(module, b"nvme_core\0")
    driver = made.new("device_driver", name=name, owner=0 if built_in else module)
    dev = device(made.program(), driver=driver)
    assert dev_driver(dev) == ("nvme", None if built_in else "nvme_core")


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("dax0.0", 0),
        ("dax12.1", 12),
        ("pfn3.0", 3),
        ("namespace1.0", 1),
        ("0000:00:01.0", None),
        ("dax0", None),
        ("region0", None),
        ("dax0.0x", None),
    ],
)
def test_region_of_a_name(name: str, region: int | None) -> None:
    assert _region(name) == region
