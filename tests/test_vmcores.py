# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Real kernels without QEMU: every dump in vmcores/ against what must come of it.

``ZONEDEV_VMCORES`` names more directories of the same layout, with colons
between them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from support.dumps import judge_dump
from support.schema import load_schema

from drgn_zonedev.export.store import StoredDump, stored_dumps
from drgn_zonedev.lab import KERNELS
from drgn_zonedev.util.intervals import difference

VMCORES = Path(__file__).parents[1] / "vmcores"
MORE = [Path(name) for name in os.environ.get("ZONEDEV_VMCORES", "").split(":") if name]
DUMPS = [dump for directory in (VMCORES, *MORE) for dump in stored_dumps(directory)]
MAX_BYTES = 30 << 20

each_dump = pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.name)
Judgement = Future[tuple[list[str], dict[str, Any]]]


@pytest.fixture(scope="module")
def judgements() -> Iterator[dict[Path, Judgement]]:
    # drgn has threads, so its processes are not to be forked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        yield {dump.path: pool.submit(judge_dump, dump.path) for dump in DUMPS}


@each_dump
def test_tool_says_what_is_expected(dump: StoredDump, judgements: dict[Path, Judgement]) -> None:
    wrong, _ = judgements[dump.path].result()
    assert wrong == []


@each_dump
def test_errors_are_those_of_the_kernel(
    dump: StoredDump, judgements: dict[Path, Judgement]
) -> None:
    if not dump.path.is_relative_to(VMCORES):
        pytest.skip("others keep their dumps for what is wrong with them")
    _, report = judgements[dump.path].result()
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    # Of the RAM that the export keeps, where the kernel said so itself.
    known = dump.expected().get("errors", [])
    assert [[f["start_pfn"], f["end_pfn"]] for f in errors] == known
    assert {f["slug"] for f in errors} <= {"ram-hole-zone", "vmemmap-unmapped"}
    # Struct pages that are not mapped cannot be read, either.
    spans = [(u["start_pfn"], u["end_pfn"]) for u in report["unjudged"]]
    assert not [span for span in spans if any(difference(span, list(map(tuple, known))))]


def test_the_error_of_a_kernel_is_stored_for_each() -> None:
    wrong = {d.name: d.expected()["errors"] for d in stored_dumps(VMCORES) if "acpi" in d.name}
    assert wrong == {f"{kernel}-acpi-hole": [[0x3FFDF, 0x3FFE3]] for kernel in KERNELS}


@lru_cache(maxsize=1)
def validator() -> Callable[[Any], Any]:
    validate: Callable[[Any], Any] = fastjsonschema.compile(load_schema())
    return validate


@each_dump
def test_report_is_valid(dump: StoredDump, judgements: dict[Path, Judgement]) -> None:
    _, report = judgements[dump.path].result()
    validator()(report)


def test_stored_dumps_are_small() -> None:
    sizes = [path.stat().st_size for path in VMCORES.rglob("*") if path.is_file()]
    assert sum(sizes) < MAX_BYTES


def test_every_dump_has_its_line_in_the_readme() -> None:
    readme = (VMCORES / "README.md").read_text()
    for dump in stored_dumps(VMCORES):
        assert f"| {dump.name} | {dump.expected()['kernel']} |" in readme
