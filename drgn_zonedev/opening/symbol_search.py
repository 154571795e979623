# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Search for Debugging Symbols
----------------------------

Makes drgn search for the debugging symbols of a kernel as its own command line does, and
reports where it looked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drgn import KmodSearchMethod, MainModule, Module, Program, ProgramFlags

from drgn_zonedev.opening.failures import CannotOpenError
from drgn_zonedev.vmcore.core_path import core_dump_path

__all__ = ("BESIDE", "Method", "SymbolSearch", "set_search", "where_looked")

BESIDE = "beside"
"""Name of the finder that tries ``vmlinux`` in the directory of the core dump."""

_DEBUGINFOD = "debuginfod"

# As drgn.cli has them.
_FLAGS = (
    "module-name",
    "build-id",
    "debug-link",
    "procfs",
    "embedded-vdso",
    "reuse",
    "supplementary",
)
_KMOD = {
    ("kmod", False): KmodSearchMethod.NONE,
    ("kmod=depmod", True): KmodSearchMethod.DEPMOD,
    ("kmod=walk", True): KmodSearchMethod.WALK,
    ("kmod=depmod-or-walk", True): KmodSearchMethod.DEPMOD_OR_WALK,
    ("kmod=depmod-and-walk", True): KmodSearchMethod.DEPMOD_AND_WALK,
}


@dataclass(frozen=True)
class Method:
    """A finder or an option of drgn, and whether to use it."""

    name: str
    enabled: bool

    @property
    def option(self) -> str:
        """The option of the command line that selects it."""
        return f"--{'try' if self.enabled else 'no'}-symbols-by {self.name}"


@dataclass(frozen=True)
class SymbolSearch:
    """
    The options for the search.

    :ivar methods: Of two that contradict each other, the later one wins.
    :ivar debug_directories: Searched before drgn's own, like ``kernel_directories``.
    """

    methods: tuple[Method, ...] = ()
    debug_directories: tuple[str, ...] = ()
    kernel_directories: tuple[str, ...] = ()


def set_search(prog: Program, search: SymbolSearch) -> None:
    """
    Set how drgn searches for a program's debugging symbols.

    :raises CannotOpenError: if a method or a directory does not exist
    """
    for directory in (*search.debug_directories, *search.kernel_directories):
        if not os.path.isdir(directory):
            raise CannotOpenError(f"there is no directory {directory}: check the path")
    if BESIDE not in prog.registered_debug_info_finders():
        # Search local files before downloading.
        after_standard = 1
        prog.register_debug_info_finder(BESIDE, _take_beside, enable_index=after_standard)
    for method in search.methods:
        _set_method(prog, method)
    options = prog.debug_info_options
    options.directories = (*search.debug_directories, *options.directories)
    options.kernel_directories = (*search.kernel_directories, *options.kernel_directories)


def _set_method(prog: Program, method: Method) -> None:
    kmod = _KMOD.get((method.name, method.enabled))
    if kmod is not None:
        prog.debug_info_options.try_kmod = kmod
    elif method.name in _FLAGS:
        name = f"try_{method.name.replace('-', '_')}"
        setattr(prog.debug_info_options, name, method.enabled)
    else:
        _set_finder(prog, method)


def _set_finder(prog: Program, method: Method) -> None:
    registered = prog.registered_debug_info_finders()
    if method.name not in registered:
        options = (*_FLAGS, *(name for name, enabled in _KMOD if enabled == method.enabled))
        known = ", ".join((*sorted(registered), *options))
        raise CannotOpenError(f"{method.option}: drgn has no such method: choose from {known}")
    finders = [name for name in prog.enabled_debug_info_finders() if name != method.name]
    if method.enabled:
        finders.append(method.name)
    prog.set_enabled_debug_info_finders(finders)


def _take_beside(modules: Sequence[Module]) -> None:
    for module in modules:
        # drgn accepts any file if the kernel's build ID is unknown. VMCOREINFO has it since
        # Linux kernel commit 0935288c6e00 ("kdump: append kernel build-id string to
        # VMCOREINFO") (in v5.9).
        if isinstance(module, MainModule) and module.wants_debug_file() and module.build_id:
            path = _beside(module.prog)
            if path and path.is_file():
                module.try_file(path)


def _beside(prog: Program) -> Path | None:
    path = core_dump_path(prog)
    if not path or prog.flags & ProgramFlags.IS_LIVE:
        return None
    return Path(path).with_name("vmlinux")


def where_looked(prog: Program) -> str:
    """Say where drgn looked for the debugging symbols of a program's kernel."""
    enabled = prog.enabled_debug_info_finders()
    looked = []
    if "standard" in enabled:
        options = prog.debug_info_options
        own = ("/boot", "/lib/modules") if "" in options.kernel_directories else ()
        given = (path for path in options.kernel_directories if path)
        looked.append(f"in {', '.join((*given, *options.directories, *own))}")
    beside = _beside(prog)
    if BESIDE in enabled and beside:
        looked.append(f"for {beside}")
    if _DEBUGINFOD in enabled:
        urls = os.environ.get("DEBUGINFOD_URLS", "").strip()
        looked.append(f"by debuginfod at {urls or 'no server: $DEBUGINFOD_URLS is not set'}")
    return "looked " + ", ".join(looked) if looked else "looked nowhere"
