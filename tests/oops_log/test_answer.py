# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Logs, and what is true of them.

The logs of the corpus were written after public reports, with other values. Their addresses
come of arithmetic on a base of vmemmap and PFNs, which are written down beside them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.mangling import MANGLERS

from drgn_zonedev.oops_log.answer import AddressKind, LoggedAddress, OopsLog, read_log

CORPUS = Path(__file__).parent / "corpus"
EXPECTED: dict[str, dict[str, Any]] = json.loads((CORPUS / "expected.json").read_text())
PLAIN = [name for name, e in EXPECTED.items() if e["mangled"] in ("stamped", "levels", "dmesg-x")]


def read(name: str) -> OopsLog:
    return read_log((CORPUS / f"{name}.log").read_bytes())


def facts(address: LoggedAddress) -> dict[str, Any]:
    return {
        "kind": address.kind.value,
        "pfn": address.pfn,
        "offset": address.offset,
        "field": address.field,
        "pattern": address.pattern.value if address.pattern else None,
        "base": address.base.value if address.base else None,
    }


def found_addresses(log: OopsLog) -> dict[str, dict[str, Any]]:
    return {hex(a.address): facts(a) for a in log.addresses if a.kind is not AddressKind.OTHER}


def missing(log: OopsLog) -> list[str]:
    return [need.name.lower().replace("_", "-") for boot in log.boots for need in boot.needs]


def test_the_corpus_has_what_people_report() -> None:
    architectures = [name.rpartition("64")[0] or name for name in EXPECTED]
    assert len(EXPECTED) >= 40
    assert sum(a.startswith("x86") for a in architectures) >= 12
    assert sum(a.startswith("arm") for a in architectures) >= 12
    for other in ("ppc64", "s390x", "riscv64"):
        assert any(name.startswith(other) for name in EXPECTED)
    assert len({e["mangled"] for e in EXPECTED.values()}) == len(MANGLERS) - 1


@pytest.mark.parametrize("name", EXPECTED)
def test_every_address_is_what_it_is_and_no_other_is_taken_for_one(name: str) -> None:
    assert found_addresses(read(name)) == EXPECTED[name]["addresses"]


@pytest.mark.parametrize("name", EXPECTED)
def test_struct_pages_are_read(name: str) -> None:
    pages = [
        {"pfn": p.pfn, "node": p.node, "zone": p.zone, "words": len(p.words)}
        for p in read(name).pages
    ]
    assert pages == EXPECTED[name]["pages"]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_happened_and_where(name: str) -> None:
    events = [{"kind": e.kind.value, "function": e.function} for e in read(name).events]
    assert events == EXPECTED[name]["events"]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_missing_is_said(name: str) -> None:
    assert missing(read(name)) == EXPECTED[name]["missing"]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_architecture_is_seen(name: str) -> None:
    for boot in read(name).boots:
        assert boot.architecture is not None
        assert name.startswith(boot.architecture)


def test_most_logs_are_answered() -> None:
    # With a PFN of what is wrong, or the poison that it died of.
    answered = [
        name
        for name, expected in EXPECTED.items()
        if any(a["pfn"] is not None or a["pattern"] for a in expected["addresses"].values())
        or any(page["pfn"] is not None for page in expected["pages"])
    ]
    assert len(answered) >= 36


def kernel_lines(name: str) -> list[str]:
    # The kernel's own lines, of a log whose mangling is a prefix.
    lines = (CORPUS / f"{name}.log").read_text().splitlines()
    return [line.partition("] ")[2] for line in lines]


@pytest.mark.parametrize("mangler", MANGLERS)
@pytest.mark.parametrize("name", PLAIN)
def test_mangling_changes_nothing(name: str, mangler: str) -> None:
    log = read_log(MANGLERS[mangler](kernel_lines(name)))
    assert found_addresses(log) == EXPECTED[name]["addresses"]
    assert [p.pfn for p in log.pages] == [p["pfn"] for p in EXPECTED[name]["pages"]]


def test_lines_are_those_of_the_file() -> None:
    for name in EXPECTED:
        if EXPECTED[name]["mangled"] in ("base64", "quoted-printable", "web-page"):
            continue
        lines = (CORPUS / f"{name}.log").read_text().splitlines()
        for address in read(name).addresses:
            assert f"{address.address:x}" in lines[address.line - 1], (name, address)


def test_logs_of_several_kernels_do_not_mix() -> None:
    # All of the corpus in one file, of which each has a release of its own.
    names = [
        n for n in EXPECTED if EXPECTED[n]["mangled"] in ("stamped", "levels", "caller", "dos")
    ]
    data = b"\n".join((CORPUS / f"{name}.log").read_bytes() for name in names)
    expected: dict[str, dict[str, Any]] = {}
    for name in names:
        expected.update(EXPECTED[name]["addresses"])
    assert len(names) > 12
    assert found_addresses(read_log(data)) == expected


def test_a_long_log_takes_linear_time() -> None:
    oops = (CORPUS / "x86-64-tail-mapping.log").read_bytes()
    noise = b"".join(
        b"[%12.6f] usb 1-1: new device number %d\n" % (i / 9, i) for i in range(40_000)
    )

    def seconds(times: int) -> float:
        data = (noise + oops) * times
        start = time.perf_counter()
        assert len(read_log(data).events) == times
        return time.perf_counter() - start

    once = min(seconds(1) for _ in range(3))
    # Quadratic would be a factor of 64.
    assert min(seconds(8) for _ in range(2)) < 24 * max(once, 0.01)
