# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Functions of the Kernel
-----------------------

Decides whether a kernel has a function, as far as its symbols and types show.
"""

from __future__ import annotations

from drgn import Program

from drgn_zonedev.debuginfo.finders import BuiltinDebugInfo, builtin_debug_info
from drgn_zonedev.pfn_walkers.table import NEVER_INLINED, TRACES

__all__ = ("has_function", "is_untraced", "lacks_function", "untraced_constant")


def has_function(prog: Program, name: str) -> bool:
    """
    Whether a kernel is known to have a function.

    DWARF describes also what was inlined everywhere. Without it, what the compiler left of
    the function counts, and so does what calls it.
    """
    if name in prog:
        return True
    builtin = _used(prog)
    return builtin is not None and (builtin.objects().has_clone(name) or _has_trace(prog, name))


def _has_trace(prog: Program, name: str) -> bool:
    trace = TRACES.get(name)
    if trace is None or trace.function not in prog:
        return False
    parameters = len(prog.function(trace.function).type_.parameters)
    return trace.parameters in (None, parameters)


def lacks_function(prog: Program, name: str) -> bool:
    """
    Whether a kernel is known not to have a function: if vmlinux does not have it, or if it
    would be among the kernel's symbols.
    """
    if has_function(prog, name) or untraced_constant(name) in prog:
        return False
    trace = TRACES.get(name)
    asked = {name} if trace is None else {name, trace.function}
    return _used(prog) is None or not asked.isdisjoint(NEVER_INLINED)


def is_untraced(prog: Program, name: str) -> bool:
    """Whether a kernel may have a function: inlined everywhere, it would leave no trace."""
    return not (has_function(prog, name) or lacks_function(prog, name))


def untraced_constant(name: str) -> str:
    """Get the name of the constant that records this about a function in an export."""
    return f"zonedev_untraced_{name}"


def _used(prog: Program) -> BuiltinDebugInfo | None:
    builtin = builtin_debug_info(prog)
    return builtin if builtin is not None and builtin.is_used() else None
