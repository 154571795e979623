# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Debugging Symbols
-----------------
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import threading
from collections.abc import Iterator, Mapping, Sequence

import drgn

from drgn_zonedev.debuginfo.same_build import differing_address, vmcoreinfo_build_id
from drgn_zonedev.debuginfo.vmcoreinfo import vmcoreinfo_symbols
from drgn_zonedev.opening.core import distrust_headers
from drgn_zonedev.opening.failures import CannotJudgeError, CannotOpenError
from drgn_zonedev.opening.symbol_search import where_looked
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.vmcore.file_types import no_symbols

__all__ = ("MissingSymbolsError", "index_symbols", "load_symbols", "require_symbols")


class MissingSymbolsError(CannotJudgeError, LookupError):
    """No vmlinux with debugging symbols of this kernel was given or found."""


def require_symbols(prog: drgn.Program) -> None:
    """
    Refuse a program without any types, before the first of them is missing.

    :raises MissingSymbolsError: if its kernel has no debugging symbols
    """
    if any(_has_type(prog, name) for name in _ANY_KERNEL):
        return
    main = next(prog.loaded_modules(), (None,))[0]
    if main is not None and main.wants_debug_file():
        raise MissingSymbolsError(_missing_symbols(prog, [], {}))


# Debugging information that is incomplete may leave out one of them.
_ANY_KERNEL = ("struct page", "struct list_head")


def _has_type(prog: drgn.Program, name: str) -> bool:
    try:
        prog.type(name)
    except LookupError:
        return False
    return True


def load_symbols(
    prog: drgn.Program, symbols: list[str], names: Mapping[str, str] | None = None
) -> None:
    """
    Load the debugging symbols of a program's kernel. This reads no memory, except for the
    list of modules if symbols of modules are given.

    :param symbols: The files given by ``-s``; drgn searches for the others.
    :param names: Names of files in errors, for those that are copies.
    :raises CannotOpenError: if one of the files cannot be used
    :raises MissingSymbolsError: if there are none of the kernel itself
    """
    names = {**{path: path for path in symbols}, **(names or {})}
    for path in symbols:
        if not os.path.exists(path):
            raise CannotOpenError(f"there is no file {path}: check the path given to -s")
        if os.path.isdir(path):
            raise CannotOpenError(f"{path} is a directory: give the vmlinux in it to -s")
        if not os.access(path, os.R_OK):
            raise CannotOpenError(f"cannot read symbols from {path}: try as root")
    # Drop drgn's warnings: _load() raises one error instead.
    with _without_warnings():
        _load(prog, symbols, names)
    _require_same_build(prog)


def _require_same_build(prog: drgn.Program) -> None:
    # drgn compares build IDs, and accepts any file if VMCOREINFO has none.
    try:
        vmcoreinfo = prog["VMCOREINFO"].string_()
    except LookupError:
        return
    if vmcoreinfo_build_id(vmcoreinfo):
        return

    def look_up(name: str) -> int | None:
        try:
            return int(prog.symbol(name).address)
        except LookupError:
            return None

    if differing := differing_address(vmcoreinfo_symbols(vmcoreinfo), look_up):
        name, there, here = differing
        raise CannotJudgeError(
            f"{prog.main_module().debug_file_path} is of another build: it has {name} at "
            f"{here:#x}, VMCOREINFO at {there:#x}: give the vmlinux of the same build"
        )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    # drgn shows the progress of a download only if its logger is enabled for warnings.
    logger, nothing = logging.getLogger("drgn"), logging.NullHandler()
    logger.addHandler(nothing)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(logging.CRITICAL)
        logger.propagate = True
        logger.removeHandler(nothing)


def _load(prog: drgn.Program, symbols: list[str], names: Mapping[str, str]) -> None:
    # Only vmlinux matters, so load it first: modules can be named without their symbols.
    # drgn reads the kernel's list of modules only if symbols of modules are given.
    main = next(prog.loaded_modules())[0]
    try:
        modules = [path for path in symbols if not _is_of(main, path)]
        if main.wants_debug_file():
            with contextlib.suppress(drgn.MissingDebugInfoError):
                prog.load_module_debug_info(main)
        if modules and not main.wants_debug_file():
            distrust_headers(prog)
            # The list of modules may be damaged, and claim more memory than there is.
            with contextlib.suppress(drgn.MissingDebugInfoError, MemoryError, drgn.FaultError):
                prog.load_debug_info(modules)
    except (OSError, ValueError) as e:
        given = ", ".join(names[path] for path in symbols)
        raise CannotOpenError(
            f"cannot load symbols from {given}: {e}: give the vmlinux of the kernel"
        ) from e
    except Exception as e:
        if type(e) is not Exception:
            raise
        # drgn raises errors of libdw and libelf as plain Exception.
        raise CannotJudgeError(
            f"the debugging information is damaged: {e}: give the vmlinux of the kernel with -s"
        ) from e
    if main.wants_debug_file():
        raise MissingSymbolsError(_missing_symbols(prog, symbols, names))


def index_symbols(prog: drgn.Program, modules: Sequence[str]) -> None:
    """
    Make drgn index the debugging symbols now, not at the first lookup, and import Python
    modules at the same time: for half of the time, indexing uses only one CPU.
    """
    _start_importing(modules)
    # If the symbols are damaged, the next lookup raises the same error.
    with contextlib.suppress(Exception):
        prog.type("struct page")


def _start_importing(modules: Sequence[str]) -> None:
    # Thread.start() waits for a sign of life from the thread. A thread that gets no memory
    # ends without one, so do not start any under a limit of memory.
    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return
    # The user may have as many threads as the limit allows.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=_import_all, args=(modules,)).start()


def _import_all(modules: Sequence[str]) -> None:
    for module in modules:
        # Whatever imports it next gets the same error.
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _is_of(module: drgn.Module, path: str) -> bool:
    """Load a file if it has a module's symbols. Return whether it has."""
    if not module.wants_debug_file():
        return False
    module.try_file(path)
    return not module.wants_debug_file()


def _missing_symbols(prog: drgn.Program, symbols: list[str], names: Mapping[str, str]) -> str:
    release = c_string(prog["UTS_RELEASE"])
    build_id = prog.main_module().build_id
    which = f"Linux {release}" + (f" (build ID {build_id.hex()})" if build_id else "")
    if symbols:
        given = ", ".join(f"{names[path]} ({no_symbols(path, build_id)})" for path in symbols)
        return (
            f"{given}: not the debugging symbols of this kernel, {which}: "
            f"give the vmlinux of the same build, with DWARF{_package(release)}"
        )
    return (
        f"no debugging symbols for {which}: {where_looked(prog)}: give its vmlinux with -s, or "
        f"install the package that has it{_package(release)}"
    )


def _package(release: str) -> str:
    return f" (Debian: linux-image-{release}-dbg, Fedora: kernel-debuginfo-{release})"
