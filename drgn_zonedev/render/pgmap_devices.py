# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The devices behind pgmaps: as a table, and as a line for each. Text from a dump is always escaped
before it reaches the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from drgn_zonedev.model import Pgmap, PgmapDevice
from drgn_zonedev.render.cells import device_text, fitted_table
from drgn_zonedev.render.screen import Screen
from drgn_zonedev.util.strings import printable

__all__ = ("device_line", "devices_table", "is_known", "one_per_device")


_HEADERS = ("DEVICE", "BUS", "DRIVER", "REGION", "NODE", "RESOURCE")
# Those to drop if there is not enough room, the least important first.
_LEAST = ("BUS", "DRIVER", "REGION")


def devices_table(pgmaps: Sequence[Pgmap], *, screen: Screen | None = None) -> str:
    """Render a row per pgmap, of what is known of the devices of any."""
    rows = [_cells(pgmap) for pgmap in pgmaps]
    filled = [i for i in range(len(_HEADERS)) if any(row[i] for row in rows)]
    headers = [_HEADERS[i] for i in filled]
    cells = [[row[i] for i in filled] for row in rows]
    return fitted_table(headers, cells, screen, [name for name in _LEAST if name in headers])


def one_per_device(pgmaps: Iterable[Pgmap]) -> list[Pgmap]:
    """Get one pgmap of each device: a PCI device may have several."""
    found: dict[tuple[str, ...], Pgmap] = {}
    for pgmap in pgmaps:
        found.setdefault(_cells(pgmap), pgmap)
    return list(found.values())


def is_known(pgmap: Pgmap) -> bool:
    """Return whether more is known of a pgmap's device than its name and bus."""
    return any(_cells(pgmap)[2:])


def _cells(pgmap: Pgmap) -> tuple[str, ...]:
    device, resource = pgmap.device, pgmap.resource or ""
    name = device_text(pgmap) or "?"
    if device is None:
        return name, "", "", "", "", resource
    node = "" if device.node is None else str(device.node)
    return name, device.kind, _driver(device), _region(device), node, resource


def _driver(device: PgmapDevice) -> str:
    # As the kernel writes a symbol of a module.
    if device.driver and device.module and device.module != device.driver:
        return f"{device.driver} [{device.module}]"
    return device.driver or ""


def _region(device: PgmapDevice) -> str:
    if device.region_device is not None:
        return device.region_device
    return "" if device.region is None else str(device.region)


def device_line(pgmap: Pgmap) -> str:
    """Get a line about the device of a pgmap, without an end; empty if it is not known."""
    label = "provider" if pgmap.type == "MEMORY_DEVICE_PCI_P2PDMA" else "device"
    words = list(_words(pgmap))
    return printable(f"    {label}: {', '.join(words)}") if words else ""


def _words(pgmap: Pgmap) -> Iterator[str]:
    device = pgmap.device
    if device is not None:
        name = device_text(pgmap)
        yield f"{name} on {device.kind}" if device.kind else f"{name}"
        if device.driver:
            yield f"driver {_driver(device)}"
        if _region(device):
            yield _region(device) if device.region_device else f"region {device.region}"
        if device.node is not None:
            yield f"node {device.node}"
    elif pgmap.resource is not None:
        yield "not known"
    if pgmap.resource is not None:
        yield f"resource {pgmap.resource}"
