# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The answers of a kernel's own pfn_zone_device(), computed from its memory.

This is for a kernel that was changed by ``patches/pfn_zone_device.edit`` or that for 7.3, and also
works in a frozen guest, which cannot run a module. The rules are those of ``test_subsection()`` in
these patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program, offsetof, sizeof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences
from drgn_zonedev.lab.verdict.variant_answers import Models, models_of
from drgn_zonedev.model import Case, Range
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_proposal.variants import Asked

__all__ = ("KernelBits", "bits_disagreements", "claimed_by_case", "kernel_bits")

# Memory that was hot-added for a device is claimed until it is removed.
_CLAIMED = (Case.DEVICE, Case.RESERVED, Case.TEARDOWN, Case.ORPHAN)
# RAM can be in these cases, too, without a pgmap.
_CLAIMED_BY_PGMAP = (Case.INITIALIZING, Case.METADATA)


@dataclass(frozen=True)
class KernelBits:
    """A row per PFN of each section that has a memmap."""

    pfn: np.ndarray
    zone_device: np.ndarray
    """``pfn_zone_device()``"""
    claimed: np.ndarray
    """``pfn_zone_device_claimed()``"""


def kernel_bits(prog: Program, snapshot: Snapshot) -> KernelBits | None:
    """Read the bits, or return None if this kernel has none, or none of these meanings."""
    usage = prog.type("struct mem_section_usage")
    if not usage.has_member("subsection_init_map") or models_of(prog):
        return None
    pfn, bits = _read_bits(prog, snapshot, ("subsection_init_map", "subsection_dev_map"))
    return KernelBits(pfn, *bits)


def _read_bits(
    prog: Program, snapshot: Snapshot, names: Sequence[str]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the PFNs of each section that has a memmap, and for each bitmap, the bits of these."""
    geometry = snapshot.geometry
    sections = snapshot.sections
    pages = geometry.pages_per_section
    has_memmap = (sections.word & np.uint64(snapshot.flags.has_mem_map)) != 0
    rows = np.flatnonzero(has_memmap & sections.usage_readable)
    maps = [
        np.array([_bitmap(prog, int(sections.usage[row]), name) for row in rows], np.uint8)
        for name in names
    ]
    count = pages // geometry.pages_per_subsection
    bits = [
        np.unpackbits(m.reshape(len(rows), -1), axis=1, bitorder="little")[:, :count].astype(bool)
        for m in maps
    ]
    per_pfn = [np.repeat(b.reshape(-1), geometry.pages_per_subsection) for b in bits]
    pfn = (sections.nr[rows, None] * pages + np.arange(pages)).reshape(-1)
    return pfn, per_pfn


def _bitmap(prog: Program, usage: int, name: str) -> list[int]:
    type_ = prog.type("struct mem_section_usage")
    size = sizeof(type_.member(name).type)
    return list(prog.read(usage + offsetof(type_, name), size) if usage else bytes(size))


def claimed_by_case(ranges: Sequence[Range], pfn: np.ndarray, populated: np.ndarray) -> np.ndarray:
    """
    Return what pfn_zone_device_claimed() must answer for sorted PFNs.

    :param populated: whether their subsections are
    """
    claimed = np.zeros(len(pfn), bool)
    for range_ in ranges:
        first, end = np.searchsorted(pfn, [range_.start_pfn, range_.end_pfn])
        claimed[first:end] = _is_claimed(range_)
    return claimed & populated


def _is_claimed(range_: Range) -> bool:
    if range_.case in _CLAIMED_BY_PGMAP:
        return range_.pgmap is not None
    return range_.case in _CLAIMED


def bits_disagreements(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range]
) -> Iterator[Disagreement]:
    """Yield where the kernel's bits differ from our own pfn_zone_device()."""
    if models := models_of(prog):
        yield from _model_marks(models, prog, snapshot, ranges)
    bits = kernel_bits(prog, snapshot)
    if bits is None:
        return
    ours = snapshot.predicates(bits.pfn)
    claimed = claimed_by_case(ranges, bits.pfn, ours.populated)
    for function, mine, theirs in (
        ("pfn_zone_device()", ours.zone_device, bits.zone_device),
        ("pfn_zone_device_claimed()", claimed, bits.claimed),
    ):
        yield from differences(f"{function} by its bitmap", bits.pfn, mine, theirs)


def _model_marks(
    models: Models, prog: Program, snapshot: Snapshot, ranges: Sequence[Range]
) -> Iterator[Disagreement]:
    # What the kernel keeps for its lookups, which a frozen guest cannot be asked.
    marks = Marks(snapshot, ranges)
    if models.bitmap:
        pfn, (theirs,) = _read_bits(prog, snapshot, (models.bitmap,))
        ours = Asked(snapshot, marks, snapshot.predicates(pfn)).bit(marks.late)
        yield from differences(models.bitmap, pfn, ours, theirs)
    if models.flag:
        pages = snapshot.geometry.pages_per_section
        theirs = (snapshot.sections.word & np.uint64(snapshot.flags.taint)) != 0
        pfn = snapshot.sections.nr * pages
        yield from differences("the section's flag", pfn, marks.section, theirs)
