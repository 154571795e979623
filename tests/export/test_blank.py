# SPDX-License-Identifier: LGPL-2.1-or-later

"""
An export without names has none. What names look like is the kernel's to say:
``dev_set_name()`` of the drivers, PCI and ACPI addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drgn import Object, Program
from support.exports import check_json, open_export
from support.sampled import sampled
from test_filtered_dumps import frame_of, open_program, program_headers, write_without

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.export import blank
from drgn_zonedev.export.blank import NameLeftError
from drgn_zonedev.export.private_names import PrivateName, is_public
from drgn_zonedev.export.store import stored_dumps, unpacked
from drgn_zonedev.export.write import ExportOptions, write_export
from drgn_zonedev.kernel.devres import for_each_dev_pagemap_owner
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[2] / "vmcores"
DUMPS = [dump.name for dump in stored_dumps(VMCORES)]
DUMP = VMCORES / "7.3-fsdax-collision"
BLANK = ExportOptions(blank_names=True)

NAMES = re.compile(
    rb"(?<![\w.])(?:pmem|pfn|dax|namespace|region|ndbus|nd|btt|cpu)\d[\w.]*"
    rb"|[0-9a-f]{4}:[0-9a-f]{2}|(?:PNP|ACPI|QEMU|LNX)\w*:\w\w|IOAPIC \d|HPET \d"
)


def names_in(directory: Path) -> set[bytes]:
    return {name for path in directory.iterdir() for name in NAMES.findall(path.read_bytes())}


def cases(prog: Program) -> list[object]:
    report = check(prog)
    return [
        *((r.start_pfn, r.end_pfn, r.case) for r in report.ranges),
        *((f.slug, f.start_pfn, f.end_pfn) for f in report.findings),
        *report.unjudged,
    ]


@pytest.mark.parametrize("name", sampled(DUMPS, 6))
def test_stored_dump_is_exported_without_names(tmp_path: Path, name: str) -> None:
    with unpacked(VMCORES / name) as files:
        assert names_in(files)
        write_export(open_export(files), tmp_path / "out", BLANK)
        assert names_in(tmp_path / "out") == set()


@pytest.mark.parametrize("name", sampled([d for d in DUMPS if d.startswith("7.3-")], 6))
def test_export_of_an_export_has_no_names_either(tmp_path: Path, name: str) -> None:
    with unpacked(VMCORES / name) as files:
        source = open_export(files)
        write_export(source, tmp_path / "one")
        write_export(open_export(tmp_path / "one"), tmp_path / "two.tar.xz", BLANK)
        expected = cases(source)
    with unpacked(tmp_path / "two.tar.xz") as two:
        assert names_in(two) == set()
        assert cases(open_export(two)) == expected
        write_export(open_export(two), tmp_path / "three", BLANK)
        assert check_json(open_export(tmp_path / "three")) == check_json(open_export(two))
    assert names_in(tmp_path / "three") == set()


# Dumps with pages left out.


@contextmanager
def dumped() -> Iterator[tuple[Path, bytes, Program]]:
    with unpacked(DUMP) as files:
        vmcore = (files / "vmcore").read_bytes()
        yield files, vmcore, open_export(files)


def owner(prog: Program) -> Object:
    pgmaps = frozenset(p.address for p in take_snapshot(prog).pgmaps)
    return next(iter(for_each_dev_pagemap_owner(prog, pgmaps)))


def structure(prog: Program, what: str) -> int:
    if what == "resources":
        return int(prog["iomem_resource"].child.value_())
    if what == "pgmap":
        return take_snapshot(prog).pgmaps[0].address
    device = owner(prog)
    return int((device if what == "owner" else device.kobj.name).value_())


# That the list of its children cannot be read is true of the dump as it is.
@pytest.mark.parametrize("hole", [True, False])
@pytest.mark.parametrize("what", ["owner", "name", "pgmap", "resources"])
def test_dump_with_a_page_left_out_is_exported_without_names(
    tmp_path: Path, what: str, hole: bool
) -> None:
    with dumped() as (files, vmcore, prog):
        frame = frame_of(vmcore, structure(prog, what))
        write_without(vmcore, frame, tmp_path / "vmcore", hole=hole)
        write_export(open_program(files, tmp_path / "vmcore"), tmp_path / "out", BLANK)
    assert names_in(tmp_path / "out") == set()


# Dumps with something else in them.


def poke(vmcore: bytearray, address: int, data: bytes) -> None:
    offset = next(
        header[2] + address - header[3]
        for header in program_headers(bytes(vmcore))
        if header[0] == 1 and header[3] <= address < header[3] + header[5]
    )
    vmcore[offset : offset + len(data)] = data


@contextmanager
def damaged(tmp_path: Path, *pokes: tuple[int, bytes]) -> Iterator[Program]:
    with unpacked(DUMP) as files:
        vmcore = bytearray((files / "vmcore").read_bytes())
        for address, data in pokes:
            poke(vmcore, address, data)
        (tmp_path / "vmcore").write_bytes(vmcore)
        yield open_program(files, tmp_path / "vmcore")


def page_word(prog: Program) -> int:
    """The address of a word of a device's struct page, which is part of every export."""
    return page_layout(prog).page_address(take_snapshot(prog).pgmaps[0].ranges[0].end_pfn - 8) + 40


