# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Device Memory
-------------

The ``drgn_zonedev.kernel.memremap`` module provides helpers for working with
``ZONE_DEVICE`` memory as :linux:`mm/memremap.c` manages it: ``pgmap_array``,
``struct dev_pagemap``, ``struct vmem_altmap`` and the reference that keeps a
pgmap alive.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import (
    NULL,
    FaultError,
    IntegerLike,
    Object,
    ObjectNotFoundError,
    Program,
    TypeKind,
)
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.percpu import per_cpu_ptr

from drgn_zonedev.kernel.arguments import require_number, require_struct
from drgn_zonedev.kernel.kallsyms import symbol_name
from drgn_zonedev.kernel.masks import possible_cpus
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.xarray import XArrayEntries, no_entries, xa_entries, xa_lookup
from drgn_zonedev.model import Altmap, Pgmap, PgmapRange, RefState
from drgn_zonedev.util.handles import bind
from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.reads import need_object, null_pointer, read_object

__all__ = (
    "dev_pagemap_info",
    "dev_pagemap_ranges",
    "dev_pagemap_type",
    "find_dev_pagemap",
    "for_each_dev_pagemap",
    "for_each_pgmap_array_entry",
    "get_dev_pagemap",
    "has_zone_device",
    "percpu_ref_state",
    "pgmap_altmap",
    "pgmap_array_entries",
    "pgmap_array_slots",
    "pgmap_is_alive",
    "pgmap_pfn_first",
    "pgmap_pfn_valid",
    "pgmap_range",
    "pgmap_records_progress",
    "pgmap_ref",
    "pgmap_vmemmap_shift",
    "require_percpu_ref",
    "vmem_altmap_offset",
)

# A macro in include/linux/memremap.h, unchanged since Linux kernel commit
# 514caf23a70f ("memremap: replace the altmap_valid field with a PGMAP_ALTMAP_VALID
# flag") (in v5.3).
_PGMAP_ALTMAP_VALID = 1 << 0

_PGMAP = "struct dev_pagemap"

# More ranges than any driver has; a larger number is garbage. The widest user in the
# kernel is a devdax device, with one range per resource.
_MAX_RANGES = 4096

# More claims than any machine has: the largest have some thousand ranges of device memory.
# A damaged array can hold another pgmap for each of two million PFNs.
_MAX_CLAIMS = 1 << 14

# PUD_ORDER is 18 on x86-64, and 26 on arm64 with pages of 64 KiB.
_MAX_VMEMMAP_SHIFT = 26

# XA_CHUNK_SHIFT: 6 unless CONFIG_BASE_SMALL, which is not used together with
# CONFIG_ZONE_DEVICE.
_XA_CHUNK_SHIFT = 6
_XA_CHUNK_SIZE = 1 << _XA_CHUNK_SHIFT


@takes_program_or_default
def for_each_dev_pagemap(prog: Program) -> Iterator[tuple[int, Object]]:
    """
    Iterate over the pgmaps in ``pgmap_array``, each once.

    ``pgmap_array`` holds several multi-index entries per range
    (``xa_store_range()`` in ``pagemap_range()``), so the same pointer shows up
    more than once there. An entry means that the PFNs are claimed: it is stored
    before the memory is hot-added and erased after it is gone.

    :return: Iterator of (first PFN that the pgmap was found at, ``struct
        dev_pagemap *``) tuples in ascending PFN order.
    :raises ObjectNotFoundError: if the kernel has no ``pgmap_array``
        (``CONFIG_ZONE_DEVICE=n``)
    """
    seen = set()
    for pfn, pgmap in for_each_pgmap_array_entry(prog):
        address = pgmap.value_()
        if address not in seen:
            seen.add(address)
            yield pfn, pgmap


@takes_program_or_default
def for_each_pgmap_array_entry(prog: Program) -> Iterator[tuple[int, Object]]:
    """
    Like :func:`for_each_dev_pagemap()`, but for every entry of ``pgmap_array``:
    a pgmap shows up once for each.

    Parts of the array that cannot be read are left out; :func:`pgmap_array_entries()`
    lists them.
    """
    pgmap_type = prog.type("struct dev_pagemap *")
    entries = pgmap_array_entries(prog)
    for pfn, address in zip(entries.first.tolist(), entries.value.tolist()):
        yield pfn, Object(prog, pgmap_type, address)


