# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pfn`` takes what people have at hand: numbers, addresses, several, variables."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator

import drgn
import pytest
from drgn.commands import CommandError, run_command
from drgn.helpers.linux.mm import pfn_to_page
from support.fakekernel import partial
from support.opening import open_instead
from support.schema import validated

from drgn_zonedev import check, explain, plugin
from drgn_zonedev.shell import cli

# The device's reserve, its data, and the part of the section that it does not cover.
RESERVED, DEVICE, HOLE, END = 0x100000, 0x100801, 0x114000, 0x118000


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    open_instead(monkeypatch, partial("6.1").program)


@pytest.fixture
def prog() -> Iterator[drgn.Program]:
    program = partial("6.1").program()
    plugin.drgn_prog_set(program)
    drgn.set_default_prog(program)
    yield program
    drgn.set_default_prog(None)


def heads(text: str) -> list[int]:
    """The PFNs that are explained."""
    lines = [line for line in text.splitlines() if line.startswith("PFN 0x")]
    return [int(line.split()[1].rstrip(":"), 16) for line in lines]


def test_an_address_as_printk_prints_it(opened: None, capsys: pytest.CaptureFixture[str]) -> None:
    address = pfn_to_page(partial("6.1").program(), DEVICE).value_()
    assert cli.main(["pfn", f"{address:016x}"]) == 0
    assert heads(capsys.readouterr().out) == [DEVICE]


def test_several_pages(opened: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pfn", hex(DEVICE), hex(RESERVED)]) == 0
    assert heads(capsys.readouterr().out) == [DEVICE, RESERVED]
    assert cli.main(["pfn", hex(DEVICE), hex(RESERVED), "--format", "json"]) == 0
    document = validated(json.loads(capsys.readouterr().out))
    assert [page["pfn"] for page in document["pages"]] == [DEVICE, RESERVED]


def test_a_range_is_a_page_of_each_case_in_it(
    opened: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pfn", f"{DEVICE:#x}..{END:#x}"]) == 0
    assert heads(capsys.readouterr().out) == [DEVICE, HOLE]


def printed(prog: drgn.Program, line: str, **variables: object) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run_command(prog, line, globals=variables)
    return out.getvalue()


def test_variables_and_expressions_of_the_repl(prog: drgn.Program) -> None:
    report, page = check(prog), pfn_to_page(prog, DEVICE)
    names = {"report": report, "page": page, "n": DEVICE}
    assert heads(printed(prog, "zonedev pfn page", **names)) == [DEVICE]
    assert heads(printed(prog, "zonedev pfn n+1", **names)) == [DEVICE + 1]
    (hole,) = (i for i, r in enumerate(report.ranges) if r.start_pfn == HOLE)
    assert heads(printed(prog, f"zonedev pfn report.ranges[{hole}] n", **names)) == [HOLE, DEVICE]


def test_an_expression_that_fails_is_one_line(prog: drgn.Program) -> None:
    with pytest.raises(CommandError, match=r"report\.nothing: AttributeError"):
        printed(prog, "zonedev pfn report.nothing", report=check(prog))
    with pytest.raises(CommandError, match="there is no resource 'other'"):
        printed(prog, "zonedev pfn other", report=1)


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (f"{DEVICE:#x} --as pfn", f"explain({DEVICE:#x}, 'pfn')"),
        (f"{DEVICE} --as pfn", f"explain({DEVICE:#x}, 'pfn')"),
        (f"{DEVICE:#x}", f"explain({DEVICE:#x})"),
        (f"{DEVICE}", f"explain({DEVICE:#x})"),
        # As a number, it would be a PFN.
        (f"{DEVICE << 12:#x}", f"explain('{DEVICE << 12:#x}')"),
    ],
)
def test_code_means_the_same_page(prog: drgn.Program, word: str, code: str) -> None:
    drgn.set_default_prog(prog)
    assert code in printed(prog, f"zonedev pfn {word} --drgn")


@pytest.mark.parametrize("word", [f"{DEVICE:#x}", f"{DEVICE << 12:#x}"])
def test_without_a_default_program_code_has_the_text(prog: drgn.Program, word: str) -> None:
    drgn.set_default_prog(None)
    assert f"explain('{word}')" in printed(prog, f"zonedev pfn {word} --drgn")


def test_code_of_several_pages_prints_them(prog: drgn.Program) -> None:
    code = printed(prog, f"zonedev pfn {DEVICE:#x} {RESERVED:#x} --drgn")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "--drgn", "exec"), {})
    assert heads(out.getvalue()) == [DEVICE, RESERVED]


def test_a_wrong_name_has_no_chain_of_errors(prog: drgn.Program) -> None:
    with pytest.raises(ValueError, match="there is no resource") as e:
        explain(prog, "foo")
    assert e.value.__context__ is None
    assert e.value.__cause__ is None
