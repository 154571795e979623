# SPDX-License-Identifier: LGPL-2.1-or-later

"""
QEMU: its command line, its accelerator, and its end.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drgn_zonedev.lab.host.boards import BOARDS
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.qmp import execute
from drgn_zonedev.lab.scenarios import Scenario

__all__ = ("accelerator", "kvm_works", "machine_arguments", "qemu_command", "running")

# QEMU 7.2's emulation of cmpxchg16b sometimes leaves garbage in the flags. 6.12 panics because of
# that: its slab allocator uses the instruction if the CPU has it. Programs do not.
_X86_FEATURE_CX16 = 4 * 32 + 13
_KVM_PROBE_SECONDS = 5.0
_QUIT_SECONDS = 5.0
# Where the guest script reports if no parameter says otherwise.
_USUAL_PORT = "ttyS1"


def kvm_works(timeout: float = _KVM_PROBE_SECONDS) -> bool:
    """
    Return whether KVM runs guest code: a machine without a disk must reach its firmware's end.

    /dev/kvm may exist although nested virtualisation hangs or does not support the CPU's features.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    # The firmware ends when it finds nothing to boot and, due to -boot reboot-timeout, resets.
    command = [find_tool("qemu-system-x86_64"), "-accel", "kvm", "-M", "q35", "-cpu", "max"]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-boot", "reboot-timeout=1"]
    try:
        return subprocess.run(command, timeout=timeout, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def accelerator(accel: str) -> str:
    """Return QEMU's ``-accel`` for ``tcg``, ``kvm`` or ``auto``: KVM if it works."""
    if accel not in ("auto", "tcg", "kvm"):
        raise LabError(f"unknown accelerator {accel!r}: choose auto, tcg or kvm")
    if accel == "tcg" or not kvm_works():
        if accel == "kvm":
            raise LabError("KVM does not work on this machine: use accel='tcg'")
        return "tcg,thread=multi"
    return "kvm"


def _cpu(scenario: Scenario) -> str:
    flags = {"cx16": scenario.cx16, "la57": scenario.la57, "hypervisor": scenario.hypervisor}
    cpu = BOARDS["amd64"].cpu
    return ",".join([cpu, *(f"{flag}={'on' if on else 'off'}" for flag, on in flags.items())])


def machine_arguments(kernel: Kernel, scenario: Scenario, memory_mib: int) -> dict[str, str]:
    """Return the arguments that say what machine it is, by option."""
    memory = f"{memory_mib}M,slots=4,maxmem={scenario.max_memory_gib}G"
    # With two processors in two threads, TCG sometimes executes a breakpoint that the kernel has
    # just patched out of its code (text_poke_bp()), and the guest dies at boot.
    cpu = _cpu(scenario) if kernel.architecture == "amd64" else BOARDS[kernel.architecture].cpu
    return {"-M": scenario.machine, "-cpu": cpu, "-m": memory, "-smp": str(scenario.processors)}


def _executing(scenario: Scenario, accel: str) -> tuple[str, ...]:
    if scenario.icount:
        # Without sleep, an idle guest's clock goes on at once to the next timer.
        return ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off")
    if scenario.processors > 1:
        # In one thread, all processors see changed code at once.
        return ("-accel", "tcg,thread=single")
    return ("-accel", accel)


def _ports(kernel: Kernel, work: Path) -> tuple[str, ...]:
    console, facts = f"file:{work}/console.log", f"{work}/facts.txt"
    if BOARDS[kernel.architecture].facts_port != _USUAL_PORT:
        port = ("-chardev", f"file,id=facts,path={facts}", "-device", "pci-serial,chardev=facts")
        return ("-serial", console, *port)
    return ("-serial", console, "-serial", f"file:{facts}")


def qemu_command(
    kernel: Kernel,
    scenario: Scenario,
    work: Path,
    *,
    memory_mib: int,
    accel: str,
    firmware: Path | None = None,
    device_tree: Path | None = None,
) -> list[str]:
    """
    Return the command line of QEMU.

    :param work: where its files are
    :param firmware: instead of QEMU's own
    :param device_tree: instead of what QEMU makes itself
    """
    board = BOARDS[kernel.architecture]
    append = [f"console={board.console}", "panic=1", "oops=panic", *scenario.kernel_args]
    if board.facts_port != _USUAL_PORT:
        append.append(f"facts_port={board.facts_port}")
    debugged: list[str] = []
    if scenario.cx16:
        append.append(f"clearcpuid={_X86_FEATURE_CX16}")
    if scenario.breakpoint or scenario.failing_call or scenario.debugged:
        append.append("nokaslr")
        debugged = ["-gdb", f"unix:{work}/gdb.sock,server=on,wait=off"]
    if scenario.breakpoint or scenario.failing_call:
        debugged.append("-S")
    machine = machine_arguments(kernel, scenario, memory_mib)
    return [
        find_tool(board.qemu),
        *_executing(scenario, accel),
        *(word for argument in machine.items() for word in argument),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *_ports(kernel, work),
        *("-qmp", f"unix:{work}/monitor.sock,server=on,wait=off"),
        *("-qmp", f"unix:{work}/drgn.sock,server=on,wait=off"),
        *(("-device", "vmcoreinfo") if board.has_vmcoreinfo else ()),
        *(("-bios", str(firmware)) if firmware else ()),
        *(("-dtb", str(device_tree)) if device_tree else ()),
        *scenario.devices,
        *debugged,
        *("-kernel", str(kernel.vmlinuz)),
        *("-initrd", f"{work}/initramfs"),
        *("-append", " ".join(append)),
    ]


@contextmanager
def running(command: list[str], work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run QEMU; it ends with the context, and with this thread, even if the process is killed."""
    # In its own session: Ctrl-C must reach only this process, which then ends QEMU.
    with (work / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            [find_tool("setpriv"), "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process, work / "monitor.sock")


def _stop(process: subprocess.Popen[bytes], monitor: Path) -> None:
    """End QEMU: politely, then less so."""

    def quit_by_qmp() -> None:
        execute(monitor, "quit", {}, timeout=3)

    try:
        for step in (quit_by_qmp, process.terminate):
            if process.poll() is None:
                # QEMU may have ended before it answered, or may not listen yet.
                with suppress(LabError, subprocess.TimeoutExpired):
                    step()
                    process.wait(_QUIT_SECONDS)
    finally:
        # Also after a second Ctrl-C: the guest must not survive that.
        if process.poll() is None:
            process.kill()
            process.wait()