@takes_program_or_default
def has_zone_device(prog: Program) -> bool:
    """
    Return whether the kernel was built with ``CONFIG_ZONE_DEVICE``.

    :raises LookupError: if the debugging information does not say
    """
    if "pgmap_array" in prog or "ZONE_DEVICE" in prog:
        return True
    # Both enumerators are of one enumeration.
    prog.constant("__MAX_NR_ZONES")
    return False


@takes_program_or_default
def pgmap_array_entries(prog: Program) -> XArrayEntries:
    """
    Read all of ``pgmap_array``: which PFNs it holds which ``struct dev_pagemap *`` for,
    and which PFNs could not be read. Without ``CONFIG_ZONE_DEVICE``, it holds nothing.

    :raises ObjectNotFoundError: if the debugging information does not have ``pgmap_array``
    """
    if not has_zone_device(prog):
        return no_entries()
    entries = xa_entries(prog["pgmap_array"].address_of_())
    return entries.at_most(_MAX_CLAIMS, "it holds more than on any machine")


def pgmap_array_slots(start_pfn: int, end_pfn: int) -> Iterator[tuple[int, int]]:
    """
    Iterate over the half-open PFN ranges of the single slots that
    ``xa_store_range()`` fills to store a pgmap for a range: ``xa_load()`` gives
    the same answer for all of a slot.
    """
    start = start_pfn
    while start < end_pfn:
        shift = 0
        while (
            start % (_XA_CHUNK_SIZE << shift) == 0 and start + (_XA_CHUNK_SIZE << shift) <= end_pfn
        ):
            shift += _XA_CHUNK_SHIFT
        yield start, start + (1 << shift)
        start += 1 << shift


@takes_program_or_default
def find_dev_pagemap(prog: Program, pfn: IntegerLike) -> Object:
    """
    Get the pgmap that claims a PFN, whether it is live or not.

    :param pfn: ``unsigned long``
    :return: ``struct dev_pagemap *`` (``NULL`` if no pgmap claims it). A kernel without
        ``CONFIG_ZONE_DEVICE`` may not have the type, either: then, it is a ``void *``.
    :raises FaultError: if ``pgmap_array`` cannot be read there
    """
    pfn = require_number(pfn)
    try:
        xa = prog["pgmap_array"].address_of_()
    except ObjectNotFoundError:
        return null_pointer(prog, "struct dev_pagemap *")
    return Object(prog, "struct dev_pagemap *", xa_lookup(xa, pfn))


@takes_program_or_default
def get_dev_pagemap(prog: Program, pfn: IntegerLike) -> Object:
    """
    Get the live pgmap of a PFN as the kernel's ``get_dev_pagemap()`` would,
    without taking a reference.

    Like the kernel's, it does not look at the state of the memmap: it also returns a pgmap
    whose struct pages are being initialised.

    :param pfn: ``unsigned long``
    :return: ``struct dev_pagemap *`` (``NULL`` if there is none, or if its
        reference was killed), or a ``void *`` like that of :func:`find_dev_pagemap()`
    """
    pgmap = find_dev_pagemap(prog, pfn)
    if pgmap and not pgmap_is_alive(pgmap):
        return NULL(prog, pgmap.type_)
    return pgmap


def pgmap_ref(pgmap: Object) -> Object:
    """
    Get the reference that keeps a pgmap alive.

    :param pgmap: ``struct dev_pagemap *``
    :return: ``struct percpu_ref *``, which can be ``NULL`` before v5.17
    """
    # Since Linux kernel commit b80892ca022e ("memremap: remove support for
    # external pgmap refcounts") (in v5.17), the reference is embedded. Before
    # that, it is a pointer, which is NULL after dev_pagemap_cleanup().
    ref = pgmap.ref
    need_object(ref)
    if ref.type_.unaliased_kind() == TypeKind.POINTER:
        return ref.read_()
    return ref.address_of_()


def pgmap_is_alive(pgmap: Object) -> bool:
    """
    Return whether ``percpu_ref_tryget_live()`` would succeed on a pgmap.

    :param pgmap: ``struct dev_pagemap *``
    """
    require_struct(pgmap, _PGMAP)
    ref = pgmap_ref(pgmap)
    if not ref:
        return False
    need_object(ref[0])
    dead = pgmap.prog_["__PERCPU_REF_DEAD"].value_()
    return not ref.percpu_count_ptr.value_() & dead


