# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Run every kernel in every scenario, several guests at a time.
"""

from __future__ import annotations

import enum
import os
import re
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from drgn_zonedev.lab.host.errors import LabError, NotPossible, StepProgress, report
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import Guest, boot
from drgn_zonedev.lab.scenarios import SCENARIOS, Scenario
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.scenarios.ppc64el import PPC64EL_SCENARIOS
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.model import Report, Severity
from drgn_zonedev.util.intervals import Span

if TYPE_CHECKING:
    from drgn import Program

__all__ = (
    "Cell",
    "CellVerdict",
    "MatrixOptions",
    "RunCell",
    "debug_guest",
    "default_jobs",
    "early_vmcoreinfo",
    "load_guest_symbols",
    "run_cell",
    "run_matrix",
    "scenarios_of",
    "scenarios_on",
)

_LINKED = replace(SCENARIOS["empty"], kernel_args=("nokaslr",))
_VMCOREINFO_SECONDS = 90
_GUEST_BYTES = 2 << 30
"""Memory of the host per guest: the guest's own, and the debugger with the kernel's symbols."""


class CellVerdict(enum.Enum):
    """The outcome of one kernel in one scenario."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_POSSIBLE = "not possible"
    FAILED = "could not run"


@dataclass(frozen=True)
class Cell:
    """The result of one kernel in one scenario."""

    kernel: Kernel
    scenario: Scenario
    verdict: CellVerdict
    details: tuple[str, ...] = ()
    """The differences, or why it is not possible, or why it failed."""
    seconds: float = 0
    report: Report | None = None


@dataclass(frozen=True)
class MatrixOptions:
    """How to run guests."""

    accel: str = "tcg"
    dump: Path | None = None
    """Keep an ELF dump of every guest in this directory."""
    export: Path | None = None
    """Keep a small export of every guest in this directory."""
    timeout: float = 90
    truth: bool = False
    """Ask the guest's kernel about every PFN; a frozen guest cannot be asked."""
    progress: StepProgress = None


def default_jobs() -> int:
    """Return how many guests can run on this machine at a time."""
    # Unlike sysconf(), this counts memory that the page cache can release.
    found = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    guests = (int(found[1]) << 10) // _GUEST_BYTES if found else 1
    return max(1, min(len(os.sched_getaffinity(0)), guests))


def debug_guest(guest: Guest) -> Program:
    """
    Debug a guest with its kernel's symbols.

    That is over QMP; if it is too early for that, by a dump, which is there as long as the guest.
    """
    import drgn

    if guest.scenario.early:
        return _debug_dump(guest, guest.dump(guest.log.with_name("early.elf")))
    given = guest.vmcoreinfo()
    prog = drgn.Program(vmcoreinfo=given)
    prog.set_qemu_qmp(guest.qmp_socket)
    if given is not None:
        # drgn 0.3.0 finds page tables only by what QEMU has.
        prog.set_linux_kernel_custom(given, is_live=True)
    load_guest_symbols(prog, guest.kernel)
    return prog


def _debug_dump(guest: Guest, dump: Path) -> Program:
    import drgn

    vmcoreinfo = early_vmcoreinfo(guest.kernel).read_bytes() if guest.scenario.early else None
    prog = drgn.Program(vmcoreinfo=vmcoreinfo)
    prog.set_core_dump(dump)
    load_guest_symbols(prog, guest.kernel)
    return prog


def early_vmcoreinfo(kernel: Kernel) -> Path:
    """
    Return a file of the VMCOREINFO of a kernel that is where it was linked: the same at each boot.

    It is read from another guest that has come far enough, and kept in the kernel's directory.
    """
    kept = kernel.vmlinux.parent / "vmcoreinfo"
    if not kept.exists():
        with boot(kernel, _LINKED, timeout=_VMCOREINFO_SECONDS) as guest:
            prog = debug_guest(guest)
            size = prog["vmcoreinfo_size"].value_()
            text = prog.read(prog["vmcoreinfo_data"].value_(), size)
            with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as new:
                new.write(text)
            Path(new.name).replace(kept)
    return kept


def load_guest_symbols(prog: Program, kernel: Kernel) -> None:
    """Load the kernel's vmlinux, or raise LabError if it was built for another one."""
    main = next(prog.loaded_modules())[0]
    # Not load_debug_info(), which only warns about what is an error here.
    main.try_file(kernel.vmlinux)
    if main.wants_debug_file():
        raise LabError(
            f"{kernel.vmlinux} has no debugging symbols of the kernel that was booted, "
            f"{kernel.vmlinuz}: give the vmlinux of the same build"
        )


def run_cell(
    kernel: Kernel,
    scenario: Scenario,
    options: MatrixOptions = MatrixOptions(),
    cancelled: Callable[[], bool] = lambda: False,
) -> Cell:
    """Boot one kernel into one scenario and judge the tool's report."""
    start = time.monotonic()

    def cell(verdict: CellVerdict, *details: str, report: Report | None = None) -> Cell:
        return Cell(kernel, scenario, verdict, details, time.monotonic() - start, report)

    if kernel.name in scenario.impossible:
        return cell(CellVerdict.NOT_POSSIBLE, scenario.impossible[kernel.name])
    try:
        with boot(
            kernel,
            scenario,
            accel=options.accel,
            timeout=options.timeout,
            progress=options.progress,
            cancelled=cancelled,
            truth=options.truth and scenario.answers,
        ) as guest:
            found, wrong = _look(guest, options)
    except NotPossible as e:
        return cell(CellVerdict.NOT_POSSIBLE, str(e))
    except LabError as e:
        return cell(CellVerdict.FAILED, str(e))
    return cell(CellVerdict.DIFFERS if wrong else CellVerdict.AGREES, *wrong, report=found)


