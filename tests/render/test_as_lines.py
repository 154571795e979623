# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import json

import jsonschema
from support.fakekernel import partial
from support.schema import load_schema

from drgn_zonedev import check
from drgn_zonedev.render.as_json import report_document
from drgn_zonedev.render.as_lines import report_lines


def test_every_line_conforms_to_the_schema_and_nothing_is_lost() -> None:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    kernel.unmap_memmap(0x102000, 0x102040)
    report = check(kernel.program())
    header, *records = [json.loads(line) for line in report_lines(report).splitlines()]
    validator = jsonschema.Draft202012Validator(load_schema())
    for record in (header, *records):
        validator.validate(record)
    document = report_document(report)
    for name in ("kernel", "summary", "coverage"):
        assert header[name] == document[name]
    findings = [{"record": "finding", **f} for f in document["findings"]]
    unjudged = [{"record": "unjudged", **u} for u in document["unjudged"]]
    assert findings
    assert unjudged
    assert records == findings + unjudged
    assert (header["findings"], header["unjudged"]) == (len(findings), len(unjudged))
