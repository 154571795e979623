# SPDX-License-Identifier: LGPL-2.1-or-later

"""Functions of a kernel without vmlinux: what is inlined everywhere leaves no trace of its own."""

from __future__ import annotations

import pytest
from drgn import Program
from support.builtinkernel import SYMBOLS, builtin_program, builtin_types, carried
from support.rawkallsyms import TEXT

from drgn_zonedev.debuginfo.finders import register_builtin_finders
from drgn_zonedev.pfn_walkers.functions import has_function, is_untraced, lacks_function
from drgn_zonedev.pfn_walkers.table import NEVER_INLINED, TRACES, WALKERS


def kernel(*functions: str, parameters: int = 0) -> Program:
    writer = builtin_types()
    names = [(f"p{i}", 1) for i in range(parameters)]
    added = []
    for i, name in enumerate(functions):
        writer.function(name, 0, *names)
        added.append((f"t{name}", TEXT + 0x100 + 16 * i))
    prog = builtin_program(carried(writer.bytes(), [*SYMBOLS, *added]))
    register_builtin_finders(prog)
    return prog


def test_function_that_is_there_is_not_lacking() -> None:
    prog = kernel("memory_failure")
    assert has_function(prog, "memory_failure")
    assert not lacks_function(prog, "memory_failure")


def test_function_that_cannot_be_inlined_is_lacking_without_a_symbol() -> None:
    prog = kernel()
    assert not has_function(prog, "memory_failure")
    assert lacks_function(prog, "memory_failure")


def test_function_that_may_be_inlined_is_unknown() -> None:
    prog = kernel()
    assert not has_function(prog, "page_idle_get_folio")
    assert not lacks_function(prog, "page_idle_get_folio")
    assert is_untraced(prog, "page_idle_get_folio")


@pytest.mark.parametrize("functions", [(), ("memory_failure", "vfree")])
def test_function_that_leaves_a_trace_is_known(functions: tuple[str, ...]) -> None:
    assert not is_untraced(kernel(*functions), "memory_failure")


def test_guard_that_a_function_alone_tells_is_known_without_vmlinux() -> None:
    asked = {g.function for w in WALKERS for g in w.guards if g.function and not any(g.since)}
    assert asked <= NEVER_INLINED | TRACES.keys()


@pytest.mark.parametrize(
    ("inlined", "caller"),
    [
        ("split_huge_pages_all", "split_huge_pages_write"),
        ("find_smallest_section_pfn", "remove_pfn_range_from_zone"),
        ("mark_free_pages", "swsusp_save"),
    ],
)
def test_caller_shows_what_was_inlined_into_it(inlined: str, caller: str) -> None:
    assert has_function(kernel(caller), inlined)
    assert not has_function(kernel(), inlined)
    # The caller itself would be there.
    assert lacks_function(kernel(), inlined)


def test_clone_shows_its_function() -> None:
    assert has_function(kernel("mark_free_pages.part.0"), "mark_free_pages")


def test_caller_of_an_older_kernel_shows_nothing() -> None:
    assert has_function(kernel("get_hwpoison_page", parameters=2), "HWPoisonHandlable")
    assert not has_function(kernel("get_hwpoison_page", parameters=3), "HWPoisonHandlable")


def test_without_builtin_types_what_is_not_found_is_lacking() -> None:
    prog = builtin_program(carried(builtin_types().bytes(), SYMBOLS))
    assert lacks_function(prog, "page_idle_get_folio")
