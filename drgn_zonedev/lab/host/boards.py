# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The machines that QEMU emulates, one for each architecture, and the host's programs for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ("BOARDS", "Board", "Registers")


@dataclass(frozen=True)
class Registers:
    """
    Where gdb's dump of the registers has the program counter, the stack pointer, what a function
    returns, its second argument, and where it returns to, if that is a register.
    """

    program_counter: slice
    stack: slice
    result: slice
    second_argument: slice
    link: slice | None


@dataclass(frozen=True)
class Board:
    """
    A machine. ``console`` and ``facts_port`` are the names that Linux gives its two serial ports.
    """

    qemu: str
    cpu: str
    compiler: str
    console: str
    facts_port: str
    make: tuple[str, ...]
    """Arguments of a kernel's or a module's build, besides the compiler."""
    image: Path
    """What QEMU boots, in the kernel's tree."""
    registers: Registers | None
    """None: no guest is frozen at a breakpoint."""
    has_vmcoreinfo: bool = True
    """Whether a guest can tell QEMU its VMCOREINFO, by ``-device vmcoreinfo``."""


def _register(number: int) -> slice:
    # Eight bytes in hexadecimal digits.
    return slice(number * 16, number * 16 + 16)


BOARDS = {
    "amd64": Board(
        qemu="qemu-system-x86_64",
        cpu="max",
        compiler="gcc",
        console="ttyS0",
        facts_port="ttyS1",
        make=(),
        image=Path("arch/x86/boot/bzImage"),
        registers=Registers(
            # rip comes after sixteen registers; rsp, rax and rsi are among them.
            program_counter=_register(16),
            stack=_register(7),
            result=_register(0),
            second_argument=_register(4),
            link=None,
        ),
    ),
    "arm64": Board(
        qemu="qemu-system-aarch64",
        # Signing pointers by the architecture's own algorithm is slow to emulate.
        cpu="max,pauth-impdef=on",
        compiler="aarch64-linux-gnu-gcc",
        # The board has one port that Linux may use; the other one is on PCI.
        console="ttyAMA0",
        facts_port="ttyS0",
        make=("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"),
        # Firmware does not start a compressed one.
        image=Path("arch/arm64/boot/Image"),
        registers=Registers(
            # x0 to x30, sp and pc.
            program_counter=_register(32),
            stack=_register(31),
            result=_register(0),
            second_argument=_register(1),
            link=_register(30),
        ),
    ),
    "ppc64el": Board(
        qemu="qemu-system-ppc64",
        # It has a radix MMU.
        cpu="power9",
        compiler="powerpc64le-linux-gnu-gcc",
        # The other one is on PCI.
        console="hvc0",
        facts_port="ttyS0",
        make=("ARCH=powerpc", "CROSS_COMPILE=powerpc64le-linux-gnu-"),
        image=Path("vmlinux"),
        registers=None,
        # It has no fw_cfg.
        has_vmcoreinfo=False,
    ),
}
"""By Debian's names of architectures."""
