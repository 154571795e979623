# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Export
------

Writes the part of a kernel's memory that this tool reads, with its own debugging information, as a
vmcore that drgn opens like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import drgn
from drgn import FaultError, MissingDebugInfoError, Program, ProgramFlags

from drgn_zonedev.export.archive import (
    FILES,
    ArchiveError,
    beginnings,
    is_archive_name,
    pack,
)
from drgn_zonedev.export.blank import require_no_names
from drgn_zonedev.export.core_writer import Read, write_core
from drgn_zonedev.export.elf_writer import Encoding
from drgn_zonedev.export.kept_names import MissingNames
from drgn_zonedev.export.private_names import printed_names
from drgn_zonedev.export.select import ExportOptions, select
from drgn_zonedev.export.trace import MemoryRun, Recorder
from drgn_zonedev.export.vmlinux import build_vmlinux
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.model import Report
from drgn_zonedev.opening.program_files import program_files
from drgn_zonedev.util.directories import checksum, create_file, new_directory, new_file, write_file
from drgn_zonedev.util.intervals import Span, union
from drgn_zonedev.util.output_files import identities, is_one_of
from drgn_zonedev.util.tool_version import tool_version
from drgn_zonedev.verification.context import Progress, no_progress
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.exported import leaves_out_ram, with_memmap_line

__all__ = ("EXPORT_SCHEMA", "Export", "ExportOptions", "is_earlier_export", "write_export")

EXPORT_SCHEMA = "drgn-zonedev/export/1"

# The beginning of meta.json, whatever version of this wrote it.
_META = re.compile(rb'\{\s*"schema": "drgn-zonedev/export/\d+"')
_META_SIZE = 256

# For a program that is not a file: only its user may read the export.
_PRIVATE = 0o600

# Each try adds the names that the one before missed.
_MAX_TRIES = 4


@dataclass(frozen=True)
class Export:
    """What was written. ``report`` is the analysis of it."""

    path: Path
    meta: dict[str, Any]
    report: Report


def write_export(
    prog: Program,
    path: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    force: bool = False,
    progress: Progress = no_progress,
) -> Export:
    """
    Export a kernel's memory map to a new directory, or to one file if its name ends in ``.tar.xz``
    or ``.txz``. It gets the mode of the core dump.

    :param force: Replace *path* if it is an earlier export, but nothing else.
    :raises FileExistsError: if *path* exists and may not be replaced, or is a file that
        *prog* is read from
    :raises LookupError: if the debugging information does not have what is needed
    :raises ValueError: if this architecture cannot be exported
    :raises ArchiveError: if the export is too large for one file
    :raises NameLeftError: if *options* say to blank names, and one is left
    """
    options, target = options or ExportOptions(), Path(path)
    if is_one_of(target, identities(program_files(prog))):
        raise FileExistsError(f"{target} is the input: choose another path")
    mode, replace = _source_mode(prog), force and is_earlier_export(target)
    if is_archive_name(target):
        with new_file(target, replace=replace) as archive:
            directory = archive.with_name("export")
            directory.mkdir()
            meta, report = _fill(directory, prog, options, mode, progress)
            pack(directory, archive)
    else:
        replaced = FILES if replace else ()
        with new_directory(target, replaced=replaced, mode=_directory_mode(mode)) as directory:
            meta, report = _fill(directory, prog, options, mode, progress)
    return Export(target, meta, report)


def is_earlier_export(path: Path) -> bool:
    """Return whether :func:`write_export()` made a directory or a file, with nothing else in it."""
    try:
        if path.is_symlink():
            return False
        meta = _directory_meta(path) if path.is_dir() else _archive_meta(path)
    except (OSError, ArchiveError):
        return False
    return _META.match(meta) is not None


def _directory_meta(path: Path) -> bytes:
    if sorted(os.listdir(path)) != sorted(FILES):
        return b""
    with (path / "meta.json").open("rb") as f:
        return f.read(_META_SIZE)


def _archive_meta(path: Path) -> bytes:
    found = beginnings(path, _META_SIZE)
    return found["meta.json"] if sorted(found) == sorted(FILES) else b""


def _source_mode(prog: Program) -> int:
    core = core_dump_path(prog)
    if core is None:
        return _PRIVATE
    try:
        return stat.S_IMODE(os.stat(core).st_mode)
    except OSError:
        return _PRIVATE


def _directory_mode(mode: int) -> int:
    # Whoever may read the files may search the directory; the owner may remove them.
    return mode | (mode & 0o444) >> 2 | 0o700


