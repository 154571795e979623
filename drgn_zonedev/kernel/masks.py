# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Masks
-----

The ``drgn_zonedev.kernel.masks`` module lists nodes and CPUs like
:mod:`drgn.helpers.linux.nodemask` and :mod:`drgn.helpers.linux.cpumask`. drgn's loops
run as far as ``nr_node_ids`` or ``nr_cpu_ids`` says; these also work if that is damaged.
"""

from __future__ import annotations

from drgn import FaultError, Object, ObjectNotFoundError, Program, sizeof
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.bitops import for_each_set_bit
from drgn.helpers.linux.cpumask import cpu_online_mask, cpu_possible_mask
from drgn.helpers.linux.nodemask import nr_node_ids

__all__ = (
    "masks_are_sound",
    "online_cpus",
    "online_nodes",
    "possible_cpus",
    "possible_nodes",
)


@takes_program_or_default
def online_nodes(prog: Program) -> list[int]:
    """
    Get the NUMA nodes that are online: node 0 without ``CONFIG_NUMA``.

    :raises FaultError: if the mask cannot be read
    """
    try:
        mask = prog["node_states"][prog["N_ONLINE"]]
    except ObjectNotFoundError:
        return [0]
    return _set_bits(mask, nr_node_ids(prog))


@takes_program_or_default
def possible_nodes(prog: Program) -> list[int]:
    """
    Get the nodes that may ever come online, or those that are if an export has no others.

    :raises FaultError: if the mask cannot be read
    """
    try:
        return _set_bits(prog["node_states"][prog["N_POSSIBLE"]], nr_node_ids(prog))
    except (FaultError, ObjectNotFoundError):
        return online_nodes(prog)


@takes_program_or_default
def possible_cpus(prog: Program) -> list[int]:
    """
    Get the CPUs that may ever come online.

    :raises FaultError: if the mask cannot be read
    """
    return _set_bits(cpu_possible_mask(prog), _nr_cpu_ids(prog))


@takes_program_or_default
def online_cpus(prog: Program) -> list[int]:
    """
    Get the CPUs that are online.

    :raises FaultError: if the mask cannot be read
    """
    return _set_bits(cpu_online_mask(prog), _nr_cpu_ids(prog))


@takes_program_or_default
def masks_are_sound(prog: Program) -> bool:
    """
    Return whether ``nr_node_ids`` and ``nr_cpu_ids`` are within the sizes of the masks, so
    that drgn's own loops end.

    :raises FaultError: if a count cannot be read
    """
    cpus = _nr_cpu_ids(prog) <= _bits(cpu_possible_mask(prog))
    try:
        return cpus and nr_node_ids(prog) <= _bits(prog["node_states"][0])
    except ObjectNotFoundError:
        return cpus


def _nr_cpu_ids(prog: Program) -> int:
    try:
        return int(prog["nr_cpu_ids"].value_())
    except ObjectNotFoundError:
        # CONFIG_SMP=n
        return 1


def _bits(mask: Object) -> int:
    # MAX_NUMNODES or NR_CPUS of the kernel's configuration.
    return 8 * sizeof(mask.bits)


def _set_bits(mask: Object, count: int) -> list[int]:
    return list(for_each_set_bit(mask.bits, min(count, _bits(mask))))
