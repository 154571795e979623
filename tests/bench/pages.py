# SPDX-License-Identifier: LGPL-2.1-or-later
"""Struct pages: ours, and what else there is, per page."""

from __future__ import annotations

import itertools

from drgn import Object, Program
from drgn.helpers.linux.mm import for_each_valid_pfn_and_page, page_flags

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.model import Case, Range
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.verification.verify import Verification, verify_snapshot

from .guest import Image
from .measure import Measurement, interleave, seconds

__all__ = ("measure_pages",)

_CHUNK = 256 << 10
_ZONE_MASK = 7


def measure_pages(image: Image, rounds: int, objects: int) -> list[Measurement]:
    """
    Measure everything that can be measured in one process on a dump.

    :param objects: How many pages are enough where one takes microseconds.
    """
    prog = open_dump(image.core, image.vmlinux)
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    base = _largest(snapshot, ranges, shift=0)
    contenders = {
        "raw read": lambda: _per_page(lambda: _read_raw(prog, base), base.pages),
        "verify, 4 KiB pages": lambda: _per_page(lambda: _verify(prog, snapshot, base), base.pages),
        "drgn objects": lambda: _per_page(
            lambda: _check_objects(prog, base, min(objects, base.pages)),
            min(objects, base.pages),
        ),
        "for_each_valid_pfn_and_page()": lambda: _per_page(
            lambda: _consume(prog, objects), objects
        ),
    }
    found = interleave(contenders, rounds, "ns/page")
    for name, shift in (("2 MiB", 9), ("1 GiB", 18)):
        compound = _largest(snapshot, ranges, shift)
        if compound.pages:
            share = _verify(prog, snapshot, compound).coverage.bytes_read / (
                compound.pages * page_layout(prog).size
            )
            found.append(Measurement(f"bytes read, {name} pages", "of the memmap", (share,)))
    return found


def _largest(snapshot: Snapshot, ranges: list[Range], shift: int) -> Range:
    shifts = {p.address: p.vmemmap_shift for p in snapshot.pgmaps}
    found = [r for r in ranges if r.case is Case.DEVICE and shifts[r.pgmap or 0] == shift]
    nothing = Range(0, 0, Case.DEVICE, ranges[0].memmap, "")
    return max(found, key=lambda r: r.pages, default=nothing)


def _per_page(work: object, pages: int) -> float:
    assert callable(work)
    return seconds(work) / pages * 1e9


def _read_raw(prog: Program, range_: Range) -> None:
    layout = page_layout(prog)
    start = layout.vmemmap + range_.start_pfn * layout.size
    end = layout.vmemmap + range_.end_pfn * layout.size
    for address in range(start, end, _CHUNK):
        prog.read(address, min(_CHUNK, end - address))


def _verify(prog: Program, snapshot: Snapshot, range_: Range) -> Verification:
    verification = verify_snapshot(prog, snapshot, [range_])
    assert verification.findings == ()
    assert verification.coverage.pages_verified == range_.pages
    return verification


def _check_objects(prog: Program, range_: Range, count: int) -> None:
    # What one would write at a prompt: zone, pgmap and reference count of each.
    device = prog.constant("ZONE_DEVICE").value_()
    memmap = Object(prog, "struct page *", page_layout(prog).vmemmap)
    shift = 64 - 10 - 3
    for pfn in range(range_.start_pfn, range_.start_pfn + count):
        page = memmap + pfn
        zone = page_flags(page).value_() >> shift & _ZONE_MASK
        assert zone == device
        assert page.pgmap.value_() == range_.pgmap
        assert page._refcount.counter.value_() == 1


def _consume(prog: Program, count: int) -> None:
    for _ in itertools.islice(for_each_valid_pfn_and_page(prog), count):
        pass
