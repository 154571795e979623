# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Slab Caches
-----------

The ``drgn_zonedev.kernel.slab`` module looks up objects in memory that may be damaged,
with drgn's :mod:`drgn.helpers.linux.slab`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from drgn import FaultError, IntegerLike, Object, Program
from drgn.helpers import ValidationError
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.nodemask import nr_node_ids
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import find_containing_slab_cache, slab_object_info

from drgn_zonedev.kernel.lists import list_entries
from drgn_zonedev.kernel.masks import masks_are_sound, online_cpus
from drgn_zonedev.util.strings import c_string

__all__ = ("SlabObject", "slab_object")

# Limits of objects per sheaf and of full sheaves: the kernel's calculate_sheaf_capacity()
# and its callers stay far below the first, and MAX_FULL_SHEAVES is 10.
_MAX_IN_SHEAF = 1 << 12
_MAX_SHEAVES = 1 << 6

_DAMAGED = (FaultError, LookupError, ValueError, TypeError, ArithmeticError, ValidationError)


@dataclass(frozen=True)
class SlabObject:
    """
    The object that contains an address. ``cache`` is untrusted text from the kernel,
    escaped. ``address`` and ``allocated`` are ``None`` if they are not known.
    """

    cache: str
    address: int | None
    allocated: bool | None


@takes_program_or_default
def slab_object(prog: Program, address: IntegerLike) -> SlabObject | None:
    """
    Find the object that contains an address.

    drgn reads as many free objects as a damaged sheaf claims, which can be four
    billion; for such a cache, only the name is returned.

    :param address: ``void *``
    :return: ``None`` if it is not in a slab.
    :raises FaultError: if the memory cannot be looked up
    """
    address = int(address)
    try:
        cache = find_containing_slab_cache(prog, address)
        if not cache:
            return None
        name = c_string(cache.name)
    except Exception as e:
        # drgn raises a plain Exception for some errors: on arm64, if no variable of the dump says
        # where the direct mapping is.
        if type(e) is not Exception and not isinstance(e, _DAMAGED):
            raise
        raise FaultError(str(e), address) from e
    try:
        if not _is_sound(cache):
            return SlabObject(name, None, None)
        info = slab_object_info(prog, address)
    except _DAMAGED:
        return SlabObject(name, None, None)
    return SlabObject(name, info.address, info.allocated) if info else None


def _is_sound(cache: Object) -> bool:
    prog = cache.prog_
    if not cache.size.value_() or not masks_are_sound(prog) or _has_alien_caches(cache):
        return False
    sizes = [sheaf.size.value_() for sheaf in _sheaves(cache)]
    return all(size <= _MAX_IN_SHEAF for size in sizes)


def _has_alien_caches(cache: Object) -> bool:
    # CONFIG_SLAB has them with several nodes, up to v6.7. drgn 0.3.0 takes a struct alien_cache for
    # the struct array_cache within it.
    if not hasattr(cache, "cpu_cache"):
        return False
    nodes = cache.node[: nr_node_ids(cache.prog_)]
    return any(node and hasattr(node, "alien") and node.alien for node in nodes)


def _sheaves(cache: Object) -> Iterator[Object]:
    # The sheaves in which drgn looks for free objects. Since Linux kernel commit
    # 2d517aa09bbc ("slab: add opt-in caching layer of percpu sheaves") (in v6.18).
    prog = cache.prog_
    try:
        cpu_sheaves = cache.cpu_sheaves.read_()
    except AttributeError:
        return
    for cpu in online_cpus(prog) if cpu_sheaves else ():
        sheaves = per_cpu_ptr(cpu_sheaves, cpu)
        yield from (sheaf for sheaf in (sheaves.main.read_(), sheaves.spare.read_()) if sheaf)
    for node in _per_node(cache):
        barn = node.barn.read_()
        if not barn:
            continue
        head = barn.sheaves_full.address_of_()
        full = list_entries(prog, "struct slab_sheaf", head, "barn_list")
        found = list(islice(full, _MAX_SHEAVES + 1))
        if len(found) > _MAX_SHEAVES:
            raise ValueError("more full sheaves than a node can have")
        yield from found


def _per_node(cache: Object) -> Iterator[Object]:
    nodes = nr_node_ids(cache.prog_)
    try:
        # Since Linux kernel commit 5ba6bc27b1f9 ("slab: decouple pointer to barn from
        # kmem_cache_node") (in v7.1).
        yield from cache.per_node[:nodes]
    except AttributeError:
        yield from (node.read_() for node in cache.node[:nodes])
