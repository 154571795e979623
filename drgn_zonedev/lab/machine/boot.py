# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Boot a kernel into a scenario, and make sure that the guest ends.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from drgn_zonedev.lab.host.boards import BOARDS, Registers
from drgn_zonedev.lab.host.errors import (
    GuestEndedError,
    LabError,
    NotPossible,
    StepProgress,
    report,
)
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.addresses import function_address
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.kernels.options import missing_options
from drgn_zonedev.lab.machine.device_tree import make_device_tree
from drgn_zonedev.lab.machine.gdbstub import fail_call, stopped_at
from drgn_zonedev.lab.machine.initramfs import binds_at_boot, build_initramfs
from drgn_zonedev.lab.machine.package_files import fetch_firmware
from drgn_zonedev.lab.machine.qemu import accelerator, qemu_command, running
from drgn_zonedev.lab.machine.qmp import execute, require_qmp
from drgn_zonedev.lab.scenarios import Scenario
from drgn_zonedev.lab.scenarios.arithmetic import struct_page
from drgn_zonedev.lab.truth.guest_facts import (
    Facts,
    failure,
    inability,
    is_ready,
    parse_facts,
    waits_for_host,
)
from drgn_zonedev.lab.truth.module import TRUTH, guest_module, is_of_the_lab
from drgn_zonedev.util.alignment import align_up

__all__ = ("Cancelled", "Guest", "boot", "check_host", "vmcoreinfo_in")

_POLL_SECONDS = 0.1
# For the host's part in a scenario: it may be to dump all memory, onto a disk that is busy.
_HOST_SECONDS = 120
_TAIL_LINES = 15
# The limit of a Unix socket's address, less the longest name that is put there.
_MAX_WORK_DIRECTORY = 107 - len("/monitor.sock")


@dataclass(frozen=True)
class Guest:
    """A guest that has reached the state of its scenario."""

    kernel: Kernel
    scenario: Scenario
    qmp_socket: str
    """For drgn: ``prog.set_qemu_qmp(guest.qmp_socket)``. Takes one client at a time."""
    log: Path
    """The guest's console; deleted when the guest ends."""
    facts: Facts
    """What the guest itself reported; of a frozen guest, what it said before the scenario's steps.
    See ``facts.py``."""
    monitor_socket: Path
    """QMP for all but drgn; also takes one client at a time."""
    pid: int
    """Of QEMU."""

    def qmp(self, command: str, /, timeout: float = 20, **arguments: object) -> object:
        """Run a QMP command and return its answer. A dash in an argument is written as ``_``."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return execute(self.monitor_socket, command, named, timeout)

    def vmcoreinfo(self) -> bytes | None:
        """Return the kernel's VMCOREINFO, if its machine cannot tell QEMU where it is."""
        if BOARDS[self.kernel.architecture].has_vmcoreinfo:
            return None
        address, size = self.facts["vmcoreinfo"]
        note = self.log.with_name("vmcoreinfo")
        self.qmp("pmemsave", val=address, size=size, filename=str(note))
        return vmcoreinfo_in(note.read_bytes())

    def dump(self, path: Path | str, timeout: float = 300) -> Path:
        """
        Write an ELF dump of all guest memory to `path`; the guest is paused meanwhile.

        :raises NotPossible: of ppc64el: QEMU says that it was big-endian
        """
        if self.kernel.architecture == "ppc64el":
            raise NotPossible("QEMU writes dumps of ppc64el as if it was big-endian")
        path = Path(path).absolute()
        # QEMU makes the file read-only, and could not overwrite it later.
        with tempfile.TemporaryDirectory(prefix=".zonedev-", dir=path.parent) as directory:
            new = Path(directory, path.name)
            self.qmp("dump-guest-memory", timeout, paging=False, protocol=f"file:{new}")
            new.replace(path)
        return path


def vmcoreinfo_in(note: bytes) -> bytes:
    """Return the contents of the ELF note of VMCOREINFO, as a machine of this byte order has it."""
    name_size, size = struct.unpack_from("<II", note)
    start = struct.calcsize("<III") + align_up(name_size, 4)
    return note[start : start + size]


Cancelled = Callable[[], bool]


class _GuestFailed(LabError):
    """The guest failed: keep its console."""


