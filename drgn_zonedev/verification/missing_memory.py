# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Missing Memory
--------------

Which physical memory would have to be in the dump for what could not be judged,
and why it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from drgn import FaultError, Program
from drgn.helpers.linux.mm import follow_phys

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.vmemmap import UNMAPPED, vmemmap_page_frames, vmemmap_pages
from drgn_zonedev.model import Missing, Unjudged
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.vmcore.left_out import filtered_frames, frames_in_other_parts, segment_pages
from drgn_zonedev.vmcore.reads import first_unreadable

__all__ = ("missing_memory",)

_ON_DEVICE = (
    "it is on the device itself (map=dev), and a kdump saves System RAM only: save this memory, "
    "too, or reconfigure the namespace with map=mem"
)
_FILTERED = (
    "makedumpfile excluded it as memory that is not needed: filter less (-d 1), without -e, and "
    "with a version that knows this kernel"
)
_CUT_OFF = (
    "the dump is filtered or incomplete: filter less, or check whether there was enough space to "
    "save it"
)
_OTHER_PART = (
    "this is one part of a split dump, and another has it: put them together with makedumpfile "
    "--reassemble"
)
_UNTRANSLATED = "its page tables are not readable, so it is not known where it is"

# More ranges than that are not added by hand.
_MAX_RUNS = 256
# Pages of vmemmap that are translated together: those of a TiB of memory.
_PAGES_AT_ONCE = 1 << 22


def missing_memory(
    prog: Program, snapshot: Snapshot, unjudged: Iterable[Unjudged]
) -> tuple[Missing, ...]:
    """
    Get the physical memory that is needed to judge what could not be judged.

    :return: In ascending order, at most 256; memory whose place is not known (``start``
        is ``end``) comes first.
    """
    found: dict[tuple[int, int], Missing] = {}
    at = ((u, u.address) for u in unjudged if u.address is not None)
    for missing in (m for u, address in at for m in _of(prog, snapshot, u, address)):
        found.setdefault((missing.start, missing.end), missing)
        if len(found) == _MAX_RUNS:
            break
    return tuple(found[key] for key in sorted(found))


def _of(prog: Program, snapshot: Snapshot, u: Unjudged, address: int) -> Iterator[Missing]:
    shift = snapshot.geometry.page_shift
    if address != page_layout(prog).page_address(u.start_pfn):
        if first_unreadable(prog, address, 1) is None:
            # The memory is in the dump, but is damaged.
            return
        where = _page_of(prog, address, shift)
        holds = f"a structure at {address:#x}"
        if where is None:
            yield Missing(0, 0, holds, _UNTRANSLATED)
        else:
            why = _why(prog, snapshot, where, address)
            yield Missing(where << shift, (where + 1) << shift, holds, why)
        return
    holds = f"struct pages of [{u.start_pfn:#x}, {u.end_pfn:#x})"
    first, last = vmemmap_pages(prog, u.start_pfn, u.end_pfn)
    for page in range(first, last, _PAGES_AT_ONCE):
        frames = vmemmap_page_frames(prog, page, min(page + _PAGES_AT_ONCE, last))
        if frames is None:
            yield Missing(0, 0, holds, _UNTRANSLATED)
            return
        for start, end in _runs(prog, sorted_set(frames[frames != UNMAPPED]), snapshot):
            why = _why(prog, snapshot, start, address)
            yield Missing(start << shift, end << shift, holds, why)


def _page_of(prog: Program, address: int, shift: int) -> int | None:
    try:
        return int(follow_phys(prog["init_mm"].address_of_(), address).value_()) >> shift
    except (FaultError, LookupError, NotImplementedError, ValueError):
        return None


def _runs(prog: Program, frames: np.ndarray, snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    # Runs of page frames, none of which is partly on a device, or in another dump.
    if not len(frames):
        return
    borders = {border for span in _device_spans(snapshot) for border in span}
    split = (np.diff(frames) != 1) | np.isin(frames[1:], list(borders))
    split |= np.diff(frames_in_other_parts(prog, frames))
    for run in np.split(frames, np.flatnonzero(split) + 1):
        yield int(run[0]), int(run[-1]) + 1


def _device_spans(snapshot: Snapshot) -> Sequence[tuple[int, int]]:
    return [(r.start_pfn, r.end_pfn) for pgmap in snapshot.pgmaps for r in pgmap.ranges]


def _why(prog: Program, snapshot: Snapshot, pfn: int, address: int) -> str:
    frame = np.array([pfn])
    if frames_in_other_parts(prog, frame)[0]:
        return _OTHER_PART
    if any(start <= pfn < end for start, end in _device_spans(snapshot)):
        return _ON_DEVICE
    is_filtered = filtered_frames(prog, frame)[0] or _is_in_empty_segment(
        prog, address >> snapshot.geometry.page_shift
    )
    return _FILTERED if is_filtered else _CUT_OFF


def _is_in_empty_segment(prog: Program, page: int) -> bool:
    # Where segments have virtual addresses only.
    _, empty = segment_pages(prog, page, page + 1)
    return bool(empty[0])
