# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Make the dumps in ``vmcores/``: boot, export, and record the expected results.

The expected results come from the scenario's arithmetic and from the guest's own kernel, never
from the tool. If the tool's results differ, the dump is not stored.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.kernels.fetch import fetch_kernel
from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, KERNELS, Kernel
from drgn_zonedev.lab.machine.boot import Guest, boot
from drgn_zonedev.lab.scenarios import SCENARIOS, Scenario
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.verdict.compare import as_arranged, compare_ranges
from drgn_zonedev.lab.verdict.matrix import scenarios_on
from drgn_zonedev.lab.verdict.proven_errors import ProvenErrors, error_differences, proven_errors
from drgn_zonedev.util.intervals import Span, intersection

if TYPE_CHECKING:
    from drgn import Program

    from drgn_zonedev.classification.snapshot import Snapshot

__all__ = (
    "ARM64_STORED",
    "ARM64_STORED_ONCE",
    "BUILT_STORED",
    "STORED",
    "STORED_ONCE",
    "dump_differences",
    "main",
    "store",
)

STORED = (
    "fsdax-collision",
    "nvdimm-partial",
    "devdax-2m",
    "init-in-flight",
    "teardown",
    "orphan",
    "dirty-media",
    "two-in-one",
    "hotplug-offline",
    "ghost",
    "acpi-hole",
    "empty",
)
"""The scenarios that matter."""

STORED_ONCE = {
    "p2pdma": "7.3",
    "device-private": "7.3",
    "device-coherent": "6.12",
    "two-ranges": "7.2",
    "hwpoison": "7.3",
}
"""Those of which the dump of one kernel says enough: many tests go through all dumps."""

ARM64_STORED = (
    "fsdax-collision",
    "fsdax-partial",
    "neighbours",
    "neighbour-gone",
    "init-in-flight",
)
"""Those that matter on arm64."""

ARM64_STORED_ONCE = {"6.1-arm64": ("empty",)}
"""Of the kernel without ZONE_DEVICE, all that there is."""

BUILT_STORED = {
    "7.3-debug": ("fsdax-collision", "ghost"),
    "6.1-slab": ("fsdax-collision",),
    "7.3-arm64-64k": ("fsdax-collision", "neighbour-gone"),
}
"""Those of kernels that are built here, which are stored only if they are named."""

