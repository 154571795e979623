# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Selection
---------

Reads everything that an export will contain through a recorder: what our own analysis reads, what
drgn's helpers read to answer the same questions, and the memory map around devices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Object, Program, offsetof, sizeof
from drgn.helpers.linux.mm import (
    compound_head,
    decode_page_flags,
    for_each_memory_block,
    page_to_virt,
    pfn_to_page,
)
from drgn.helpers.linux.mmzone import for_each_online_pgdat, for_each_present_section
from drgn.helpers.linux.slab import slab_object_info

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.explanation.explain import explain_subject
from drgn_zonedev.explanation.resolve import resolve
from drgn_zonedev.export.trace import Recorder
from drgn_zonedev.kernel.devices import device_links, device_subsystem, for_each_device
from drgn_zonedev.kernel.devres import guessed_words, owned_pgmaps
from drgn_zonedev.kernel.memmap import read_pages
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.resource import for_each_resource_below
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.kernel.xarray import xa_is_err, xa_is_node
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.model import Case, Memmap, Pgmap, Report
from drgn_zonedev.pfn_walkers.kpageflags import kpage_end_pfn
from drgn_zonedev.report import check
from drgn_zonedev.util.intervals import Span, intersection, union
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.verification.context import Progress

__all__ = ("ExportOptions", "select")

# The time to explain a PFN grows with the number of ranges, and explaining hundreds of them reads
# nothing new: the stored dumps have up to fourteen.
_MAX_EXPLAINED = 16

_MAX_NODES = 1 << 16

# Enough for the modules of a distribution's kernel, with the names of their sections.
_MAX_READS = 1 << 17

_RANGE_SIZE = 16


@dataclass(frozen=True)
class ExportOptions:
    """
    What to put into an export.

    ``margin`` is the number of struct pages to keep on each side of every device range; ``pfns``
    are half-open ranges of PFNs whose struct pages to keep as well, even in RAM.
    """

    all_memmap: bool = False
    margin: int = 512
    blank_names: bool = False
    pfns: tuple[Span, ...] = ()


def select(recorder: Recorder, options: ExportOptions, progress: Progress) -> Report:
    """Read everything that the export keeps, and return the report."""
    report = check(recorder.prog, progress=progress)
    reads = _most_reads(recorder.prog)
    steps = (_sections, _xarrays, _memory_blocks, _nodes, _resources, _modules, _limits, _version)
    for step in steps:
        with _ignored_errors(), recorder.at_most(reads):
            step(recorder)
    with _ignored_errors():
        _explanations(recorder, report)
    with recorder.at_most(reads):
        for pgmap in report.pgmaps:
            with _ignored_errors():
                _pgmap(recorder, pgmap)
    for start, end in _memmap_ranges(recorder.prog, report, options):
        _memmap(recorder.prog, start, end)
    _forget_neighbours(recorder)
    with _ignored_errors(), recorder.at_most(reads):
        _forget_devices(recorder)
        _forget_guesses(recorder, report)
    return report


@contextlib.contextmanager
def _ignored_errors() -> Iterator[None]:
    # People export damaged kernels. Helpers may fail on them in any way (drgn's own also raise bare
    # Exceptions), and will fail in the same way on the export.
    with contextlib.suppress(Exception):
        yield


