# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The results of a matrix as text, JUnit XML and JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from drgn_zonedev.lab.verdict.matrix import Cell, CellVerdict
from drgn_zonedev.render.junit_document import (
    add_result,
    add_suite,
    add_test,
    document_text,
    new_document,
)

__all__ = ("MATRIX_SCHEMA", "ascii_only", "junit_xml", "line_text", "matrix_text", "results_json")

MATRIX_SCHEMA = "drgn-zonedev/lab/1"

_SHORT = {
    CellVerdict.AGREES: "agrees",
    CellVerdict.DIFFERS: "DIFFERS",
    CellVerdict.NOT_POSSIBLE: "-",
    CellVerdict.FAILED: "FAILED",
}


def ascii_only(text: str) -> str:
    """Escape text that may come from a guest, so that it is harmless on a terminal."""
    return re.sub(r"[^\n\x20-\x7e]", "?", text)


def line_text(cell: Cell) -> str:
    """Return one line about one cell."""
    line = f"{cell.kernel.name} {cell.scenario.name}: {cell.verdict.value}"
    if cell.verdict is CellVerdict.NOT_POSSIBLE:
        return f"{line}: {cell.details[0]}"
    return f"{line} ({cell.seconds:.1f} s)"


def matrix_text(cells: Sequence[Cell]) -> str:
    """Return the matrix, kernels by scenarios, and below it the explanations."""
    kernels = list(dict.fromkeys(cell.kernel.name for cell in cells))
    scenarios = list(dict.fromkeys(cell.scenario.name for cell in cells))
    verdicts = {(cell.scenario.name, cell.kernel.name): _SHORT[cell.verdict] for cell in cells}
    rows = [[name, *(verdicts.get((name, kernel), "") for kernel in kernels)] for name in scenarios]
    parts = [tabulate(rows, ["", *kernels], disable_numparse=True)]
    parts += _explanations(cells)
    return ascii_only("\n\n".join(parts))


def _explanations(cells: Sequence[Cell]) -> list[str]:
    texts = []
    impossible: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.verdict is CellVerdict.NOT_POSSIBLE:
            key = (cell.scenario.name, cell.details[0])
            impossible.setdefault(key, []).append(cell.kernel.name)
        elif cell.verdict is not CellVerdict.AGREES:
            details = "".join(f"\n  {detail}" for detail in cell.details)
            texts.append(f"{line_text(cell)}{details}")
    lines = [f"- {name} on {', '.join(on)}: {why}" for (name, why), on in impossible.items()]
    return [*texts, "\n".join(lines)] if lines else texts


def junit_xml(cells: Sequence[Cell]) -> str:
    """Return the cells as JUnit XML: a test suite for each kernel, a test for each scenario."""
    root = new_document("zonedev lab")
    for name in dict.fromkeys(cell.kernel.name for cell in cells):
        _add_kernel(root, [cell for cell in cells if cell.kernel.name == name])
    if all(cell.verdict is CellVerdict.NOT_POSSIBLE for cell in cells):
        _add_nothing_run(root)
    return document_text(root) + "\n"


_RESULTS = {
    CellVerdict.DIFFERS: "failure",
    CellVerdict.NOT_POSSIBLE: "skipped",
    CellVerdict.FAILED: "error",
}


def _add_kernel(root: ElementTree.Element, cells: Sequence[Cell]) -> None:
    suite = add_suite(root, f"{cells[0].kernel.name} ({cells[0].kernel.release})")
    suite.set("time", f"{sum(cell.seconds for cell in cells):.3f}")
    for cell in cells:
        name, seconds = cell.scenario.name, f"{cell.seconds:.3f}"
        test = add_test(suite, f"lab.{cell.kernel.name}", name, seconds)
        if cell.verdict in _RESULTS:
            text, kind = "\n".join(cell.details), cell.verdict.value
            first = text.partition("\n")[0]
            add_result(test, _RESULTS[cell.verdict], text, message=first, type=kind)


def _add_nothing_run(root: ElementTree.Element) -> None:
    # If all tests are skipped, CI servers report a success.
    test = add_test(add_suite(root, "zonedev lab"), "lab", "anything-is-possible")
    message = "no scenario is possible on any of these kernels: nothing was judged"
    add_result(test, "error", message, message=message, type="not judged")


def results_json(cells: Sequence[Cell]) -> str:
    """Return the cells, with the tool's whole reports, as JSON."""
    results = [_result(cell) for cell in cells]
    return json.dumps({"schema": MATRIX_SCHEMA, "results": results}, indent=2) + "\n"


def _result(cell: Cell) -> dict[str, Any]:
    from drgn_zonedev.render.as_json import report_document

    return {
        "kernel": cell.kernel.name,
        "release": cell.kernel.release,
        "scenario": cell.scenario.name,
        "verdict": cell.verdict.value,
        "details": list(cell.details),
        "seconds": round(cell.seconds, 3),
        "expected": [list(expected) for expected in cell.scenario.expected],
        "report": report_document(cell.report) if cell.report else None,
    }