# The RAM that has something to show, with its struct pages.
_RAM_PFNS = {
    "acpi-hole": ((0x3FF00, 0x40000),),
    "hwpoison": ((0x39100, 0x39200),),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Store what is asked for, or everything."""
    args = _arguments(argv)
    failed = 0
    for kernel, scenario in _chosen(args.names):
        name = f"{kernel.name}-{scenario.name}"
        if kernel.name in scenario.impossible:
            continue
        try:
            size = store(kernel, scenario, args.out / name)
            _say(f"{name}: {size // 1024} KiB")
        except LabError as e:
            failed += 1
            _say(f"{name}: {e}")
    (args.out / "README.md").write_text(_readme(args.out), encoding="utf-8")
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make-vmcores", description="Boot real kernels, and store exports of them."
    )
    parser.add_argument("--out", type=Path, default=Path("vmcores"), help="default: %(default)s")
    parser.add_argument("names", metavar="KERNEL|SCENARIO", nargs="*", type=_kernel_or_scenario)
    return parser.parse_args(argv)


def _kernel_or_scenario(name: str) -> str:
    # Not with choices=, because argparse checks an empty list as if it were a choice.
    kernels = (*KERNELS, *ARM64_KERNELS, *BUILT_STORED)
    known_names = dict.fromkeys((*kernels, *SCENARIOS, *arm64_scenarios(4096)))
    if name not in known_names:
        known = ", ".join(known_names)
        message = f"unknown kernel or scenario {name!r}: choose from {known}"
        raise argparse.ArgumentTypeError(message)
    return name


def _chosen(names: Sequence[str]) -> Iterator[tuple[Kernel, Scenario]]:
    every = (*KERNELS, *ARM64_KERNELS)
    for name in [name for name in (*every, *BUILT_STORED) if name in names] or every:
        kernel = fetch_kernel(name, progress=_say)
        catalogue = scenarios_on(kernel)
        once = tuple(scenario for scenario, only in STORED_ONCE.items() if only == name)
        others = {**BUILT_STORED, **ARM64_STORED_ONCE}
        stored = (*STORED, *once) if name in KERNELS else others.get(name, ARM64_STORED)
        for scenario in [word for word in catalogue if word in names] or stored:
            yield kernel, catalogue[scenario]


def _say(message: str) -> None:
    print(f"make-vmcores: {message}", file=sys.stderr, flush=True)


def store(kernel: Kernel, scenario: Scenario, target: Path) -> int:
    """
    Boot a guest, store an export of it, and return the size of that in bytes.

    :raises LabError: if the tool's results are not as expected
    """
    from drgn_zonedev.export.archive import pack
    from drgn_zonedev.export.store import ARCHIVE, EXPECTED
    from drgn_zonedev.export.write import ExportOptions, write_export
    from drgn_zonedev.opening.core import open_dump

    with tempfile.TemporaryDirectory(prefix="zonedev-store-") as directory:
        work = Path(directory)
        asked = not (scenario.breakpoint or scenario.unmapped)
        with boot(kernel, scenario, truth=asked, progress=_say) as guest:
            dump = guest.dump(work / "dump.elf")
        prog = open_dump(dump, kernel.vmlinux)
        guest = as_arranged(guest, prog)
        pfns = _RAM_PFNS.get(scenario.name, ())
        write_export(prog, work / "export", ExportOptions(pfns=pfns))
        expected = {**_expected(guest), "errors": list(_errors(prog, guest, pfns))}
        if wrong := list(_differences(work / "export", prog, expected)):
            raise LabError("; ".join(wrong))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        pack(work / "export", target / ARCHIVE)
        (target / EXPECTED).write_text(_render(expected), encoding="utf-8")
        return (target / ARCHIVE).stat().st_size


def _expected(guest: Guest) -> dict[str, Any]:
    from drgn_zonedev.export.store import EXPECTED_SCHEMA

    answers = guest.facts.get("truth")
    return {
        "schema": EXPECTED_SCHEMA,
        "kernel": guest.kernel.release,
        "scenario": guest.scenario.name,
        "summary": guest.scenario.summary,
        "ranges": [list(range_) for range_ in guest.scenario.expected],
        "truth": answers
        and [[a.start_pfn, a.end_pfn, a.valid, a.online, a.pgmap, a.pgmap_valid] for a in answers],
    }


def _errors(prog: Program, guest: Guest, pfns: Sequence[Span]) -> Iterator[Span]:
    # What a bug leaves, and where the kernel is wrong by its own answers, of the RAM that is kept.
    yield from ((start, end) for _, start, end in guest.scenario.errors)
    if "frozen" not in guest.facts:
        return
    for span in pfns:
        yield from intersection(span, proven_errors(prog, guest.facts).spans)


def _differences(path: Path, source: Program, expected: dict[str, Any]) -> Iterator[str]:
    from drgn_zonedev.opening.core import open_dump
    from drgn_zonedev.render import as_json
    from drgn_zonedev.report import check

    prog = open_dump(path / "vmcore", path / "vmlinux")
    yield from dump_differences(prog, expected)
    reports = [check(p, only="devices") for p in (source, prog)]
    # They say the same of different files.
    documents = [
        as_json.report_document(dataclasses.replace(report, provenance=None)) for report in reports
    ]
    if documents[0] != documents[1]:
        yield "the export differs from its source"


def dump_differences(prog: Program, expected: dict[str, Any]) -> list[str]:
    """Say where the tool contradicts what ``expected.json`` holds."""
    from drgn_zonedev.classification.reading import take_snapshot
    from drgn_zonedev.lab.scenarios import Expected
    from drgn_zonedev.report import check

    report = check(prog)
    wrong = compare_ranges(report.ranges, [Expected(*range_) for range_ in expected["ranges"]])
    snapshot = take_snapshot(prog)
    for answer in expected["truth"] or ():
        wrong += _contradictions(snapshot, answer)
    proven = ProvenErrors([(start, end) for start, end in expected.get("errors", ())], exact=True)
    return [*wrong, *error_differences(report.findings, proven)]


def _contradictions(snapshot: Snapshot, answer: Sequence[Any]) -> list[str]:
    import numpy as np

    start, end, *theirs = answer
    ours = snapshot.predicates(np.arange(start, end, dtype=np.int64))
    columns = (ours.pfn_valid, ours.online, ours.pgmap, ours.pgmap_pfn_valid)
    names = ("pfn_valid", "pfn_to_online_page", "get_dev_pagemap", "pgmap_pfn_valid")
    return [
        f"PFNs {start:#x}-{end:#x}: {name}() is {theirs_:#x} in the kernel"
        for name, column, theirs_ in zip(names, columns, theirs)
        if (column != theirs_).any()
    ]


_README = """\
# Stored vmcores

Exports (`zonedev export`) of real kernels in QEMU: what `zonedev` needs of their memory, with the
symbols for it. `scripts/make-vmcores` makes them, `tests/test_vmcores.py` checks them.

Each directory holds the export, packed (`dump.tar.xz`: `vmcore`, `vmlinux`, `meta.json`), and what
must come of it (`expected.json`): `ranges` by arithmetic on the scenario, `truth` as the guest's
own kernel answered for every PFN (start, end, `pfn_valid`, `pfn_to_online_page`,
`get_dev_pagemap`, `pgmap_pfn_valid`), and `errors`, the PFNs at which the kernel is wrong by its
own answers. A guest that is frozen cannot be asked. To look at one:

    zonedev -c vmcores/6.1-nvdimm-partial check

| dump | kernel | what it shows |
|---|---|---|
"""


def _readme(directory: Path) -> str:
    from drgn_zonedev.export.store import stored_dumps

    rows = ((dump.name, dump.expected()) for dump in stored_dumps(directory))
    return _README + "".join(
        f"| {name} | {expected['kernel']} | {expected['summary']} |\n" for name, expected in rows
    )


def _render(expected: dict[str, Any]) -> str:
    # One line per row of a table, so that diffs are readable.
    parts = []
    for key, value in expected.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