def _most_reads(prog: Program) -> int:
    # Far more than any step needs: each slot of the section array is read, and there
    # are at most as many memory blocks as sections.
    per_root = prog["SECTIONS_PER_ROOT"].value_()
    roots = len(np.unique(sections(prog).nr // per_root))
    return _MAX_READS + 4 * roots * int(per_root)


def _keep_object(recorder: Recorder, pointer: Object) -> None:
    recorder.keep(pointer.value_(), sizeof(pointer.type_.type))


def _limits(recorder: Recorder) -> None:
    # Where drgn's follow_phys() begins, and where the kernel's PFN walkers stop.
    recorder.prog["init_mm"].pgd.value_()
    zones(recorder.prog)
    kpage_end_pfn(recorder.prog)


def _version(recorder: Recorder) -> None:
    # Distributions store there which stable release they built. The names of the host are next to
    # it.
    c_string(recorder.prog["init_uts_ns"].name.version)


def _sections(recorder: Recorder) -> None:
    for _ in for_each_present_section(recorder.prog):
        pass


def _memory_blocks(recorder: Recorder) -> None:
    prog = recorder.prog
    block_type = prog.type("struct memory_block")
    for block in for_each_memory_block(prog):
        for member in block_type.members or ():
            # The device is most of the structure, and says nothing about memory.
            if member.name not in (None, "dev"):
                recorder.keep(block.value_() + member.offset, sizeof(member.type))
        with _ignored_errors():
            # But drgn's kmem -n prints the device's name: memory0, memory1 and so on.
            init_name, name = block.dev.init_name.read_(), block.dev.kobj.name.read_()
            c_string(init_name or name)


def _nodes(recorder: Recorder) -> None:
    for pgdat in for_each_online_pgdat(recorder.prog):
        _keep_object(recorder, pgdat)
        for zone in pgdat.node_zones:
            with _ignored_errors():
                c_string(zone.name)


def _resources(recorder: Recorder) -> None:
    root = recorder.prog["iomem_resource"].address_of_()
    _keep_object(recorder, root)
    for resource in for_each_resource_below(root):
        _keep_object(recorder, resource)
        with _ignored_errors():
            c_string(resource.name)
    with _ignored_errors():
        c_string(root.name)


def _modules(recorder: Recorder) -> None:
    # drgn walks the list whenever it loads symbols.
    for _ in recorder.prog.loaded_modules():
        pass


def _explanations(recorder: Recorder, report: Report) -> None:
    prog, snapshot = recorder.prog, take_snapshot(recorder.prog)
    spans = [(r.start_pfn, r.end_pfn) for r in report.ranges]
    # People look at errors in RAM page by page.
    spans += [(f.start_pfn, f.end_pfn) for f in report.findings if f.case is Case.ONLINE]
    for start, end in [span for span in spans if span[0] < span[1]][:_MAX_EXPLAINED]:
        for pfn in (start, end - 1):
            with _ignored_errors():
                explain_subject(prog, snapshot, resolve(prog, pfn))
            with _ignored_errors():
                _describe_page(prog, pfn)


def _describe_page(prog: Program, pfn: int) -> None:
    page = pfn_to_page(prog, pfn)
    calls: tuple[Callable[[Object], object], ...] = (decode_page_flags, compound_head, page_to_virt)
    for call in calls:
        call(page)


def _pgmap(recorder: Recorder, pgmap: Pgmap) -> None:
    # Whole structures, for later versions that read other members.
    prog = recorder.prog
    found = Object(prog, "struct dev_pagemap *", pgmap.address)
    _keep_object(recorder, found)
    if pgmap.records_progress:
        recorder.keep(found.ranges[0].address_of_().value_(), len(pgmap.ranges) * _RANGE_SIZE)
    if pgmap.ops_address:
        _keep_object(recorder, found.ops.read_())
    if info := slab_object_info(prog, pgmap.address):
        c_string(info.slab_cache.name)


def _xarrays(recorder: Recorder) -> None:
    for name in ("pgmap_array", "memory_blocks"):
        with _ignored_errors():
            xa = recorder.prog[name]
            recorder.keep(xa.address_of_().value_(), sizeof(xa))
            _xa_nodes(recorder, xa.xa_head.value_())


def _xa_nodes(recorder: Recorder, head: int) -> None:
    prog, entries = recorder.prog, [head]
    seen: set[int] = set()
    while entries and len(seen) < _MAX_NODES:
        entry = entries.pop()
        if not xa_is_node(entry) or xa_is_err(entry) or entry in seen:
            continue
        seen.add(entry)
        node = Object(prog, "struct xa_node *", entry - 2)
        _keep_object(recorder, node)
        with _ignored_errors():
            entries += node.slots.value_()


def _memmap_ranges(prog: Program, report: Report, options: ExportOptions) -> tuple[Span, ...]:
    # Only readable sections show where memory is; a damaged structure may claim more.
    pages = sparsemem_geometry(prog).pages_per_section
    known = union((nr * pages, (nr + 1) * pages) for nr in sections(prog).nr.tolist())
    mapped = [r for r in report.ranges if r.memmap is not Memmap.UNMAPPED]
    present = union(part for r in mapped for part in intersection((r.start_pfn, r.end_pfn), known))
    if options.all_memmap:
        return present
    around = (
        (max(r.start_pfn - options.margin, 0), r.end_pfn + options.margin)
        for pgmap in report.pgmaps
        for r in pgmap.ranges
    )
    wanted = union((*around, *options.pfns))
    return tuple(part for span in wanted for part in intersection(span, present))


def _memmap(prog: Program, start_pfn: int, end_pfn: int) -> None:
    for _ in read_pages(prog, start_pfn, end_pfn):
        pass


def _forget_devices(recorder: Recorder) -> None:
    # for_each_device_with_resources() also reads what is between the two links of a device.
    entry, resources = device_links(recorder.prog)
    links: list[Span] = []
    for dev in for_each_device(recorder.prog):
        first, last = dev.value_() + entry, dev.value_() + resources
        if not recorder.was_read((first, last + 8)):
            break
        links += [(first, first + 8), (last, last + 8)]
    recorder.narrow(frozenset(start for start, _ in links), union(links))


def _forget_guesses(recorder: Recorder, report: Report) -> None:
    # Words that were read on a guess, and do not belong to a pgmap, may be private.
    prog = recorder.prog
    for pgmap in report.pgmaps:
        recorder.forget_words(guessed_words(prog, pgmap.address))
    # A wrong guess for one device may belong to another one.
    for pgmap in report.pgmaps:
        if pgmap.device:
            dev = Object(prog, "struct device *", pgmap.device.address)
            with _ignored_errors():
                dev.kobj.kset.value_()
            with _ignored_errors():
                device_subsystem(dev)
                tuple(owned_pgmaps(dev, frozenset((pgmap.address,))))


def _forget_neighbours(recorder: Recorder) -> None:
    # sections() reads usages that are close together at once. What is between two of them in a slab
    # has another owner.
    usage_type = recorder.prog.type("struct mem_section_usage")
    offset, size = offsetof(usage_type, "subsection_map"), sizeof(usage_type)
    usages = sorted_set(sections(recorder.prog).usage)
    usages = usages[usages != 0]
    for usage in usages.tolist():
        recorder.keep(usage, size)
    recorder.narrow(
        frozenset((usages + np.uint64(offset)).tolist()),
        union((usage, usage + size) for usage in usages.tolist()),
    )