def percpu_ref_state(ref: Object) -> RefState:
    """
    Get the state and the number of references of a ``percpu_ref``.

    The count includes the initial reference and transient ones. See
    :linux:`lib/percpu-refcount.c`.

    :param ref: ``struct percpu_ref *``
    """
    if not ref:
        return RefState("none", None, None)
    prog = ref.prog_
    try:
        ref = read_object(ref[0])
        word = ref.percpu_count_ptr.value_()
        state = "dead" if word & prog["__PERCPU_REF_DEAD"].value_() else "live"
    except (FaultError, LookupError, AttributeError):
        return RefState("unreadable", None, None)
    mode = None
    try:
        atomic = bool(word & prog["__PERCPU_REF_ATOMIC"].value_())
        mode = "atomic" if atomic else "percpu"
        # Since Linux kernel commit 2b0d3d3e4fcf ("percpu_ref: reduce memory footprint of
        # percpu_ref in fast path") (in v5.10), the counter is in struct percpu_ref_data.
        if not prog.type("struct percpu_ref").has_member("data"):
            if word & ~prog["__PERCPU_REF_ATOMIC_DEAD"].value_() == 0:
                return RefState("exited", None, None)
            return RefState(state, mode, _percpu_ref_count(ref, ref, word, atomic))
        data = ref.data.read_()
        if not data:
            # percpu_ref_exit() keeps the last count above the flags.
            flag_bits = prog["__PERCPU_REF_FLAG_BITS"].value_()
            return RefState("exited", None, word >> flag_bits)
        need_object(data[0])
        return RefState(state, mode, _percpu_ref_count(ref, data, word, atomic))
    except (FaultError, LookupError, AttributeError):
        return RefState(state, mode, None)


