# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Calls
-----

The functions that lookups call, and the addresses that each of them loads from.

Each function loads everything that it needs itself, as ``pfn_to_online_page()``,
``get_dev_pagemap()`` and ``pgmap_pfn_valid()`` do in the machine code of the kernels of
the lab: they are not inlined. A compiler may need fewer loads in ``pfn_valid()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from drgn import Object, Program, TypeKind, offsetof, sizeof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.pgmap_array import walk_pgmap_array
from drgn_zonedev.model import Pgmap
from drgn_zonedev.pfn_proposal.marks import Marks

__all__ = ("Question", "called", "loaded", "read_side")


@dataclass(frozen=True)
class Question:
    """A lookup of one PFN."""

    prog: Program
    marks: Marks
    pfn: int

    @property
    def snapshot(self) -> Snapshot:
        return self.marks.snapshot

    @cached_property
    def pgmap(self) -> Pgmap | None:
        """The pgmap in ``pgmap_array``."""
        return next((p for p in self.snapshot.pgmaps if p.contains(self.pfn)), None)

    @property
    def held(self) -> Pgmap | None:
        """What ``get_dev_pagemap()`` returns."""
        return self.pgmap if self.pgmap and self.pgmap.ref.state == "live" else None

    @property
    def got(self) -> Pgmap:
        """The same, or a :exc:`LookupError` if it returns ``NULL``."""
        if self.held is None:
            raise LookupError("no pgmap")
        return self.held

    @property
    def section_nr(self) -> int:
        return self.pfn // self.snapshot.geometry.pages_per_section

    @property
    def row(self) -> int:
        """Row of the section in the snapshot."""
        row = self.snapshot.sections.find(self.section_nr)
        if row is None:
            raise LookupError(f"section {self.section_nr} is not present")
        return row

    def flag(self, flag: int) -> bool:
        """Whether the section's word has a flag."""
        return bool(int(self.snapshot.sections.word[self.row]) & flag)

    def section_member(self, member: str) -> int:
        """Address of a member of the ``struct mem_section``."""
        offset = offsetof(self.prog.type("struct mem_section"), member)
        return int(self.snapshot.sections.address[self.row]) + offset

    def bitmap(self, index: int) -> tuple[int, int]:
        """
        Addresses of the pointer to the bitmaps, and of the word of one: 0 is ``subsection_map``,
        the others would follow it.
        """
        offset = offsetof(self.prog.type("struct mem_section_usage"), "subsection_map")
        geometry = self.snapshot.geometry
        size = -(-geometry.subsections_per_section // 64) * 8
        word = geometry.subsection_map_index(self.pfn) // 64
        usage = int(self.snapshot.sections.usage[self.row])
        return self.section_member("usage"), usage + offset + index * size + word * 8

    def dev_pagemap(self, pgmap: Pgmap) -> Object:
        """The ``struct dev_pagemap``."""
        return Object(self.prog, "struct dev_pagemap", address=pgmap.address)


def called(q: Question, calls: Iterable[str]) -> Iterator[str]:
    """Iterate over the functions that are really called for a PFN, and those that they call."""
    for call in calls:
        # Without a pgmap, it is neither read nor put.
        if call in _NEEDS_PGMAP and not q.held:
            continue
        yield call
        if call == "pfn_to_online_page" and _asks_pgmap(q):
            yield from called(q, ("get_dev_pagemap", "put_dev_pagemap"))


def _asks_pgmap(q: Question) -> bool:
    # online_device_section() of v5.12 and later, also on older kernels.
    return q.flag(q.snapshot.flags.online) and bool(q.marks.taint[q.row])


def loaded(q: Question, call: str) -> Iterator[int]:
    """
    Iterate over the addresses that a function loads from, in order.

    :raises FaultError: if a structure cannot be read
    :raises LookupError: if the section is not present
    """
    return _CALLS[call](q)


def read_side(q: Question, call: str) -> bool:
    """Return whether a function enters an RCU read-side critical section."""
    if call == "pfn_valid":
        # Since Linux kernel commit 5ec8e8ea8b77 ("mm/sparsemem: fix race in accessing
        # memory_section->usage") (in v6.8, and in stable releases).
        return bool(q.prog.type("struct mem_section_usage").has_member("rcu"))
    return call in ("first_bit", "second_bit", "get_dev_pagemap", "put_dev_pagemap")


def _root(q: Question) -> Iterator[int]:
    # __pfn_to_section(): the pointer to the array, and the pointer to the root in it.
    mem_section = q.prog["mem_section"]
    if mem_section.type_.unaliased_kind() == TypeKind.POINTER:
        yield mem_section.address_of_().value_()
        yield mem_section.value_() + q.section_nr // q.prog["SECTIONS_PER_ROOT"].value_() * 8


def _section(q: Question) -> Iterator[int]:
    yield from _root(q)
    yield q.section_member("section_mem_map")


def _pfn_valid(q: Question) -> Iterator[int]:
    yield from _section(q)
    if not q.flag(q.snapshot.flags.early):
        yield from q.bitmap(0)


def _pfn_to_online_page(q: Question) -> Iterator[int]:
    yield from _section(q)
    if q.flag(q.snapshot.flags.online):
        yield from q.bitmap(0)
        # online_device_section() reads the word again.
        yield q.section_member("section_mem_map")


def _posted_bit(q: Question) -> Iterator[int]:
    # As posted: it looks up the section again after pfn_valid().
    yield from _root(q)
    yield from q.bitmap(1)


def _first_bit(q: Question) -> Iterator[int]:
    # test_subsection() of lab/patches/pfn_zone_device.edit does not check subsection_map.
    yield from _section(q)
    yield from q.bitmap(1)


def _second_bit(q: Question) -> Iterator[int]:
    yield from _section(q)
    yield from q.bitmap(2)


def _get_dev_pagemap(q: Question) -> Iterator[int]:
    # xa_load(), and percpu_ref_tryget_live().
    yield from walk_pgmap_array(q.prog, q.pfn).loads
    if q.pgmap is None:
        return
    ref = q.dev_pagemap(q.pgmap).ref
    state = list(_state(ref))
    yield from state
    if q.held is None or q.held.ref.mode == "atomic":
        # Not in percpu mode, so __PERCPU_REF_DEAD is checked in the same word.
        yield state[-1]
    if q.held:
        yield from _counter(q.held, ref)


def _put_dev_pagemap(q: Question) -> Iterator[int]:
    ref = q.dev_pagemap(q.got).ref
    yield from _state(ref)
    yield from _counter(q.got, ref)


def _state(ref: Object) -> Iterator[int]:
    # The word whose lowest bits are the reference's state; 5.10 has a pointer to the reference.
    if ref.type_.unaliased_kind() == TypeKind.POINTER:
        yield ref.address_of_().value_()
        if not ref:
            return
    yield ref.percpu_count_ptr.address_of_().value_()


def _counter(pgmap: Pgmap, ref: Object) -> Iterator[int]:
    if pgmap.ref.mode == "atomic":
        yield ref.data.address_of_().value_()
        yield ref.data.count.address_of_().value_()
    else:
        # An offset: each CPU has its own counter.
        yield ref.percpu_count_ptr.value_() & ~3


def _pgmap_pfn_valid(q: Question) -> Iterator[int]:
    # The ranges up to the one that contains the PFN; the altmap belongs to the first.
    pgmap = q.dev_pagemap(q.got)
    if q.got.records_progress:
        yield pgmap.nr_range.address_of_().value_()
    for i, range_ in enumerate(q.got.ranges[: q.got.nr_range]):
        start, end = _range_words(q, i)
        yield start
        if q.pfn < range_.start_pfn:
            continue
        yield end
        if q.pfn < range_.end_pfn:
            if i == 0:
                yield pgmap.flags.address_of_().value_()
            if i == 0 and q.got.altmap:
                yield pgmap.altmap.reserve.address_of_().value_()
                yield pgmap.altmap.free.address_of_().value_()
            return


def _range(q: Question) -> Iterator[int]:
    # The comparison of get_dev_pagemap(pfn, cached) in v6.12, which any walker can do.
    inside = [r.start_pfn <= q.pfn < r.end_pfn for r in q.got.ranges]
    yield from _range_words(q, inside.index(True))


def _reserve(q: Question) -> Iterator[int]:
    # nr_valid_pages_zone_device() of November 2019: the only range then is the first one now.
    pgmap = q.dev_pagemap(q.got)
    yield pgmap.flags.address_of_().value_()
    if q.got.altmap:
        yield pgmap.altmap.base_pfn.address_of_().value_()
        yield pgmap.altmap.reserve.address_of_().value_()
    yield _range_words(q, 0)[1]


def _range_words(q: Question, index: int) -> tuple[int, int]:
    size = sizeof(q.prog.type("struct range"))
    # struct resource begins like struct range.
    member = "ranges" if q.got.records_progress else "res"
    ranges = offsetof(q.prog.type("struct dev_pagemap"), member)
    start = q.got.address + ranges + index * size
    return start, start + size // 2


_CALLS = {
    "section": _section,
    "pfn_valid": _pfn_valid,
    "pfn_to_online_page": _pfn_to_online_page,
    "posted_bit": _posted_bit,
    "first_bit": _first_bit,
    "second_bit": _second_bit,
    "get_dev_pagemap": _get_dev_pagemap,
    "put_dev_pagemap": _put_dev_pagemap,
    "pgmap_pfn_valid": _pgmap_pfn_valid,
    "range": _range,
    "reserve": _reserve,
}

_NEEDS_PGMAP = ("put_dev_pagemap", "pgmap_pfn_valid", "range", "reserve")
