# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dumps that makedumpfile wrote.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.apt import Suite
from drgn_zonedev.lab.host.errors import LabError, StepProgress
from drgn_zonedev.lab.kernels.known import ALL_KERNELS, Kernel
from drgn_zonedev.lab.targets.program import DebianProgram, fetch_program

__all__ = ("FORMATS", "NOT_POSSIBLE", "Format", "makedumpfile", "write_filtered")

# Some seconds for a gigabyte on an idle host.
_SECONDS = 240

# A suite's makedumpfile supports the suite's kernel. Backports do not have their own; that of the
# next release is newer than its kernel.
_CODENAMES = {"trixie-backports": "forky"}


@dataclass(frozen=True)
class Format:
    """How makedumpfile writes, and what it leaves out."""

    name: str
    option: str
    level: int
    """1 leaves out pages of zeros, 31 also the page cache, processes' memory, and free pages; 23 is
    31 without the processes' memory."""

    def __str__(self) -> str:
        return f"{self.name}-{self.level}"


FORMATS = tuple(
    Format(name, option, level)
    for name, option in (("zlib", "-c"), ("lzo", "-l"), ("zstd", "-z"), ("elf", "-E"))
    for level in (1, 23, 31)
)


_NO_ZSTD = "Debian builds makedumpfile with zstd only since version 1.7.5"
_DROPS_SLAB = "makedumpfile 1.7.8 takes slab pages of this kernel for memory of processes"

NOT_POSSIBLE: dict[tuple[str, str], str] = {
    **{(kernel, f"zstd-{level}"): _NO_ZSTD for kernel in ("5.10", "6.1") for level in (1, 23, 31)},
    **{
        (kernel, f"{name}-31"): _DROPS_SLAB
        for kernel in ("7.2", "7.3")
        for name in ("zlib", "lzo", "zstd")
    },
}
"""Why, of the kernels (keys of ``KERNELS``) and formats that do not work."""


def makedumpfile(kernel: Kernel, progress: StepProgress = None) -> DebianProgram:
    """Return the makedumpfile that is meant for a kernel."""
    suite = ALL_KERNELS.get(kernel.name)
    if suite is None:
        raise LabError(f"no Debian suite is known to have a makedumpfile for {kernel.release}")
    codename = _CODENAMES.get(suite.codename, suite.codename)
    return fetch_program("makedumpfile", Suite(codename, architecture=suite.architecture), progress)


def write_filtered(program: DebianProgram, dump: Path, target: Path, form: Format) -> None:
    """Filter `dump` into a new file."""
    command = program.command(form.option, "-d", str(form.level), str(dump), str(target))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise LabError(f"makedumpfile did not finish within {_SECONDS} s") from e
    if done.returncode:
        said = [line for line in re.split(r"[\r\n]+", done.stdout + done.stderr) if line.strip()]
        raise LabError(f"makedumpfile {program.version} failed: {' / '.join(said[-3:])}")