def _percpu_ref_count(ref: Object, data: Object, word: int, atomic: bool) -> int:
    prog = ref.prog_
    count = data.count.counter.value_()
    if atomic:
        return int(count)
    mask = prog["__PERCPU_REF_ATOMIC_DEAD"].value_()
    if not word & ~mask:
        # alloc_percpu_gfp() never gives this; the start of per-CPU memory is not a counter.
        raise FaultError("there is no per-CPU counter", 0)
    # PERCPU_COUNT_BIAS: in percpu mode the atomic counter starts there.
    bits = 8 * prog.type("unsigned long").size
    total = count - (1 << (bits - 1))
    counters = np.uint64(word & ~mask) + _per_cpu_offsets(prog)
    raw, readable = read_records(prog, counters, bits // 8)
    if not readable.all():
        raise FaultError("a per-CPU counter cannot be read", int(counters[~readable][0]))
    # A counter of one CPU may wrap; only the sum has a meaning.
    total += sum(raw.view(f"<u{bits // 8}")[:, 0].tolist())
    # As an atomic_long_t, which it becomes once the reference is killed.
    unsigned = int(total) & ((1 << bits) - 1)
    return unsigned - (unsigned >> (bits - 1) << bits)


@once_per_program
def _per_cpu_offsets(prog: Program) -> np.ndarray:
    # Settled at boot, so read once: large machines have more than a thousand CPUs, and a
    # pgmap has a counter on each.
    null = Object(prog, "char *", 0)
    cpus = possible_cpus(prog)
    return np.array([per_cpu_ptr(null, cpu).value_() for cpu in cpus], np.uint64)


def dev_pagemap_type(pgmap: Object) -> str:
    """
    Get the memory type of a pgmap by the name of its enumerator.

    The values moved when ``MEMORY_DEVICE_COHERENT`` was inserted in Linux
    kernel commit f25cbb7a95a2 ("mm: add zone device coherent type memory
    support") (in v6.0), so the number alone is ambiguous.

    :param pgmap: ``struct dev_pagemap *``
    """
    require_struct(pgmap, _PGMAP)
    try:
        return str(pgmap.type.format_(type_name=False))
    except AttributeError:
        # The debugging information does not have enum memory_type.
        return "?"


def pgmap_vmemmap_shift(pgmap: Object) -> int:
    """
    Get the order of the compound pages that a pgmap's memmap is made of.

    :param pgmap: ``struct dev_pagemap *``
    :raises LookupError: if the debugging information does not have the member, which the kernel has
    """
    require_struct(pgmap, _PGMAP)
    # Added in Linux kernel commit c4386bd8ee3a ("mm/memremap: add ZONE_DEVICE
    # support for compound pages") (in v5.17), the release that embedded the reference.
    try:
        return int(pgmap.vmemmap_shift.value_())
    except AttributeError:
        if _points_to_reference(pgmap):
            return 0
        raise LookupError("'struct dev_pagemap' has no member 'vmemmap_shift'") from None


def _points_to_reference(pgmap: Object) -> bool:
    if pgmap.prog_.type("struct dev_pagemap").has_member("internal_ref"):
        return True
    return bool(pgmap.ref.type_.unaliased_kind() == TypeKind.POINTER)


def dev_pagemap_ranges(pgmap: Object) -> tuple[tuple[PgmapRange, ...], bool]:
    """
    Get the PFN ranges of a pgmap that have a recorded length.

    ``memremap_pages()`` sets ``nr_range`` to 0 and increments it after it has initialised
    each range. While it runs, the range at index ``nr_range`` is in progress. Later
    entries exist, but the kernel does not record how many.

    :param pgmap: ``struct dev_pagemap *``
    :return: Tuple of (ranges, whether the last one is in progress). The number
        of ranges that are not in progress is ``nr_range``.
    :raises ValueError: if ``nr_range`` is larger than in any driver
    """
    require_struct(pgmap, _PGMAP)
    return _ranges_of(pgmap, _read_pgmap(pgmap))


def _read_pgmap(pgmap: Object) -> Object:
    # All of it in one read, or what of it is there.
    try:
        return read_object(pgmap[0])
    except FaultError:
        need_object(pgmap[0])
        return pgmap[0]


def pgmap_records_progress(pgmap: Object) -> bool:
    """
    Return whether the kernel records which ranges of a pgmap are initialised.

    :param pgmap: ``struct dev_pagemap *``
    """
    # Since Linux kernel commits a4574f63edc6 ("mm/memremap_pages: convert to 'struct
    # range'") and b7b3c01b1915 ("mm/memremap_pages: support multiple ranges per
    # invocation") (in v5.10). Before that, the only range is a struct resource.
    type_ = pgmap.prog_.type(_PGMAP)
    return type_.has_member("nr_range") or not type_.has_member("res")


def pgmap_range(pgmap: Object, index: int) -> Object:
    """
    Get a range of a pgmap, both of whose ends are inclusive.

    :param pgmap: ``struct dev_pagemap *``
    :return: ``struct range``, or ``struct resource`` before v5.10
    """
    return pgmap.ranges[index] if pgmap_records_progress(pgmap) else pgmap.res


def _ranges_of(pgmap: Object, value: Object) -> tuple[tuple[PgmapRange, ...], bool]:
    shift = pgmap.prog_["PAGE_SHIFT"].value_()
    if not pgmap_records_progress(pgmap):
        return (_pfn_range(pgmap.res, shift),), False
    nr_range = value.nr_range.value_()
    if not 0 <= nr_range <= _MAX_RANGES:
        raise ValueError(f"nr_range of pgmap {pgmap.value_():#x} is {nr_range}")
    ranges = [_pfn_range(pgmap.ranges[i], shift) for i in range(nr_range)]
    in_progress = _range_in_progress(pgmap, nr_range, shift)
    if in_progress is None or any(
        in_progress.start_pfn < done.end_pfn and done.start_pfn < in_progress.end_pfn
        for done in ranges
    ):
        return tuple(ranges), False
    return (*ranges, in_progress), True


def _pfn_range(range_: Object, shift: int) -> PgmapRange:
    # struct range and struct resource are inclusive at both ends.
    range_ = read_object(range_)
    return PgmapRange(range_.start.value_() >> shift, (range_.end.value_() + 1) >> shift)


def _range_in_progress(pgmap: Object, nr_range: int, shift: int) -> PgmapRange | None:
    # A complete pgmap has no entry at nr_range: the memory there may belong to another
    # object. Only pgmap_array can tell, because memremap_pages() stores the range in it
    # before it does anything else.
    try:
        range_ = _pfn_range(pgmap.ranges[nr_range], shift)
    except FaultError:
        return None
    if range_.start_pfn >= range_.end_pfn:
        return None
    ends = (range_.start_pfn, range_.end_pfn - 1)
    try:
        found = {find_dev_pagemap(pgmap.prog_, pfn).value_() for pfn in ends}
    except FaultError:
        return None
    return range_ if found == {pgmap.value_()} else None


def pgmap_altmap(pgmap: Object) -> Altmap | None:
    """
    Get the altmap of a pgmap, the part of the device that holds its memmap.

    :param pgmap: ``struct dev_pagemap *``
    :return: ``None`` if ``PGMAP_ALTMAP_VALID`` is not set. An altmap applies to the
        first range only.
    """
    require_struct(pgmap, _PGMAP)
    if not pgmap.flags.value_() & _PGMAP_ALTMAP_VALID:
        return None
    altmap = pgmap.altmap.read_()
    return Altmap(
        base_pfn=altmap.base_pfn.value_(),
        end_pfn=altmap.end_pfn.value_(),
        reserve=altmap.reserve.value_(),
        free=altmap.free.value_(),
        align=altmap.align.value_(),
        alloc=altmap.alloc.value_(),
    )


def vmem_altmap_offset(altmap: Object) -> int:
    """
    Get the number of pages between an altmap's base and the first PFN that
    holds data: ``reserve`` (never initialised) and ``free`` (the memmap itself).

    :param altmap: ``struct vmem_altmap *``
    """
    return int(altmap.reserve.value_() + altmap.free.value_())


def pgmap_pfn_first(pgmap: Object, range_id: IntegerLike) -> int:
    """
    Get the first PFN of a pgmap's range that ``memmap_init_zone_device()``
    initialises, like the kernel's ``pfn_first()``.

    :param pgmap: ``struct dev_pagemap *``
    :param range_id: Index into ``pgmap->ranges``.
    """
    require_struct(pgmap, _PGMAP)
    range_id = require_number(range_id, "index of a range")
    shift = pgmap.prog_["PAGE_SHIFT"].value_()
    pfn = int(pgmap_range(pgmap, range_id).start.value_()) >> shift
    if range_id == 0 and pgmap.flags.value_() & _PGMAP_ALTMAP_VALID:
        pfn += vmem_altmap_offset(pgmap.altmap)
    return pfn


def pgmap_pfn_valid(pgmap: Object, pfn: IntegerLike) -> bool:
    """
    Return whether a PFN lies in an initialised range of a pgmap, after the altmap's
    pages, like the kernel's ``pgmap_pfn_valid()``, which was added in Linux kernel commit
    34dc45be4563 ("mm: fix memory_failure() handling of dax-namespace metadata") (in v5.12).

    :param pgmap: ``struct dev_pagemap *``
    :param pfn: ``unsigned long``
    """
    require_struct(pgmap, _PGMAP)
    pfn = require_number(pfn)
    ranges, in_progress = dev_pagemap_ranges(pgmap)
    for i, range_ in enumerate(ranges[:-1] if in_progress else ranges):
        if range_.start_pfn <= pfn < range_.end_pfn:
            return pfn >= pgmap_pfn_first(pgmap, i)
    return False


@takes_program_or_default
def require_percpu_ref(prog: Program) -> None:
    """
    Look up what :func:`percpu_ref_state()` needs.

    :raises LookupError: if the debugging information does not have it
    """
    prog.type("struct percpu_ref")
    prog["__PERCPU_REF_DEAD"]


def _ref_state(pgmap: Object) -> RefState:
    try:
        ref = pgmap_ref(pgmap)
    except AttributeError:
        # The debugging information does not have struct percpu_ref.
        return RefState("unreadable", None, None)
    return percpu_ref_state(ref)


def _ops_address(pgmap: Object) -> int:
    # Only a name for people: 0 will do if the type of ops is missing.
    try:
        return int(pgmap.ops.value_())
    except AttributeError:
        return 0


def dev_pagemap_info(pgmap: Object) -> Pgmap:
    """
    Get everything that a pgmap itself says, as plain data.

    :param pgmap: ``struct dev_pagemap *``
    :raises ValueError: if ``nr_range`` or ``vmemmap_shift`` is impossibly large
    """
    require_struct(pgmap, _PGMAP)
    prog, now = pgmap.prog_, _read_pgmap(pgmap)
    ranges, in_progress = _ranges_of(pgmap, now)
    shift = pgmap_vmemmap_shift(now)
    if shift > _MAX_VMEMMAP_SHIFT:
        raise ValueError(f"vmemmap_shift of pgmap {pgmap.value_():#x} is {shift}")
    ops = _ops_address(now)
    owner = now.owner.value_()
    info = Pgmap(
        address=pgmap.value_(),
        type=dev_pagemap_type(now),
        nr_range=now.nr_range.value_() if pgmap_records_progress(pgmap) else len(ranges),
        ranges=ranges,
        in_progress=in_progress,
        vmemmap_shift=shift,
        flags=now.flags.value_(),
        altmap=pgmap_altmap(now),
        ref=_ref_state(pgmap),
        ops=symbol_name(prog, ops) if ops else None,
        ops_address=ops,
        owner=symbol_name(prog, owner) if owner else None,
        owner_address=owner,
        records_progress=pgmap_records_progress(pgmap),
    )
    return bind(prog, info)
