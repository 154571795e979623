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

__all__ = ("MissingSymbolsError", "index_symbols", "load_symbols")


class MissingSymbolsError(CannotJudgeError):
    """There is no vmlinux of the kernel at hand, with its debugging symbols."""


def load_symbols(
    prog: drgn.Program, symbols: list[str], names: Mapping[str, str] | None = None
) -> None:
    """
    Load the debugging symbols of a program's kernel. Of its memory, only the list of modules
    is read, if symbols of modules are given.

    :param symbols: Files that somebody named; drgn looks for what is not among them.
    :param names: What errors call those that are copies.
    :raises CannotOpenError: if one of them cannot be used
    :raises MissingSymbolsError: if those of the kernel itself are missing
    """
    names = {**{path: path for path in symbols}, **(names or {})}
    for path in symbols:
        if not os.path.exists(path):
            raise CannotOpenError(f"there is no file {path}: check the path given to -s")
        if os.path.isdir(path):
            raise CannotOpenError(f"{path} is a directory: give the vmlinux in it to -s")
        if not os.access(path, os.R_OK):
            raise CannotOpenError(f"cannot read symbols from {path}: try as root")
    # What drgn warns about becomes one error below.
    with _without_warnings():
        _load(prog, symbols, names)
    _require_same_build(prog)


def _require_same_build(prog: drgn.Program) -> None:
    # drgn compares build IDs, and takes any file if VMCOREINFO does not tell the kernel's.
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

    differing = differing_address(vmcoreinfo_symbols(vmcoreinfo), look_up)
    if differing:
        name, there, here = differing
        raise CannotJudgeError(
            f"{prog.main_module().debug_file_path} is of another build: it has {name} at "
            f"{here:#x}, VMCOREINFO at {there:#x}: give the vmlinux of that very build"
        )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    # drgn shows how far a download is only where it would warn, too.
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
    # Only vmlinux matters: modules can be named without their symbols. It comes
    # first, and drgn goes on to the kernel's list of modules only if asked to.
    main = next(prog.loaded_modules())[0]
    try:
        modules = [path for path in symbols if not _is_of(main, path)]
        if main.wants_debug_file():
            with contextlib.suppress(drgn.MissingDebugInfoError):
                prog.load_module_debug_info(main)
        if modules and not main.wants_debug_file():
            distrust_headers(prog)
            # That list may be damaged, and claim more memory than there is.
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
        # What libdw and libelf do not like has no type of its own.
        raise CannotJudgeError(
            f"the debugging information is damaged: {e}: give the vmlinux of the kernel by -s"
        ) from e
    if main.wants_debug_file():
        raise MissingSymbolsError(_missing_symbols(prog, symbols, names))


def index_symbols(prog: drgn.Program, modules: Sequence[str]) -> None:
    """
    Have drgn index the debugging symbols, as it does at the first lookup, and import
    modules of Python meanwhile: half of the time it keeps only one core busy.
    """
    _start_importing(modules)
    # What is wrong with them is said to who looks for something in them.
    with contextlib.suppress(Exception):
        prog.type("struct page")


def _start_importing(modules: Sequence[str]) -> None:
    # Thread.start() waits until the thread says that it runs, and one that gets no memory ends
    # without having said so.
    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        return
    # There may be as many as the user may have.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=_import_all, args=(modules,)).start()


def _import_all(modules: Sequence[str]) -> None:
    for module in modules:
        # Who needs it gets the same error.
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _is_of(module: drgn.Module, path: str) -> bool:
    """Whether a file has a module's symbols; then they are loaded."""
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
            f"{given}: not the debugging symbols of {which}, which this is: "
            f"give the vmlinux of that very build, with DWARF{_package(release)}"
        )
    return (
        f"no debugging symbols for {which}: {where_looked(prog)}: give its vmlinux with -s, or "
        f"install the package that has it{_package(release)}"
    )


def _package(release: str) -> str:
    return f" (Debian: linux-image-{release}-dbg, Fedora: kernel-debuginfo-{release})"
