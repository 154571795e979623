# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a scenario is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drgn_zonedev.lab.scenarios.arithmetic import Expected, MemoryArea

__all__ = ("GuestCommand", "QmpCommand", "Scenario")

GuestCommand = tuple[str, ...]
"""A command of the guest script (``guest/init``): its name and its arguments."""

QmpCommand = tuple[str, Mapping[str, Any]]
"""A QMP command and its arguments."""


@dataclass(frozen=True)
class Scenario:
    """A guest to boot, its steps before it is examined, and the expected ranges."""

    name: str
    summary: str
    """One line."""
    kernel_args: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """QEMU arguments."""
    modules: tuple[str, ...] = ()
    """Loaded in this order before the steps."""
    steps: tuple[GuestCommand, ...] = ()
    qmp: tuple[QmpCommand, ...] = field(default=(), hash=False)
    """Run when the guest says that it is ready for them (step ``hotplug``)."""
    breakpoint: str | None = None
    """Freeze the guest on entry to this kernel function, instead of waiting for the steps' end."""
    breakpoint_argument: int | None = None
    """Freeze it in the call that has this second argument; None: in the first."""
    early: bool = False
    """The breakpoint is before any process runs, which could load what provides VMCOREINFO."""
    debugged: bool = False
    """Have QEMU's gdb server listen to a guest that runs, with its kernel where it was linked."""
    watch_pfn: int | None = None
    """From the breakpoint, go on until the struct page of this PFN is first written."""
    failing_call: tuple[str, int] | None = None
    """A kernel function, which has to return -ENOMEM for this second argument, once."""
    expected: tuple[Expected, ...] = ()
    """The expected ranges, sorted. Everything else is RAM, or a hole between RAM."""
    poisoned: tuple[Expected, ...] = ()
    """The expected ranges, if they are others where the kernel poisons struct pages."""
    of_ram: bool = False
    """All of the expected ranges are RAM's: no device must be said to have any of them."""
    unmapped: tuple[Expected, ...] = ()
    """PFNs in use whose struct pages the kernel has unmapped: it dies if it is asked about them."""
    was: tuple[Expected, ...] = ()
    """The ranges of a device that is being removed, before that."""
    errors: tuple[tuple[str, int, int], ...] = ()
    """Errors that a bug of the kernel leaves here: the finding, the first PFN, and the end."""
    proofs: tuple[str, ...] = ()
    """Functions of ``proofs.py`` that check that the guest is in the intended state."""
    programs: tuple[str, ...] = ()
    """C programs of ``guest/`` that the guest gets, without ``.c``."""
    guest_modules: tuple[str, ...] = ()
    """Kernel modules of ``guest/`` that are built for the guest, without ``.c``."""
    files: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Files of the host that the guest gets, by their names there (without a leading slash)."""
    xfs_mib: int = 0
    """Size of the empty XFS that the guest's command ``xfs`` makes; 0 for none."""
    victims: tuple[int, ...] = ()
    """PFNs that a trial has memory failure handle, which may end the guest."""
    needs: tuple[str, ...] = ()
    """Options of the kernel's configuration, without ``CONFIG_``, that not all kernels have."""
    declares: tuple[str, ...] = ()
    """What the kernel's debugging information must have, and not all have: an enumerator, a
    variable, or ``struct TYPE.MEMBER``."""
    impossible: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Why, for the kernels (keys of ``KERNELS`` and ``PLAIN_KERNELS``) that cannot do this."""
    la57: bool = False
    """Use five-level page tables, if the kernel can. They move the memmap."""
    cx16: bool = False
    """Offer cmpxchg16b, which compiled Python packages require. The kernel must not use it."""
    processors: int = 1
    """If there are more, QEMU executes them in turn."""
    icount: bool = False
    """Have the guest's clock advance by a nanosecond with each instruction."""
    hypervisor: bool = True
    """Let the guest detect that it is virtual."""
    machine: str = "q35,nvdimm=on"
    firmware: str = ""
    """A Debian package's firmware instead of QEMU's own: ``ovmf``, or ``qemu-efi-aarch64``."""
    memory_mib: int = 1024
    max_memory_gib: int = 16
    """What fits into the memory slots, with the RAM."""
    device_tree: tuple[MemoryArea, ...] = ()
    """Persistent memory that the device tree describes, on a machine that has one."""

    @property
    def answers(self) -> bool:
        """Whether the guest's kernel can be asked about every PFN."""
        return not (self.breakpoint or self.unmapped)
