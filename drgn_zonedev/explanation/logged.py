# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pages of a Log
--------------

Reads a log with the dump of its kernel: checks that they are of the same boot, and explains
the pages that the log names.
"""

from __future__ import annotations

from drgn import FaultError, ObjectAbsentError, Program, Type, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.printk import get_dmesg

from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.debuginfo.same_build import vmcoreinfo_build_id
from drgn_zonedev.explanation.explain import Explanation, explain_subject
from drgn_zonedev.explanation.resolve import Subject
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.oops_log.answer import KnownKernel, OopsLog, read_log
from drgn_zonedev.oops_log.identity import LogKernel
from drgn_zonedev.oops_log.page_fields import PageFields
from drgn_zonedev.oops_log.regions import Data
from drgn_zonedev.oops_log.vmemmap_bases import Base, BaseSource
from drgn_zonedev.opening.failures import CannotJudgeError

__all__ = (
    "OtherKernelError",
    "explain_logged_pages",
    "known_kernel",
    "log_of_dump",
    "page_fields_of_types",
    "read_log_of",
)

# Explaining a page takes a tenth of a second.
_MOST_PAGES = 16


class OtherKernelError(ValueError):
    """A log and a dump are not of the same boot of the same kernel."""


@takes_program_or_default
def known_kernel(prog: Program) -> KnownKernel:
    """Get the facts of a program's kernel that are needed to decode a log of it."""
    layout, geometry = page_layout(prog), sparsemem_geometry(prog)
    base = Base(
        layout.vmemmap,
        geometry.max_pfn,
        BaseSource.DUMP,
        "the dump",
    )
    return KnownKernel(page_fields_of_types(prog, "of the dump"), base, 1 << geometry.page_shift)


# Names of the words in a log, with the names that other kernels have for each.
_MEMBERS = (
    ("flags",),
    ("mapping",),
    ("index", "__folio_index"),
    ("private",),
    ("_mapcount",),
    ("_refcount",),
    ("memcg_data", "mem_cgroup"),
)


def page_fields_of_types(prog: Program, source: str) -> PageFields:
    """
    Get the members of ``struct page``.

    :param source: Origin of the types, for messages.
    :raises LookupError: if there is no ``struct page``
    """
    page = prog.type("struct page")
    compound = "compound_info" if page.has_member("compound_info") else "compound_head"
    found = [(offsetof(page, "lru") + 8, 8, "lru.prev"), _member(page, compound)]
    for names in _MEMBERS:
        found += [_member(page, name) for name in names if page.has_member(name)][:1]
    return PageFields(sizeof(page), tuple(sorted(found)), source)


def _member(page: Type, name: str) -> tuple[int, int, str]:
    size = 4 if name in ("_mapcount", "_refcount") else 8
    return offsetof(page, name), size, name


@takes_program_or_default
def log_of_dump(prog: Program) -> bytes:
    """
    Read the log in the memory of a kernel.

    :raises CannotJudgeError: if the memory is missing, as in an export
    """
    try:
        return bytes(get_dmesg(prog))
    except (LookupError, FaultError, ObjectAbsentError) as e:
        message = f"the kernel's log is not in this program: {e}: give the FILE that has it"
        raise CannotJudgeError(message) from e


@takes_program_or_default
def read_log_of(prog: Program, data: Data | None = None) -> OopsLog:
    """
    Read a log of the program's kernel.

    :param data: A saved log; the default is the log in the kernel's memory.
    :raises OtherKernelError: if the log is of another kernel, or of another boot of it
    """
    known = known_kernel(prog)
    if data is None:
        return read_log(log_of_dump(prog), known)
    for boot in read_log(data).boots:
        _require_same_kernel(prog, boot.kernel)
        assert known.base is not None
        for base in boot.bases:
            if base.source is BaseSource.LOG and base.address != known.base.address:
                raise OtherKernelError(
                    f"vmemmap is at {base.address:#x} in the log, by {base.why}, and at "
                    f"{known.base.address:#x} in the dump: they are of different boots: give the "
                    "dump of this boot, or no dump"
                )
    return read_log(data, known)


def _require_same_kernel(prog: Program, kernel: LogKernel) -> None:
    release = kernel_facts(prog).release
    if kernel.release is not None and kernel.release != release:
        raise OtherKernelError(
            f"the log is of Linux {kernel.release}, and the dump of {release}: give the dump of "
            "this kernel, or no dump"
        )
    vmcoreinfo = _vmcoreinfo(prog)
    build_id = vmcoreinfo_build_id(vmcoreinfo)
    if kernel.build_id and build_id and bytes.fromhex(kernel.build_id) != build_id:
        raise OtherKernelError(
            f"the log is of build {kernel.build_id}, and the dump of {build_id.hex()}: give the "
            "dump of this build, or no dump"
        )
    offset = _kernel_offset(vmcoreinfo)
    if kernel.kaslr_offset is not None and offset is not None and kernel.kaslr_offset != offset:
        raise OtherKernelError(
            f"KASLR moved the kernel by {kernel.kaslr_offset:#x} in the log, and by {offset:#x} in "
            "the dump: they are of different boots: give the dump of this boot, or no dump"
        )


def _vmcoreinfo(prog: Program) -> bytes:
    try:
        found: bytes = prog["VMCOREINFO"].string_()
    except LookupError:
        return b""
    return found


def _kernel_offset(vmcoreinfo: bytes) -> int | None:
    for line in vmcoreinfo.splitlines():
        if line.startswith(b"KERNELOFFSET="):
            return int(line.partition(b"=")[2], 16)
    return None


@takes_program_or_default
def explain_logged_pages(prog: Program, log: OopsLog) -> tuple[Explanation, ...]:
    """Explain the first few pages that a log names."""
    pfns = log.pfns[:_MOST_PAGES]
    if not pfns:
        return ()
    snapshot = take_snapshot(prog)
    return tuple(explain_subject(prog, snapshot, Subject(pfn, "PFN")) for pfn in pfns)
