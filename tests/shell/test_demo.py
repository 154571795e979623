# SPDX-License-Identifier: LGPL-2.1-or-later

"""The demonstration, and the stored dumps that it lives on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.exports import check_json
from support.fakekernel import collision

from drgn_zonedev.export import store as stored
from drgn_zonedev.export.archive import pack
from drgn_zonedev.export.store import ARCHIVE, EXPECTED, EXPECTED_SCHEMA, StoredDump, stored_dumps
from drgn_zonedev.export.write import write_export
from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[2] / "vmcores"


def _store(directory: Path, *, packed: bool) -> StoredDump:
    prog = collision("6.1").program()
    write_export(prog, directory / "export" if packed else directory)
    if packed:
        pack(directory / "export", directory / ARCHIVE)
    expected: dict[str, object] = {"schema": EXPECTED_SCHEMA, "ranges": [], "truth": None}
    (directory / EXPECTED).write_text(json.dumps(expected))
    return StoredDump(directory)


@pytest.mark.parametrize("packed", [True, False])
def test_dump_is_opened_packed_or_not(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "dumps").mkdir()
    if packed:
        (tmp_path / "dumps" / "one").mkdir()
    _store(tmp_path / "dumps" / "one", packed=packed)
    (dump,) = stored_dumps(tmp_path / "dumps")
    assert dump.name == "one"
    with dump.program() as prog:
        assert check_json(prog) == check_json(collision("6.1").program())


def test_expectations_of_another_time_are_refused(tmp_path: Path) -> None:
    (tmp_path / EXPECTED).write_text('{"schema": "something else"}')
    with pytest.raises(ValueError, match="schema"):
        StoredDump(tmp_path).expected()


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2", "7.3"])
def test_demo_shows_every_case(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", kernel]) == 0
    out = capsys.readouterr().out
    for case in ("offline (1)", "device (2)", "partial (3)", "initializing (4)", "reserved (5)"):
        assert case in out
    assert "NOT AS EXPECTED" not in out
    # It ends with a page that memory failure dies of, if this kernel does.
    last = out.rpartition("===== and ")[2]
    panics = kernel in ("7.2", "7.3")
    assert last.startswith(
        f"this page panics {kernel}: " if panics else "this page is in no zone: "
    )
    assert "error: ram-hole-zone [0x3ffdf, 0x3ffe0)" in last
    assert ("The kernel oopses on it in memory_failure()" in last) is panics


def test_demo_says_when_the_page_is_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dump in stored_dumps(VMCORES):
        if dump.name.startswith("6.1-"):
            (tmp_path / dump.name).symlink_to(dump.path)
    (tmp_path / "6.1-acpi-hole").unlink()
    (tmp_path / "6.1-acpi-hole").mkdir()
    # An export without that page.
    archive = VMCORES / "6.1-empty" / ARCHIVE
    (tmp_path / "6.1-acpi-hole" / ARCHIVE).symlink_to(archive)
    expected = (VMCORES / "6.1-acpi-hole" / EXPECTED).read_text()
    (tmp_path / "6.1-acpi-hole" / EXPECTED).write_text(expected)
    assert cli.main(["demo", "6.1", "--vmcores", str(tmp_path)]) == 1
    assert "NOT AS EXPECTED: the kernel is wrong at PFN 0x3ffdf" in capsys.readouterr().out


@pytest.mark.parametrize("kernel", ["5.10", "7.3"])
def test_demo_draws_memory_whose_struct_pages_are_not_initialised(
    kernel: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["demo", kernel]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The device has PFNs 0x24000 to 0x30000; a row is a section of 64 subsections.
    # The altmap's reserve and free pages take up its first two: 2 and 1022 pages.
    section = "".join(["o" * 32, "R", "m", "I" * 30])
    assert any(line.startswith(f"!0x20000 {section} ") for line in lines)
    assert any(line.startswith("!0x28000 " + "I" * 64) for line in lines)
    # Two screens of 40 lines are too many.
    assert len(lines) < 60


def test_demo_says_when_it_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dump in stored_dumps(VMCORES):
        if dump.name.startswith("6.1-"):
            copy = tmp_path / dump.name
            copy.mkdir()
            (copy / ARCHIVE).symlink_to(dump.path / ARCHIVE)
            expected = dump.expected()
            for range_ in expected["ranges"]:
                range_[2] = "ghost"
            (copy / EXPECTED).write_text(json.dumps(expected))
    assert cli.main(["demo", "6.1", "--vmcores", str(tmp_path)]) == 1
    assert "NOT AS EXPECTED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["9.9"], "choose one of 5.10, 6.1"),
        (["--vmcores", "/"], "--vmcores"),
        (["--vmcores", "x" * 300], "--vmcores"),
        (["--vmcores", "x/" * 2500], "--vmcores"),
    ],
)
def test_demo_without_a_dump_says_what_to_do(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line


def test_demo_with_a_damaged_dump_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "6.1-hotplug-offline").mkdir()
    for name, text in ((EXPECTED, json.dumps({"schema": EXPECTED_SCHEMA})), (ARCHIVE, "damaged")):
        (tmp_path / "6.1-hotplug-offline" / name).write_text(text)
    assert cli.main(["demo", "6.1", "--vmcores", str(tmp_path)]) == 2
    assert "not a packed export" in capsys.readouterr().err


@pytest.mark.parametrize("content", [
    b"", b"[]", b"null", b"7", b"{", b"\xff", b"[" * 100_000, b'{"schema": []}',
    b"{}", b'{"summary": 7}', b'{"summary": "x"}', b'{"summary": "x", "ranges": {}}',
    b'{"summary": "x", "ranges": [7]}', b'{"summary": "x", "ranges": [[1, 2]]}',
    b'{"summary": "x", "ranges": [[1, 2, "online", 4]]}',
    b'{"summary": "x", "ranges": [["1", 2, "online"]]}',
    b'{"summary": "x", "ranges": [[1.5, 2, "online"]]}',
    b'{"summary": "x", "ranges": [[true, 2, "online"]]}',
    b'{"summary": "x", "ranges": [[1, null, "online"]]}',
    b'{"summary": "x", "ranges": [[1, 2, ["online"]]]}',
], ids=lambda content: repr(content[:50]))  # fmt: skip
def test_demo_with_wrong_expectations_is_one_clear_error(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = b'{"schema": "' + EXPECTED_SCHEMA.encode() + b'", '
    dump = tmp_path / "6.1-hotplug-offline"
    dump.mkdir()
    (dump / ARCHIVE).symlink_to(VMCORES / dump.name / ARCHIVE)
    (dump / EXPECTED).write_bytes(content.replace(b'{"summary', schema + b'"summary'))
    assert cli.main(["demo", "6.1", "--vmcores", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert str(dump) in err


def test_case_that_there_is_not_is_printed_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dump in stored_dumps(VMCORES):
        if dump.name.startswith("6.1-"):
            (tmp_path / dump.name).mkdir()
            (tmp_path / dump.name / ARCHIVE).symlink_to(dump.path / ARCHIVE)
            document = {**dump.expected(), "ranges": [[0, 1, "\x1b[2J"]]}
            (tmp_path / dump.name / EXPECTED).write_text(json.dumps(document))
    assert cli.main(["demo", "6.1", "--vmcores", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out
    assert "\x1b" not in out


def test_no_dumps_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stored, "__file__", str(tmp_path / "package" / "stored.py"))
    assert stored.default_directory() is None
