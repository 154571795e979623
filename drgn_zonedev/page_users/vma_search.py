# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Search for VMAs
---------------

From pages to the VMAs that map them, and the processes of these. Reverse mapping only says
which VMAs may map a page: page tables say whether they do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import BadDataError, FaultError, Object, Program

from drgn_zonedev.kernel.folio_counts import FolioCounts
from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.kernel.paths import file_path, path_of_inode
from drgn_zonedev.kernel.rmap import (
    Mapping,
    MappingKind,
    Vma,
    anon_vma_vmas,
    file_vmas,
    mapping_host,
)
from drgn_zonedev.kernel.tasks import (
    Process,
    for_each_process,
    stack_functions,
    uninterruptible_threads,
)
from drgn_zonedev.model import Pgmap
from drgn_zonedev.page_users.pins import Gap, PageOwner, Searched, Sleeper
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.vmcore.pagetables import knows_swap_entries, mapped_frames
from drgn_zonedev.vmcore.reads import need_object

__all__ = ("FAILURES", "Hit", "VmaSearch", "gap_of")

FAILURES = (
    AttributeError,
    BadDataError,
    FaultError,
    LookupError,
    NotImplementedError,
    ValueError,
)
"""What a search for users may raise on a kernel that is damaged, or filtered, or unknown."""

# Page tables that a process has besides those of the pages that were asked about.
_FURTHER_TABLES = 1 << 12

# ULONG_MAX
_MOST_INDEX = (1 << 64) - 1

_FILES_OF_DEVICES = "MEMORY_DEVICE_FS_DAX"


def gap_of(searched: Searched, address: int | None, failure: Exception) -> Gap:
    """Describe a search that failed."""
    if isinstance(failure, (LookupError, AttributeError)):
        return Gap(Searched.DEBUGINFO, None, str(failure.args[0] if failure.args else failure))
    if isinstance(failure, FaultError):
        return Gap(searched, address, f"memory at {failure.address:#x} cannot be read")
    return Gap(searched, address, str(failure))


@dataclass(frozen=True)
class Hit:
    """
    A VMA that maps folios, by their indices. ``pages`` is how many pages of each, ``None`` if
    page tables do not say.
    """

    vma: Vma
    folios: np.ndarray
    pages: np.ndarray | None