def _fill(
    directory: Path, prog: Program, options: ExportOptions, mode: int, progress: Progress
) -> tuple[dict[str, Any], Report]:
    names = printed_names(prog) if options.blank_names else ()
    blanks = tuple(name.span for name in names)
    recorder, report = _record(prog, blanks, directory / "vmlinux", options, mode, progress)
    runs, lost = _write_vmcore(recorder, directory / "vmcore", mode)
    meta = _meta(recorder, options, report, runs, lost, directory)
    write_file(directory / "meta.json", (json.dumps(meta, indent=2) + "\n").encode(), mode)
    if options.blank_names:
        require_no_names(prog, recorder.prog, report, names, directory)
    return meta, report


def _record(
    prog: Program,
    blanks: tuple[Span, ...],
    vmlinux: Path,
    options: ExportOptions,
    mode: int,
    progress: Progress,
) -> tuple[Recorder, Report]:
    missing = MissingNames()
    for _ in range(_MAX_TRIES):
        file = build_vmlinux(prog, missing)
        write_file(vmlinux, file.contents, mode)
        recorder = Recorder(prog, _vmcoreinfo(prog, file.build_id, options), blanks)
        _load(recorder.prog, vmlinux)
        # Loading symbols reads modules, and a pgmap's neighbour in a slab may belong to one.
        recorder.keep_all()
        asked = MissingNames()
        asked.watch(recorder.prog)
        report = select(recorder, options, progress)
        more = asked.present_in(prog)
        if not more:
            break
        missing |= more
    return recorder, report


def _load(prog: Program, vmlinux: Path) -> None:
    next(prog.loaded_modules())[0].try_file(vmlinux)
    # Plain drgn walks the list of modules, too. A damaged list may claim more memory than the
    # machine has.
    with contextlib.suppress(FaultError, MemoryError, MissingDebugInfoError):
        prog.load_debug_info([vmlinux])


def _vmcoreinfo(prog: Program, build_id: bytes, options: ExportOptions) -> bytes:
    # The build ID is in there since Linux kernel commit 0935288c6e00 ("kdump:
    # append kernel build-id string to VMCOREINFO") (in v5.9).
    text: bytes = prog["VMCOREINFO"].string_()
    if b"BUILD-ID=" not in text:
        text += b"BUILD-ID=" + build_id.hex().encode() + b"\n"
    all_memmap = options.all_memmap and not leaves_out_ram(prog)
    return with_memmap_line(text, all_memmap=all_memmap, pfns=options.pfns)


def _write_vmcore(
    recorder: Recorder, path: Path, mode: int
) -> tuple[list[MemoryRun], list[MemoryRun]]:
    memory, tables = recorder.runs()
    platform = recorder.prog.platform
    assert platform is not None
    runs: list[tuple[MemoryRun, Read]] = [(run, recorder.read_run) for run in memory]
    runs += [(run, recorder.read_table) for run in tables]
    with create_file(path, mode) as f:
        lost = write_core(f, Encoding(platform), recorder.vmcoreinfo, runs)
        f.flush()
        os.fsync(f.fileno())
    return [run for run, _ in runs if run not in lost], lost


def _build_id(vmcoreinfo: bytes) -> str:
    lines = vmcoreinfo.decode(errors="replace").splitlines()
    return next(line.split("=", 1)[1] for line in lines if line.startswith("BUILD-ID="))


def _meta(
    recorder: Recorder,
    options: ExportOptions,
    report: Report,
    runs: list[MemoryRun],
    lost: list[MemoryRun],
    directory: Path,
) -> dict[str, Any]:
    return {
        "schema": EXPORT_SCHEMA,
        "kernel": {
            "release": report.kernel.release,
            "architecture": report.kernel.architecture,
            "build_id": _build_id(recorder.vmcoreinfo),
        },
        "made_by": {"drgn-zonedev": tool_version(), "drgn": drgn.__version__},
        "source": {"live": bool(recorder.source.flags & ProgramFlags.IS_LIVE)},
        "options": asdict(options),
        "contents": {
            "segments": len(runs),
            "bytes": sum(end - start for start, end in union(_extents(runs))),
            "memmap": [list(span) for span in _memmap_pfns(recorder.prog, runs)],
        },
        "unreadable": [
            *(asdict(unjudged) for unjudged in report.unjudged),
            *({"address": hex(run.vaddr), "size": run.size} for run in lost),
        ],
        "files": {name: checksum(directory / name) for name in ("vmcore", "vmlinux")},
    }


def _extents(runs: list[MemoryRun]) -> Iterable[Span]:
    return ((run.vaddr, run.vaddr + run.size) for run in runs)


def _memmap_pfns(prog: Program, runs: list[MemoryRun]) -> list[Span]:
    # PFNs whose whole struct page is in the export; parts that helpers read do not count.
    layout, max_pfn = page_layout(prog), sparsemem_geometry(prog).max_pfn
    spans = []
    for start, end in union(_extents(runs)):
        first, last = -(-(start - layout.vmemmap) // layout.size), (end - layout.vmemmap)
        last //= layout.size
        if 0 <= first < last <= max_pfn:
            spans.append((first, last))
    return spans