class _DidNotBoot(_GuestFailed):
    """The guest did not boot. Emulated machines sometimes do not: try again."""


class _Ended(_DidNotBoot):
    """The guest panicked or rebooted."""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _checker(
    process: subprocess.Popen[bytes],
    scenario: Scenario,
    work: Path,
    timeout: float,
    cancelled: Cancelled,
) -> Callable[[], None]:
    """Return a function that raises as soon as waiting for the guest is useless."""
    deadline = time.monotonic() + timeout
    wanted = list(scenario.qmp)

    def check() -> None:
        reported = _read(work / "facts.txt")
        if reason := failure(reported):
            raise _GuestFailed(f"the guest gave up: {reason}")
        if reason := inability(reported):
            raise NotPossible(reason)
        while wanted and waits_for_host(reported):
            command, arguments = wanted.pop(0)
            execute(work / "monitor.sock", command, arguments, _HOST_SECONDS)
        if cancelled():
            raise LabError("interrupted")
        if scenario.breakpoint and is_ready(reported):
            raise _GuestFailed(f"the guest went through its steps without {scenario.breakpoint}()")
        if process.poll():
            raise LabError(f"QEMU failed: {_read(work / 'qemu.log').strip()}")
        if process.poll() == 0:
            raise _Ended("the guest panicked or rebooted")
        if time.monotonic() > deadline:
            raise _DidNotBoot(f"the guest was not ready within {timeout:.0f} s")

    return check


@contextmanager
def _ready(
    scenario: Scenario,
    work: Path,
    address: int | None,
    check: Callable[[], None],
    registers: Registers | None,
) -> Iterator[None]:
    """Wait for the scenario's state; a breakpoint at `address` holds within the context."""
    if address is None or registers is None:
        while not is_ready(_read(work / "facts.txt")):
            check()
            time.sleep(_POLL_SECONDS)
        yield
    else:
        watched = None if scenario.watch_pfn is None else struct_page(scenario.watch_pfn)
        with stopped_at(
            work / "gdb.sock",
            address,
            check,
            argument=scenario.breakpoint_argument,
            write_to=watched,
            where=registers,
        ):
            yield


@contextmanager
def _started(
    kernel: Kernel,
    scenario: Scenario,
    command: list[str],
    work: Path,
    timeout: float,
    cancelled: Cancelled,
) -> Iterator[Guest]:
    """Run one guest up to the state of its scenario."""
    registers = BOARDS[kernel.architecture].registers
    address = function_address(kernel, scenario.breakpoint) if scenario.breakpoint else None
    with running(command, work) as process:
        check = _checker(process, scenario, work, timeout, cancelled)
        if scenario.failing_call and registers:
            name, argument = scenario.failing_call
            called = function_address(kernel, name)
            fail_call(work / "gdb.sock", called, argument, check, where=registers)
        with _ready(scenario, work, address, check, registers):
            facts = parse_facts(_read(work / "facts.txt"))
            if "frozen" in facts:
                # It would spin.
                execute(work / "monitor.sock", "stop", {}, _HOST_SECONDS)
            guest = Guest(
                kernel=kernel,
                scenario=scenario,
                qmp_socket=str(work / "drgn.sock"),
                log=work / "console.log",
                facts=facts,
                monitor_socket=work / "monitor.sock",
                pid=process.pid,
            )
            try:
                yield guest
            except LabError as e:
                if process.poll() is None:
                    raise
                raise _GuestFailed(f"the guest has ended: {e}") from e


def _check_possible(kernel: Kernel, scenario: Scenario) -> None:
    missing = missing_options(kernel, scenario.needs)
    if missing:
        options = ", ".join(f"CONFIG_{name}" for name in missing)
        raise NotPossible(f"this kernel was built without {options}")
    if scenario.guest_modules and not is_of_the_lab(kernel):
        raise NotPossible("its driver is a module that is built only for the lab's own kernels")
    if scenario.breakpoint and binds_at_boot(kernel, "nd_pmem"):
        raise NotPossible(
            "nd_pmem is built in: it sets up its memory before the scenario, and would be frozen"
        )
    at_breakpoint = scenario.breakpoint or scenario.failing_call
    if at_breakpoint and BOARDS[kernel.architecture].registers is None:
        raise NotPossible(f"guests of {kernel.architecture} are not frozen at breakpoints")