class VmaSearch:
    """
    Finds VMAs and their processes. What was found once is kept: many pages belong to one file.

    ``gaps`` are the searches that failed.
    """

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._page_shift = prog["PAGE_SHIFT"].value_()
        self._vmas: dict[Mapping, tuple[Vma, ...]] = {}
        self._owners: dict[Mapping, PageOwner] = {}
        self._paths: dict[int, str | None] = {}
        self._sleepers: dict[int, tuple[Sleeper, ...]] = {}
        self._of_shared: dict[int, tuple[Vma, ...]] = {}
        self.gaps: list[Gap] = []
        self.processes = tuple(self._collected(Searched.PROCESSES, None, self._all_processes))
        self._by_mm: dict[int, list[Process]] = defaultdict(list)
        for process in self.processes:
            self._by_mm[process.mm].append(process)

    def _all_processes(self) -> Iterator[Process]:
        return for_each_process(self._prog)

    def _collected(
        self, searched: Searched, address: int | None, search: Callable[[], Iterable[object]]
    ) -> list:  # type: ignore[type-arg]
        # What was found before the search failed counts.
        found = []
        try:
            for item in search():
                found.append(item)
        except FAILURES as e:
            self._note(searched, address, e)
        return found

    def _note(self, searched: Searched, address: int | None, failure: Exception) -> None:
        gap = gap_of(searched, address, failure)
        if gap not in self.gaps:
            self.gaps.append(gap)

    @property
    def knows_swap_entries(self) -> bool:
        """Whether page tables say who maps device-private memory."""
        return knows_swap_entries(self._prog)

    def processes_of(self, mm: int) -> tuple[Process, ...]:
        """The processes that have an address space."""
        return tuple(self._by_mm.get(mm, ()))

    def sleepers(self, process: Process) -> tuple[Sleeper, ...]:
        """The threads of a process that sleep and cannot be interrupted."""
        if process.task not in self._sleepers:
            threads = self._collected(
                Searched.PROCESSES,
                process.task,
                lambda: uninterruptible_threads(self._prog, process),
            )
            found = tuple(Sleeper(process, stack_functions(thread)) for thread in threads)
            self._sleepers[process.task] = found
        return self._sleepers[process.task]

    def owner(self, mapping: Mapping) -> PageOwner:
        """What pages with this mapping belong to."""
        if mapping not in self._owners:
            self._owners[mapping] = self._find_owner(mapping)
        return self._owners[mapping]

    def _find_owner(self, mapping: Mapping) -> PageOwner:
        if mapping.kind is not MappingKind.FILE:
            return PageOwner(mapping.kind, mapping.address)
        space = Object(self._prog, "struct address_space *", mapping.address)
        try:
            inode = mapping_host(space)
            number = int(inode.i_ino.value_())
        except FAILURES as e:
            self._note(Searched.OWNER, mapping.address, e)
            return PageOwner(mapping.kind, mapping.address)
        return PageOwner(mapping.kind, mapping.address, number, self._path(mapping, inode))

    def _path(self, mapping: Mapping, inode: Object) -> str | None:
        # A device's inode is at no path, but a process that maps it has opened one.
        for vma in self.vmas(mapping):
            path = self.path(vma.file)
            if path is not None:
                return path
        try:
            return path_of_inode(inode)
        except FAILURES as e:
            self._note(Searched.OWNER, mapping.address, e)
            return None

    def path(self, file: int) -> str | None:
        """The path of a ``struct file``, ``None`` if it is not known."""
        if file not in self._paths:
            self._paths[file] = self._find_path(file)
        return self._paths[file]

    def _find_path(self, file: int) -> str | None:
        if not file:
            return None
        try:
            return file_path(Object(self._prog, "struct file *", file))
        except FAILURES as e:
            self._note(Searched.OWNER, file, e)
            return None

    def vmas(self, mapping: Mapping) -> tuple[Vma, ...]:
        """The VMAs that may map pages with this mapping."""
        if mapping not in self._vmas:
            searches = {
                MappingKind.FILE: ("struct address_space *", file_vmas),
                MappingKind.ANON: ("struct anon_vma *", anon_vma_vmas),
            }
            found: list[Vma] = []
            if mapping.kind in searches:
                type_name, search = searches[mapping.kind]
                found = self._collected(
                    Searched.VMAS,
                    mapping.address,
                    lambda: search(Object(self._prog, type_name, mapping.address)),
                )
            self._vmas[mapping] = tuple(found)
        return self._vmas[mapping]

    def vmas_without_mapping(self, pgmap: Pgmap) -> tuple[Vma, ...]:
        """The VMAs that may map pages of a device that do not say what they belong to."""
        if pgmap.address not in self._of_shared:
            spaces = self._collected(
                Searched.VMAS, pgmap.address, lambda: self._address_spaces(pgmap)
            )
            vmas = [vma for space in spaces for vma in self.vmas(space)]
            self._of_shared[pgmap.address] = tuple(vmas)
        return self._of_shared[pgmap.address]

    def _address_spaces(self, pgmap: Pgmap) -> Iterator[Mapping]:
        if pgmap.type == "MEMORY_DEVICE_PCI_P2PDMA":
            # Its pages are mapped by way of a file in sysfs.
            yield from self._mapped_inodes(lambda block: c_string(block.s_type.name) == "sysfs")
        elif pgmap.type == _FILES_OF_DEVICES:
            disk = pgmap.device.disk if pgmap.device else None
            yield from self._mapped_inodes(lambda block: disk is not None and _is_on(block, disk))

    def _mapped_inodes(self, is_meant: Callable[[Object], bool]) -> Iterator[Mapping]:
        # The files of some file systems that VMAs map.
        blocks = self._prog["super_blocks"].address_of_()
        for block in list_entries(self._prog, "struct super_block", blocks, "s_list"):
            need_object(block[0])
            if not is_meant(block):
                continue
            inodes = block.s_inodes.address_of_()
            for inode in list_entries(self._prog, "struct inode", inodes, "i_sb_list"):
                need_object(inode[0])
                if inode.i_data.i_mmap.rb_root.rb_node.value_():
                    yield Mapping(MappingKind.FILE, inode.i_mapping.value_())

    # What a VMA maps.

    def near(
        self, folios: FolioCounts, rows: np.ndarray, vmas: Iterable[Vma]
    ) -> Iterator[tuple[Vma, np.ndarray]]:
        """
        Yield VMAs that may map folios by their indices, each with the indices of these folios in
        ascending order: there can be thousands of VMAs, and of folios.

        :param rows: Indices of folios of one mapping.
        """
        rows = rows[np.argsort(_index_spans(folios, rows)[0], kind="stable")]
        firsts, ends = _index_spans(folios, rows)
        so_far = np.maximum.accumulate(ends)
        for vma in vmas:
            pgoff = np.uint64(vma.pgoff)
            last = vma.pgoff + max(vma.end - vma.start >> self._page_shift, 0)
            low = np.searchsorted(so_far, pgoff, side="right")
            high = np.searchsorted(firsts, np.uint64(min(last, _MOST_INDEX)))
            own = rows[low:high][ends[low:high] > pgoff]
            if len(own):
                yield vma, np.sort(own)

    def hits(
        self,
        folios: FolioCounts,
        rows: np.ndarray,
        vma: Vma,
        *,
        by_index: bool,
        swapped: bool = False,
    ) -> Iterator[Hit]:
        """
        Find by page tables which folios a VMA maps.

        :param rows: Indices of those that it may map.
        :param by_index: Whether it can only map them where they belong by their indices.
        :param swapped: Whether they are device-private, so that swap entries map them.
        """
        first, end = vma.start >> self._page_shift, vma.end >> self._page_shift
        if by_index:
            lowest, highest = _index_span(folios, rows)
            first, end = (
                max(first, first + lowest - vma.pgoff),
                min(end, first + highest - vma.pgoff),
            )
        if first >= end:
            return
        pages = np.zeros(len(rows), np.int64)
        try:
            for own in self._mapped_rows(folios, rows, vma, (first, end), swapped):
                np.add.at(pages, own, 1)
        except FAILURES as e:
            self._note(Searched.PAGE_TABLES, vma.mm, e)
        found = np.flatnonzero(pages)
        if len(found):
            yield Hit(vma, rows[found], pages[found])

    def _mapped_rows(
        self, folios: FolioCounts, rows: np.ndarray, vma: Vma, pages: tuple[int, int], swapped: bool
    ) -> Iterator[np.ndarray]:
        # The index in rows of a folio for each of its pages that is mapped.
        mm = Object(self._prog, "struct mm_struct *", vma.mm)
        pfns, sizes = folios.pfn[rows], 1 << folios.order[rows]
        ends, most = pfns + sizes, int(sizes.sum()) + _FURTHER_TABLES
        for _, frames in mapped_frames(mm, *pages, most, swapped=swapped):
            at = np.searchsorted(pfns, frames, side="right") - 1
            yield at[(at >= 0) & (frames < ends[at])]

    def covered(self, folios: FolioCounts, rows: np.ndarray, vma: Vma) -> Iterator[Hit]:
        """Find which folios a VMA covers, by their indices, whether or not it maps them."""
        pages = vma.end - vma.start >> self._page_shift
        index = folios.index[rows]
        inside = (index >= vma.pgoff) & (index < vma.pgoff + pages)
        if inside.any():
            yield Hit(vma, rows[inside], None)


def _is_on(super_block: Object, disk: str) -> bool:
    device = super_block.s_bdev.read_()
    return bool(device) and c_string(device.bd_disk.disk_name) == disk


def _index_spans(folios: FolioCounts, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Where folios may be mapped, by their indices. From Linux kernel commit b9b5777f09be
    # ("device-dax: use ALIGN() for determining pgoff") (in v5.17) to 7fcbd9785d4c ("device-dax:
    # correct pgoff align in dax_set_mapping()") (in v6.12), the index of a large one is that of
    # the next one, unless its first page was mapped first.
    index = folios.index[rows].astype(np.uint64)
    sizes = (1 << folios.order[rows]).astype(np.uint64)
    before = np.where(sizes > 1, np.minimum(sizes, index), np.uint64(0))
    return index - before, index + sizes


def _index_span(folios: FolioCounts, rows: np.ndarray) -> tuple[int, int]:
    firsts, ends = _index_spans(folios, rows)
    return int(firsts.min()), int(ends.max())