def _look(guest: Guest, options: MatrixOptions) -> tuple[Report, list[str]]:
    if options.dump:
        _dump(guest, options.dump, options.progress)
    found, wrong = judge_guest(guest)
    if options.export:
        _export(guest, options.export, found, options.progress)
    return found, wrong


def judge_guest(guest: Guest) -> tuple[Report, list[str]]:
    """
    Check a guest over QMP, and judge the report.

    :return: The report, and what is wrong with it; see :func:`judge()`.
    :raises NotPossible: if this kernel lacks what the scenario is about
    :raises LabError: if the guest cannot be debugged
    """
    from drgn_zonedev.opening.provenance import provenance_of
    from drgn_zonedev.report import check

    with _as_lab_errors():
        prog = debug_guest(guest)
        origin = provenance_of(prog, f"{guest.kernel.name} {guest.scenario.name}")
        found = replace(check(prog), provenance=origin)
        return found, judge(guest, prog, found)


@contextmanager
def _as_lab_errors() -> Iterator[None]:
    # A guest that cannot be debugged, or dies meanwhile, must not end the others.
    import drgn

    try:
        yield
    except (drgn.FaultError, OSError, LookupError, TypeError, ValueError) as e:
        raise LabError(f"the guest could not be judged: {type(e).__name__}: {e}") from e


def _export(guest: Guest, directory: Path, found: Report, progress: StepProgress) -> None:
    from drgn_zonedev.export.write import ExportOptions, write_export

    path = directory / f"{guest.kernel.name}-{guest.scenario.name}.tar.xz"
    # A guest that runs would change meanwhile.
    dump = guest.dump(guest.log.with_name("export.elf"))
    options = ExportOptions(pfns=tuple(_wrong_pages(found)))
    with _as_lab_errors():
        directory.mkdir(parents=True, exist_ok=True)
        write_export(_debug_dump(guest, dump), path, options, force=True)
    dump.unlink()
    report(progress, f"{path}: open it with zonedev -c {path} check")


def _wrong_pages(found: Report) -> Iterator[Span]:
    # An export leaves RAM out, unless there is something to see.
    for finding in found.findings:
        if finding.severity is Severity.ERROR and finding.start_pfn < finding.end_pfn:
            yield finding.start_pfn, finding.end_pfn


def dump_name(kernel: Kernel, scenario: Scenario) -> str:
    """Get the name of the dump that ``MatrixOptions.dump`` keeps of a guest."""
    return f"{kernel.name}-{scenario.name}.elf"


def _dump(guest: Guest, directory: Path, progress: StepProgress) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = guest.dump(directory / dump_name(guest.kernel, guest.scenario))
    except OSError as e:
        raise LabError(f"cannot write {directory}: {e.strerror}: choose another place") from e
    options = f"-c {path} -s {guest.kernel.vmlinux}"
    if guest.scenario.early:
        options += f" --vmcoreinfo {early_vmcoreinfo(guest.kernel)}"
    report(progress, f"{path}: open it with zonedev {options} check")


def scenarios_on(kernel: Kernel) -> dict[str, Scenario]:
    """Return the scenarios of a kernel: those of arm64 depend on its pages."""
    return scenarios_of(kernel.architecture, kernel.page_size)


def scenarios_of(architecture: str, page: int = 4096) -> dict[str, Scenario]:
    """
    Return the scenarios of an architecture. Their names do not depend on the size of pages.

    :param architecture: Debian's name of it
    """
    if architecture == "arm64":
        return arm64_scenarios(page)
    return {"amd64": SCENARIOS, "ppc64el": PPC64EL_SCENARIOS}[architecture]


def _on(kernel: Kernel, scenario: Scenario) -> Scenario:
    # Of another size of pages.
    return scenario if kernel.architecture == "amd64" else scenarios_on(kernel)[scenario.name]


RunCell = Callable[[Kernel, Scenario, MatrixOptions, Callable[[], bool]], Cell]


def run_matrix(
    kernels: Sequence[Kernel],
    scenarios: Sequence[Scenario],
    *,
    options: MatrixOptions = MatrixOptions(),
    jobs: int = 1,
    run: RunCell = run_cell,
) -> Generator[Cell, None, None]:
    """
    Yield the cells in order; `jobs` guests run at a time.

    If the iteration ends early, the guests are ended, too.
    """
    stop = threading.Event()
    # A guest ends with the thread that booted it, so the threads must outlive their guests. They
    # do, because the pool is closed only after every guest has ended.
    with ThreadPoolExecutor(jobs, thread_name_prefix="lab") as pool:
        pairs = [(kernel, _on(kernel, scenario)) for kernel in kernels for scenario in scenarios]
        futures = [pool.submit(run, *pair, options, stop.is_set) for pair in pairs]
        try:
            for future in futures:
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                future.cancel()
