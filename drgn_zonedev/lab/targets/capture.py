# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A real kdump: the guest panics, and a capture kernel saves what its makedumpfile lets through.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError, StepProgress
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import boot
from drgn_zonedev.lab.machine.initramfs import build_capture_initramfs, file_entry
from drgn_zonedev.lab.scenarios import Scenario
from drgn_zonedev.lab.targets.filtered import makedumpfile
from drgn_zonedev.lab.targets.image import blank_image, disk_device
from drgn_zonedev.lab.targets.program import DebianProgram
from drgn_zonedev.lab.truth.guest_facts import Facts

__all__ = ("CAPTURE_SECONDS", "Kdump", "take_kdump")

# Two kernels boot in it; on a busy host, that takes minutes.
CAPTURE_SECONDS = 240
_RESERVED_MIB = 256
_DISK_BYTES = 1 << 30
_MODULES = ("virtio_pci", "virtio_blk")
_COPY_BYTES = 1 << 20
# One processor and no drivers that are not needed: the reserved memory is small.
_CAPTURE_ARGS = "console=ttyS0 panic=1 nr_cpus=1 irqpoll reset_devices"


@dataclass(frozen=True)
class Kdump:
    """Two dumps of the same moment."""

    vmcore: Path
    """What the capture kernel saved."""
    whole: Path
    """What QEMU dumped right before the panic."""
    facts: Facts
    """What the guest said right before the panic."""


@contextmanager
def take_kdump(
    kernel: Kernel, scenario: Scenario, progress: StepProgress = None
) -> Iterator[Kdump]:
    """
    Boot a guest into a scenario and let it panic; the dumps are gone after the context.

    :raises LabError: if no dump was saved in time
    """
    program = makedumpfile(kernel, progress)
    with tempfile.TemporaryDirectory(prefix="zonedev-lab-kdump-") as directory:
        work = Path(directory)
        blank_image(work / "disk", _DISK_BYTES)
        (work / "initramfs").write_bytes(_initramfs(kernel, program))
        crashing = _crashing(kernel, scenario, work)
        with boot(
            kernel, crashing, timeout=CAPTURE_SECONDS, attempts=1, progress=progress
        ) as guest:
            facts = guest.facts
        _cut(work / "disk", work / "vmcore", int(facts["vmcore_size"]))
        yield Kdump(work / "vmcore", work / "whole", facts)


def _initramfs(kernel: Kernel, program: DebianProgram) -> bytes:
    where = "makedumpfile"
    command = f"{program.guest_command(where)} -l -d 31 /proc/vmcore /tmp/vmcore\n"
    files = [file_entry("command", command.encode()), *program.entries(where)]
    return build_capture_initramfs(kernel, _MODULES, files)


def _crashing(kernel: Kernel, scenario: Scenario, work: Path) -> Scenario:
    """Return the scenario with a panic at its end, right after a dump by QEMU."""
    dump = {"paging": False, "protocol": f"file:{work}/whole"}
    return dataclasses.replace(
        scenario,
        # A host makes its guests panic with an NMI that does not come from a device.
        kernel_args=(
            *scenario.kernel_args,
            f"crashkernel={_RESERVED_MIB}M",
            "unknown_nmi_panic=1",
        ),
        devices=(*scenario.devices, *disk_device(work / "disk", readonly=False)),
        steps=(*scenario.steps, ("crash", _CAPTURE_ARGS)),
        qmp=(*scenario.qmp, ("dump-guest-memory", dump), ("inject-nmi", {})),
        programs=(*scenario.programs, "kexec_load"),
        files={
            **scenario.files,
            "capture/kernel": kernel.vmlinuz,
            "capture/initramfs": work / "initramfs",
        },
    )


def _cut(disk: Path, vmcore: Path, size: int) -> None:
    """Copy what a guest wrote to the beginning of its disk."""
    if not 0 < size <= _DISK_BYTES:
        raise LabError(f"the capture kernel says that it saved {size} bytes")
    with disk.open("rb") as source, vmcore.open("wb") as target:
        while size:
            data = source.read(min(size, _COPY_BYTES))
            target.write(data)
            size -= len(data)
