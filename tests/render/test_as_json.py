# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout
from support.schema import load_schema, validated

from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.section_rows import section_rows
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.render import as_json
from drgn_zonedev.render.explanation_json import explanation_document
from drgn_zonedev.report import check

VMCORES = Path(__file__).parents[2] / "vmcores"
SCENES = {"collision": collision, "in_flight": in_flight, "partial": partial}


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())


@each_layout
@pytest.mark.parametrize("scene", SCENES)
def test_reports_conform_to_the_schema(layout: str, scene: str) -> None:
    validated(as_json.report_document(check(SCENES[scene](layout).program())))


def test_report_with_errors_and_gaps_conforms_to_the_schema() -> None:
    kernel = partial("7.2")
    kernel.poke_page_word(0x100801, 1, 0)
    kernel.unmap_memmap(0x102000, 0x102040)
    document = validated(as_json.report_document(check(kernel.program())))
    assert document["summary"]["findings_by_severity"]["error"] == 1
    assert [(u["start_pfn"], u["end_pfn"]) for u in document["unjudged"]] == [(0x102000, 0x102040)]


@pytest.mark.parametrize("pfn", [0x24000, 0x24002, 0x24400, 0x0, 0x80000])
def test_explanations_conform_to_the_schema(pfn: int) -> None:
    document = validated(explanation_document(explain(collision("6.1").program(), pfn)))
    assert document["pfn"] == pfn


def test_sections_hold_the_words_that_are_in_memory() -> None:
    prog = partial("6.1").program()
    document = validated(as_json.sections_document(kernel_facts(prog), section_rows(prog)))
    bulk = sections(prog)
    assert [int(s["word"], 16) for s in document["sections"]] == bulk.word.tolist()
    # The last section is covered up to its 32nd subsection.
    assert document["sections"][-1]["subsections"] == ["0xffffffff"]


def test_unknown_keys_are_refused() -> None:
    document = as_json.report_document(check(collision("6.1").program()))
    with pytest.raises(jsonschema.ValidationError):
        validated({**document, "extra": 1})


def test_keys_are_in_a_fixed_order() -> None:
    keys = list(as_json.report_document(check(collision("6.1").program())))
    assert keys == [
        "schema",
        "kernel",
        "scope",
        "summary",
        "pgmaps",
        "ranges",
        "findings",
        "unjudged",
        "missing",
        "coverage",
        "provenance",
    ]


# What version 0.1 wrote of a stored dump.
REPORT_1 = Path(__file__).with_name("report_1.json")


def test_reports_of_version_1_conform_to_the_schema() -> None:
    document = validated(json.loads(REPORT_1.read_text()))
    assert document["schema"] == "drgn-zonedev/report/1"
    header, *_ = REPORT_1.with_suffix(".jsonl").read_text().splitlines()
    assert validated(json.loads(header))["schema"] == "drgn-zonedev/report-lines/1"
    with pytest.raises(jsonschema.ValidationError):
        validated({**document, "scope": None})


def test_readers_of_version_1_find_everything_where_it_was() -> None:
    old = json.loads(REPORT_1.read_text())
    with StoredDump(VMCORES / "6.1-init-in-flight").program() as prog:
        new = validated(as_json.report_document(check(prog)))
    assert _keys(old) <= _keys(new)
    for key in ("kernel", "pgmaps", "ranges"):
        assert _like(old[key], new[key]) == old[key]


def _like(old: object, new: object) -> object:
    """What a reader of *old* sees of *new*."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _like(value, new[key]) for key, value in old.items()}
    if isinstance(old, list) and isinstance(new, list):
        return [*map(_like, old, new), *new[len(old) :]]
    return new


def _keys(document: object, path: str = "") -> set[str]:
    if isinstance(document, dict):
        found = {f"{path}/{key}" for key in document}
        return found.union(*(_keys(value, f"{path}/{key}") for key, value in document.items()))
    if isinstance(document, list):
        return set().union(*(_keys(value, f"{path}[]") for value in document))
    return set()


def test_coverage_by_case_adds_up() -> None:
    report = check(partial("6.1").program(), only="devices", pfns=(0x100000, 0x101000))
    document = validated(as_json.report_document(report))
    assert document["scope"] == {"only": "devices", "start_pfn": 0x100000, "end_pfn": 0x101000}
    coverage = document["coverage"]
    counts = coverage["by_case"].values()
    assert sum(c["verified"] for c in counts) == coverage["pages_verified"] > 0


def test_pages_by_case_add_up_to_the_ranges() -> None:
    document = as_json.report_document(check(collision("6.1").program()))
    total = sum(r["end_pfn"] - r["start_pfn"] for r in document["ranges"])
    assert sum(document["summary"]["pages_by_case"].values()) == total
    assert document["summary"]["pages_by_case"]["device"] == 0x30000 - 0x24400


def test_control_characters_from_a_dump_are_escaped() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    report = check(kernel.program())
    evil = report.kernel.__class__(**{**report.kernel.__dict__, "release": "6.1\x1b[2J\n"})
    text = as_json.render(as_json.ranges_document(evil, report.ranges))
    assert "\x1b" not in text


def test_source_of_types_is_named_if_it_is_not_vmlinux() -> None:
    report = check(collision("6.1").program())
    assert "types" not in validated(as_json.report_document(report))["kernel"]
    builtin = dataclasses.replace(report.kernel, types_from_btf=True)
    report = dataclasses.replace(report, kernel=builtin)
    assert validated(as_json.report_document(report))["kernel"]["types"] == "btf"
