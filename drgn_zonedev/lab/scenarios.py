# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest is made to do with its ZONE_DEVICE memory: one declaration per scenario."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20

Command = tuple[str, ...]
"""A command of the guest script (``guest/init``): its name and its arguments."""


@dataclass(frozen=True)
class Scenario:
    """A guest to boot, and what it does before anybody looks at it."""

    name: str
    summary: str
    """One line."""
    kernel_args: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """QEMU arguments."""
    modules: tuple[str, ...] = ()
    """Loaded in this order before the steps."""
    steps: tuple[Command, ...] = ()
    breakpoint: str | None = None
    """Freeze the guest on entry to this kernel function, instead of waiting for the steps' end."""


def namespace(
    kind: str, memmap: str = "dev", *, region: str = "region0", align: int = 2 * MIB
) -> Command:
    """Turn a region into one ``fsdax`` or ``devdax`` namespace; its memmap goes to dev or mem."""
    return ("namespace", region, kind, memmap, str(align))


def nvdimm(number: int, size_mib: int) -> tuple[str, ...]:
    """Return QEMU arguments for an NVDIMM without labels, backed by the host's RAM."""
    return (
        "-object",
        f"memory-backend-ram,id=nvdimm{number}-memory,size={size_mib}M",
        "-device",
        f"nvdimm,id=nvdimm{number},memdev=nvdimm{number}-memory",
    )


# Boot RAM declared persistent. It begins in mid-section, so that this section has two owners.
_COLLIDING_PMEM = ("memmap=192M!0x24000000",)

_ALL = (
    Scenario(
        name="fsdax-collision",
        summary="fsdax in boot RAM (PFNs 0x24000-0x30000), sharing its first section with RAM",
        kernel_args=_COLLIDING_PMEM,
        modules=("nd_e820", "nd_pmem"),
        steps=(namespace("fsdax"),),
    ),
    Scenario(
        name="nvdimm-partial",
        summary="devdax on a 320 MiB NVDIMM (PFNs 0x100000-0x114000), ending in mid-section",
        devices=nvdimm(1, 320),
        modules=("nfit", "nd_pmem", "device_dax", "dax_pmem"),
        steps=(namespace("devdax"),),
    ),
    Scenario(
        name="init-in-flight",
        summary="fsdax-collision, frozen on entry to memmap_init_zone_device()",
        kernel_args=_COLLIDING_PMEM,
        modules=("nd_e820", "nd_pmem"),
        steps=(namespace("fsdax"),),
        breakpoint="memmap_init_zone_device",
    ),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