def _work_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="zonedev-lab-")
    # A comma would end a QEMU option.
    if len(directory) > _MAX_WORK_DIRECTORY or "," in directory:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="zonedev-lab-", dir="/tmp")
    return Path(directory)


def _with_log(error: LabError, work: Path) -> LabError:
    """Add the end of the guest's console, and where the whole is kept, to an error."""
    console = _read(work / "console.log")
    lines = console.splitlines()
    # What a panic began with has scrolled by.
    oops = [line for line in lines[:-_TAIL_LINES] if "BUG: " in line][:1]
    lines = [*oops, *lines[-_TAIL_LINES:]]
    # This is printed on a terminal: escape control sequences from the guest.
    tail = "".join(f"\n    {re.sub('[^ -~]', '?', line)}" for line in lines)
    message = f"{error}; its console is kept in {work}/console.log{tail}"
    return GuestEndedError(message, console) if isinstance(error, _Ended) else LabError(message)


def check_host(architecture: str = "amd64") -> None:
    """Raise LabError if the host does not have what every guest of an architecture needs."""
    require_qmp()
    others = {"amd64": ("busybox",), "arm64": ("fdtput",)}.get(architecture, ())
    for program in (BOARDS[architecture].qemu, "setpriv", *others):
        find_tool(program)


def _enough_memory(scenario: Scenario, memory_mib: int | None) -> int:
    # With less, the scenario's physical addresses would be wrong.
    memory_mib = scenario.memory_mib if memory_mib is None else memory_mib
    if memory_mib < scenario.memory_mib:
        raise LabError(
            f"{scenario.name} needs {scenario.memory_mib} MiB of memory, not {memory_mib}"
        )
    return memory_mib


@contextmanager
def boot(
    kernel: Kernel,
    scenario: Scenario,
    *,
    memory_mib: int | None = None,
    accel: str = "tcg",
    timeout: float = 90,
    attempts: int = 2,
    progress: StepProgress = None,
    cancelled: Cancelled = lambda: False,
    truth: bool = False,
) -> Iterator[Guest]:
    """
    Boot `kernel` into `scenario` and yield the guest; it ends with the context.

    Use the context in the thread that entered it: QEMU ends with that thread.

    :param memory_mib: the guest's RAM, if more than the scenario needs
    :param accel: ``tcg``, ``kvm``, or ``auto``: KVM if a probe shows that it works
    :param timeout: seconds that an attempt to boot may take
    :param attempts: how often to start a guest that does not boot
    :param cancelled: asked several times a second whether to give up waiting for the guest
    :param truth: ask the kernel about every PFN (``facts["truth"]``, ``["kpageflags"]``), and stop
        it for good while it answers for every struct page (``facts["frozen"]``)
    :raises NotPossible: if this kernel does not support the scenario
    """
    check_host(kernel.architecture)
    _check_possible(kernel, scenario)
    memory_mib = _enough_memory(scenario, memory_mib)
    chosen = accelerator(accel)
    names = (*scenario.guest_modules, *((TRUTH,) if truth else ()))
    modules = {name: guest_module(kernel, name, progress=progress) for name in names}
    firmware = fetch_firmware(scenario.firmware, progress) if scenario.firmware else None
    initramfs = build_initramfs(kernel, scenario, modules)
    for left in reversed(range(attempts)):
        work = _work_directory()
        (work / "initramfs").write_bytes(initramfs)
        has_tree = bool(scenario.device_tree)
        tree = make_device_tree(kernel, scenario, work, memory_mib) if has_tree else None
        command = qemu_command(
            kernel,
            scenario,
            work,
            memory_mib=memory_mib,
            accel=chosen,
            firmware=firmware,
            device_tree=tree,
        )
        report(progress, f"booting {kernel.release} into {scenario.name}")
        booted = keep = False
        try:
            with _started(kernel, scenario, command, work, timeout, cancelled) as guest:
                booted = True
                yield guest
            return
        except _GuestFailed as e:
            keep = True
            if booted or not left or not isinstance(e, _DidNotBoot):
                raise _with_log(e, work) from e
            report(progress, f"{_with_log(e, work)}\nstarting the guest once more")
        finally:
            (work / "initramfs").unlink(missing_ok=True)
            if not keep:
                shutil.rmtree(work, ignore_errors=True)