def where() -> tuple[int, int, int]:
    with dumped() as (_, _, prog):
        device = owner(prog)
        member = device.init_name.address_of_().value_()
        return page_word(prog), int(device.kobj.name.value_()), int(member)


def test_name_in_another_place_is_found_and_nothing_written(tmp_path: Path) -> None:
    word, name, _ = where()
    with dumped() as (_, _, prog):
        text = prog.read(name, 7)
    assert text == b"pfn0.0\0"
    with (
        damaged(tmp_path, (word, text)) as prog,
        pytest.raises(NameLeftError, match=rf"pfn0\.0, the name of a device, .* at {word:#x}"),
    ):
        write_export(prog, tmp_path / "out", BLANK)
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]


@pytest.mark.parametrize("out", ["out", "out.tar.xz"])
def test_command_says_which_name_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    word, _, _ = where()
    with damaged(tmp_path, (word, b"pfn0.0\0")), unpacked(DUMP) as files:
        argv = ["-c", str(tmp_path / "vmcore"), "-s", str(files / "vmlinux"), "export"]
        assert cli.main([*argv, str(tmp_path / out), "--blank-names"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "zonedev: error: cannot leave out all names: pfn0.0, the name of a device"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]


def test_short_name_is_not_taken_for_a_number(tmp_path: Path) -> None:
    word, name, _ = where()
    with damaged(tmp_path, (name, b"nd0\0"), (word, b"nd0\0\0\0\0\0")) as prog:
        write_export(prog, tmp_path / "out", BLANK)
    copy = open_export(tmp_path / "out")
    assert copy.read(word, 4) == b"nd0\0"
    assert copy.read(name, 4) == b"xxx\0"


def test_initial_name_is_left_out(tmp_path: Path) -> None:
    word, _, member = where()
    pokes = (word, b"secret0\0"), (member, word.to_bytes(8, "little"))
    with damaged(tmp_path, *pokes) as prog:
        write_export(prog, tmp_path / "plain")
        write_export(prog, tmp_path / "blank", BLANK)
    vmcores = [(tmp_path / out / "vmcore").read_bytes() for out in ("plain", "blank")]
    assert [b"secret0" in vmcore for vmcore in vmcores] == [True, False]
    assert open_export(tmp_path / "blank").read(word, 8) == b"xxxxxxx\0"


def test_name_that_breaks_off_is_left_out(tmp_path: Path) -> None:
    # The string goes on where a page that is not in the dump begins.
    _, _, member = where()
    with dumped() as (_, _, prog):
        last = page_layout(prog).page_address(take_snapshot(prog).pgmaps[0].ranges[0].end_pfn)
    end = (last - 1) // 4096 * 4096
    pokes = (end - 6, b"secret"), (member, (end - 6).to_bytes(8, "little"))
    with damaged(tmp_path, *pokes) as whole, unpacked(DUMP) as files:
        assert whole.read(end - 6, 6) == b"secret"
        vmcore = (tmp_path / "vmcore").read_bytes()
        write_without(vmcore, frame_of(vmcore, end), tmp_path / "cut", hole=False)
        write_export(open_program(files, tmp_path / "cut"), tmp_path / "out", BLANK)
    assert b"secret" not in (tmp_path / "out" / "vmcore").read_bytes()


# Names that are known, wherever they are.


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"x86_64", "in meta.json"),
        (b".debug_str", "in vmlinux"),
        # Constants: of the image, of modules, and of the debugging information.
        (b"Movable", None),
        (b"nd_pmem", None),
        (b"pgmap_array", None),
        (b"not there", None),
    ],
)
def test_every_known_name_is_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, left: str | None
) -> None:
    known = PrivateName(text, 0, "the host")
    monkeypatch.setattr(blank, "other_names", lambda prog: (known,))
    with dumped() as (files, _, prog):
        if left is None:
            assert text in (files / "vmcore").read_bytes() + b"pgmap_array" + b"not there"
            write_export(prog, tmp_path / "out", BLANK)
        else:
            with pytest.raises(NameLeftError, match=f"the name of the host, is still {left}"):
                write_export(prog, tmp_path / "out", BLANK)
            assert list(tmp_path.iterdir()) == []


def test_name_that_is_shown_but_was_not_found_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drgn_zonedev.export.write.printed_names", lambda prog: ())
    with dumped() as (_, _, prog), pytest.raises(NameLeftError, match="cannot find where"):
        write_export(prog, tmp_path / "out", BLANK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"xxx", b"System RAM", b"System RAM (kmem)", b"(none)"])
def test_what_says_nothing_may_stay(text: bytes) -> None:
    assert is_public(text)


@pytest.mark.parametrize("text", [b"xxx0", b"System RAM of Anna", b"Persistent Memory", b"pmem0"])
def test_what_says_something_may_not_stay(text: bytes) -> None:
    assert not is_public(text)
