# SPDX-License-Identifier: LGPL-2.1-or-later

"""An export says what its source says, and holds nothing else."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from drgn import FaultError, Program
from drgn.commands import CommandError, run_command
from drgn.helpers.linux.mm import compound_head, decode_page_flags, pfn_to_page
from drgn.helpers.linux.mmzone import for_each_present_section
from drgn.helpers.linux.xarray import xa_for_each
from support.archives import END, member, packed, tar
from support.exports import check_json, open_export
from support.fakekernel import FakeKernel, busy_ram, collision, in_flight, partial
from support.fakekernel.layouts import Member, Struct
from support.kernels import each_layout
from support.opening import open_instead

from drgn_zonedev import plugin
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.export import select
from drgn_zonedev.export import write as dump
from drgn_zonedev.export.store import unpacked
from drgn_zonedev.export.trace import Recorder
from drgn_zonedev.export.write import ExportOptions, write_export
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.model import Case, PageCounts
from drgn_zonedev.pfn_walkers import walkers
from drgn_zonedev.pfn_walkers.kernel_release import kernel_release
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

another = pytest.mark.long("a collision is in every run")
each_scene = pytest.mark.parametrize(
    "scene", [collision, *(pytest.param(scene, marks=another) for scene in (in_flight, partial))]
)
Scene = Callable[[str], FakeKernel]

RAM_PFN = 0x1000
VMCORES = Path(__file__).parents[2] / "vmcores"


def readable(prog: Program, address: int, size: int) -> bool:
    try:
        prog.read(address, size)
    except FaultError:
        return False
    return True


def some_ram(sections: int) -> Program:
    """What is least to export, for tests of files whatever is in them."""
    kernel = FakeKernel("6.1")
    for nr in range(sections):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr)
    kernel.ram_pages(0, sections * 0x8000)
    return kernel.program()


# The same answers.


@each_layout
@each_scene
def test_check_says_the_same(tmp_path: Path, layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    done = write_export(prog, tmp_path / "out")
    assert check_json(open_export(tmp_path / "out")) == check_json(prog)
    assert done.report == check(open_export(tmp_path / "out"))
    (online,) = (n for c, n in done.report.coverage.by_case.items() if c is Case.ONLINE)
    assert (online.verified, online.unreadable) == (0, 0)
    assert online.not_exported > 0


@each_layout
@each_scene
def test_walkers_meet_the_same(tmp_path: Path, layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    write_export(prog, tmp_path / "out")
    ours, theirs = walkers(prog), walkers(open_export(tmp_path / "out"))
    assert theirs.unreadable == ()
    assert [j.exposures for j in theirs.walkers] == [j.exposures for j in ours.walkers]


@each_layout
@each_scene
def test_export_of_an_export_is_identical(tmp_path: Path, layout: str, scene: Scene) -> None:
    write_export(scene(layout).program(), tmp_path / "one")
    write_export(open_export(tmp_path / "one"), tmp_path / "two")
    for name in ("vmcore", "vmlinux", "meta.json"):
        first, second = (tmp_path / out / name for out in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


@each_layout
def test_helpers_of_drgn_work(tmp_path: Path, layout: str) -> None:
    kernel = partial(layout)
    source = kernel.program()
    write_export(source, tmp_path / "out")
    prog = open_export(tmp_path / "out")
    for p in (prog, source):
        assert [nr for nr, _ in for_each_present_section(p)] == [0, 1, 0x20, 0x21, 0x22]
    found = [
        [(i, e.value_()) for i, e in xa_for_each(p["pgmap_array"].address_of_())]
        for p in (prog, source)
    ]
    assert found[0] == found[1] != []
    for pfn in (0x100700, 0x110000, 0x113FFF):
        pages = [pfn_to_page(p, pfn) for p in (prog, source)]
        assert pages[0].value_() == kernel.page(pfn)
        assert compound_head(pages[0]).value_() == compound_head(pages[1]).value_()
        assert decode_page_flags(pages[0]) == decode_page_flags(pages[1])


@each_layout
def test_defects_are_exported_too(tmp_path: Path, layout: str) -> None:
    kernel = collision(layout)
    kernel.fill_pages(0x25000, 0x25010, 0xFF)
    kernel.poke_page_word(0x26000, 1, 0xDEAD0000)
    prog = kernel.program()
    write_export(prog, tmp_path / "out")
    assert check(open_export(tmp_path / "out")).findings == check(prog).findings
    assert any(f.severity.value == "error" for f in check(prog).findings)


@each_layout
def test_memmap_that_is_missing_is_missing_in_the_export(tmp_path: Path, layout: str) -> None:
    kernel = collision(layout)
    kernel.unmap_memmap(0x28000, 0x29000)
    prog = kernel.program()
    done = write_export(prog, tmp_path / "out")
    copy = open_export(tmp_path / "out")
    of_copy, of_source = (check(p, only="devices").coverage for p in (copy, prog))
    assert of_copy == of_source
    assert check(copy).ranges == check(prog).ranges
    missing = [(u["start_pfn"], u["end_pfn"]) for u in done.meta["unreadable"]]
    assert missing == [(0x28000, 0x29000)]
    assert readable(copy, kernel.page(0x27FFF), 64)
    assert not readable(copy, kernel.page(0x28000), 64)


def test_running_kernel_is_frozen_in_its_export(tmp_path: Path) -> None:
    prog = collision("6.12").program(is_live=True)
    done = write_export(prog, tmp_path / "out")
    assert done.meta["source"] == {"live": True}
    live, frozen = (
        json.loads(check_json(prog)),
        json.loads(check_json(open_export(tmp_path / "out"))),
    )
    assert live["kernel"].pop("live") is True
    assert frozen["kernel"].pop("live") is False
    assert live == frozen


# What is in it, and what is not.


@each_layout
def test_memmap_of_ram_is_left_out_unless_it_is_asked_for(tmp_path: Path, layout: str) -> None:
    kernel = collision(layout)
    write_export(kernel.program(), tmp_path / "out")
    write_export(kernel.program(), tmp_path / "all", ExportOptions(all_memmap=True))
    assert not readable(open_export(tmp_path / "out"), kernel.page(RAM_PFN), 64)
    assert readable(open_export(tmp_path / "all"), kernel.page(RAM_PFN), 64)


@each_layout
def test_ram_of_some_pfns_is_judged_in_the_export_and_no_other(tmp_path: Path, layout: str) -> None:
    kernel = busy_ram(layout)
    for pfn in (0x40800, 0x41234, 0x45000):
        # Of a node that there is not.
        kernel.poke(kernel.page(pfn) + 7, b"\xff")
    options = ExportOptions(pfns=((0x41000, 0x41300), (0x100000, 0x100010)))
    done = write_export(kernel.program(), tmp_path / "out", options)
    report = check(open_export(tmp_path / "out"))
    assert report == done.report
    assert [(f.slug, f.start_pfn) for f in report.findings] == [("ram-page-node", 0x41234)]
    assert report.unjudged == ()
    pages = PageCounts(verified=0x310, not_exported=0x10000 - 0x310)
    assert report.coverage.by_case == {Case.ONLINE: pages}
    whole = explain(kernel.program(), 0x41234)
    assert replace(explain(open_export(tmp_path / "out"), 0x41234), range=whole.range) == whole
    write_export(open_export(tmp_path / "out"), tmp_path / "two")
    assert check(open_export(tmp_path / "two")) == report


@pytest.mark.parametrize("margin", [0, 1, 512, 100000])
def test_margin_is_what_was_asked_for(tmp_path: Path, margin: int) -> None:
    kernel = collision("6.1")
    write_export(kernel.program(), tmp_path / "out", ExportOptions(margin=margin))
    prog = open_export(tmp_path / "out")
    first = max(0x24000 - margin, 0)
    assert readable(prog, kernel.page(first), 64)
    if first > 1:
        # The last PFN of the range in front is explained, and one struct page is read for that.
        assert not readable(prog, kernel.page(first - 2), 64)


def test_neighbours_of_usages_are_left_out(tmp_path: Path) -> None:
    kernel = partial("6.1")
    kernel.section(0x30)
    secret = kernel._heap.alloc(16)
    kernel.poke(secret, b"somebody else's")
    kernel.section(0x31)
    prog = kernel.program()
    usages = sorted(set(sections(prog).usage.tolist()) - {0})
    # Both usages, and what lies between, are near enough to be read in one go.
    assert max(u for u in usages if u < secret) + 4096 > min(u for u in usages if u > secret)
    write_export(prog, tmp_path / "out")
    copy = open_export(tmp_path / "out")
    for usage in usages:
        assert copy.read(usage, 24) == prog.read(usage, 24)
    assert prog.read(secret, 15) == b"somebody else's"
    assert b"somebody else's" not in (tmp_path / "out" / "vmcore").read_bytes()
    assert not readable(copy, secret, 1)


def test_meta_tells_what_is_inside(tmp_path: Path) -> None:
    write_export(collision("6.1").program(), tmp_path / "out", ExportOptions(margin=16))
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["schema"] == "drgn-zonedev/export/1"
    assert meta["kernel"]["release"] == "6.1.192-fake"
    options = {"all_memmap": False, "margin": 16, "blank_names": False, "pfns": []}
    assert meta["options"] == options
    assert [0x24000 - 16, 0x30000 + 16] in meta["contents"]["memmap"]
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "out").iterdir()}
    assert sizes.keys() == {"vmcore", "vmlinux", "meta.json"}
    assert {name: file["size"] for name, file in meta["files"].items()} == {
        name: sizes[name] for name in ("vmcore", "vmlinux")
    }


# Writing it.


def test_existing_directory_is_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_export(some_ram(1), out)
    before = (out / "vmcore").read_bytes()
    with pytest.raises(FileExistsError):
        write_export(some_ram(2), out)
    assert (out / "vmcore").read_bytes() == before
    write_export(some_ram(2), out, force=True)
    assert check_json(open_export(out)) == check_json(some_ram(2))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_interrupted_export_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(dump, "write_core", fail)
    with pytest.raises(type(error)):
        write_export(some_ram(1), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# One file.


@pytest.mark.parametrize("name", ["out.tar.xz", "out.txz"])
def test_archive_holds_the_same_as_a_directory(tmp_path: Path, name: str) -> None:
    prog = some_ram(1)
    write_export(prog, tmp_path / "out")
    done = write_export(prog, tmp_path / name)
    assert done.path == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", name]
    with unpacked(tmp_path / name) as files:
        for path in (tmp_path / "out").iterdir():
            assert (files / path.name).read_bytes() == path.read_bytes()


def test_what_a_program_is_read_from_is_not_replaced(tmp_path: Path) -> None:
    out, link = tmp_path / "out", tmp_path / "link"
    write_export(some_ram(2), out)
    for name in ("vmcore", "vmlinux", "meta.json"):
        link.mkdir(exist_ok=True)
        os.link(out / name, link / name)
    before = (out / "vmcore").stat().st_mtime_ns
    prog = open_export(out)
    for target in (out, link, out / ".." / "out"):
        with pytest.raises(FileExistsError, match="is the input"):
            write_export(prog, target, force=True)
    assert (out / "vmcore").stat().st_mtime_ns == before


def test_archive_is_replaced_only_if_it_is_one_of_an_export(tmp_path: Path) -> None:
    out, prog = tmp_path / "out.tar.xz", some_ram(1)
    write_export(prog, out)
    first = out.read_bytes()
    with pytest.raises(FileExistsError):
        write_export(some_ram(2), out)
    assert out.read_bytes() == first
    write_export(some_ram(2), out, force=True)
    assert out.read_bytes() != first


@pytest.mark.parametrize("spoil", ["cut", "more", "foreign", "text", "empty"])
def test_what_only_looks_like_an_archive_of_ours_is_not_replaced(
    tmp_path: Path, spoil: str
) -> None:
    out = tmp_path / "out.tar.xz"
    write_export(some_ram(1), out)
    out.write_bytes(
        {
            "cut": out.read_bytes()[:-1],
            "more": packed(_archive_of_ours(member("notes", b"precious"))),
            "foreign": packed(tar()),
            "text": b"precious",
            "empty": b"",
        }[spoil]
    )
    before = out.read_bytes()
    with pytest.raises(FileExistsError):
        write_export(some_ram(2), out, force=True)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.tar.xz"]


def test_archive_packed_by_hand_is_an_earlier_export(tmp_path: Path) -> None:
    (tmp_path / "out.txz").write_bytes(packed(_archive_of_ours()))
    assert dump.is_earlier_export(tmp_path / "out.txz")


def _archive_of_ours(*more: bytes) -> bytes:
    meta = member("meta.json", b'{\n  "schema": "drgn-zonedev/export/1"}')
    return b"".join((*more, meta, member("vmlinux", b""), member("vmcore", b""), END))


@pytest.mark.parametrize("name", ["out", "out.tar.xz"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_interrupted_replacement_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, name: str
) -> None:
    def fail(*args: object) -> None:
        raise error

    out = tmp_path / name
    write_export(some_ram(1), out)
    files = [out] if out.is_file() else sorted(out.iterdir())
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr(dump, "write_core", fail)
    with pytest.raises(type(error)):
        write_export(some_ram(2), out, force=True)
    assert [path.read_bytes() for path in files] == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Who may read it.


def modes(out: Path) -> set[int]:
    files = [out] if out.is_file() else list(out.iterdir())
    return {stat.S_IMODE(path.stat().st_mode) for path in files}


@pytest.mark.parametrize(
    ("mode", "name"),
    [(0o400, "copy"), (0o640, "copy"), (0o644, "copy"), (0o640, "copy.tar.xz")],
)
def test_files_have_the_mode_of_the_source(tmp_path: Path, mode: int, name: str) -> None:
    write_export(some_ram(1), tmp_path / "source")
    (tmp_path / "source" / "vmcore").chmod(mode)
    write_export(open_export(tmp_path / "source"), tmp_path / name)
    assert modes(tmp_path / name) == {mode}
    if name == "copy":
        readers = mode & 0o044
        searchable = stat.S_IMODE((tmp_path / name).stat().st_mode)
        assert searchable == 0o700 | readers | readers >> 2


def test_copy_of_a_packed_source_has_its_mode(tmp_path: Path) -> None:
    archive = tmp_path / "source.tar.xz"
    write_export(some_ram(1), archive)
    archive.chmod(0o440)
    assert cli.main(["-c", str(archive), "export", str(tmp_path / "copy")]) == 0
    assert modes(tmp_path / "copy") == {0o440}


@pytest.mark.parametrize("name", ["copy", "copy.tar.xz"])
def test_memory_from_no_file_is_the_owners(tmp_path: Path, name: str) -> None:
    write_export(some_ram(1), tmp_path / name)
    assert modes(tmp_path / name) == {0o600}


# The command.


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    open_instead(monkeypatch, lambda: some_ram(1))


@pytest.mark.usefixtures("opened")
def test_command_says_how_to_open_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["export", str(out)]) == 0
    assert f"drgn -c {out}/vmcore -s {out}/vmlinux" in capsys.readouterr().out


@pytest.mark.usefixtures("opened")
def test_command_says_how_to_open_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.tar.xz"
    assert cli.main(["export", str(out)]) == 0
    assert f"open it with: zonedev -c {out} COMMAND" in capsys.readouterr().out
    assert error(capsys, str(out)).endswith("or replace that export with --force")
    assert cli.main(["export", "--force", str(out)]) == 0


def test_check_of_an_archive_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, source = tmp_path / "out.tar.xz", str(VMCORES / "6.1-nvdimm-partial")
    assert cli.main(["-c", source, "export", str(out)]) == 0
    capsys.readouterr()
    said = []
    for path in (source, str(out)):
        status = cli.main(["-c", path, "check", "--format", "json"])
        document = json.loads(capsys.readouterr().out)
        assert document.pop("provenance")["source"] == path
        said.append((status, document))
    assert said[0] == said[1]


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["export", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("opened")
def test_force_is_for_exports_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    refused = f"zonedev: error: {tmp_path} is not empty: choose another name"
    assert error(capsys, str(tmp_path)) == refused
    why = ": --force replaces an earlier export, and nothing else"
    assert error(capsys, "--force", str(tmp_path)) == refused + why
    assert precious.read_text() == "x"


@pytest.mark.usefixtures("opened")
def test_export_is_replaced_if_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert cli.main(["export", str(out)]) == 0
    refused = f"zonedev: error: {out} is not empty: choose another name"
    capsys.readouterr()
    assert error(capsys, str(out)) == f"{refused}, or replace that export with --force"
    (out / "vmcore").write_bytes(b"")
    assert cli.main(["export", "--force", str(out)]) == 0
    assert (out / "vmcore").stat().st_size > 0


@pytest.mark.parametrize("spoil", ["add", "remove", "foreign", "link"])
def test_what_only_looks_like_an_export_is_not_replaced(tmp_path: Path, spoil: str) -> None:
    out = tmp_path / "out"
    write_export(some_ram(1), out)
    if spoil == "add":
        (out / "notes").write_text("x")
    elif spoil == "remove":
        (out / "meta.json").unlink()
    elif spoil == "foreign":
        (out / "meta.json").write_text('{"schema": "other/1"}')
    else:
        out = tmp_path / "link"
        out.symlink_to("out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileExistsError):
        write_export(some_ram(2), out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.usefixtures("opened")
def test_command_says_why_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "missing" / "out"
    assert cli.main(["export", str(out)]) == 2
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["memory_blocks", "pgmap_array"])
def test_structure_that_leads_back_into_itself_is_exported(name: str, tmp_path: Path) -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    root = prog[name].xa_head.value_()
    slots = root - 2 + prog.type("struct xa_node").member("slots").offset
    kernel.poke(slots, root.to_bytes(8, "little"))
    done = write_export(kernel.program(), tmp_path / "out")
    assert any(name in u.reason for u in done.report.unjudged)
    assert done.report == check(open_export(tmp_path / "out"))


@pytest.mark.parametrize("helper", ["slab_object_info", "for_each_memory_block"])
def test_helper_that_never_has_enough_ends(
    helper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_for_ever(prog: Program, address: int = 0) -> None:
        while True:
            prog["max_pfn"].value_()

    kernel = collision("6.1")
    monkeypatch.setattr(select, helper, read_for_ever)
    monkeypatch.setattr(select, "_MAX_READS", 1000)
    done = write_export(kernel.program(), tmp_path / "out")
    assert done.report == check(open_export(tmp_path / "out"))
    assert check_json(open_export(tmp_path / "out")) == check_json(kernel.program())


def test_sections_that_cannot_be_read_have_no_memmap_to_look_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A range that claims to be everywhere, and a root of the section array that is
    # nowhere: half a gigabyte of memmap that nobody has.
    kernel = collision("6.1")
    prog = kernel.program()
    present = {int(nr) for nr in sections(prog).nr}
    (pgmap,) = check(prog).pgmaps
    kernel.poke_member("dev_pagemap", pgmap.address, "range.end", (1 << 46) - 1)
    kernel.poke(prog["mem_section"].value_() + 8, (0x7FFC12345000).to_bytes(8, "little"))
    kernel.set_variable("__highest_present_section_nr", 511)
    looked_at: set[int] = set()

    def read(prog: Program, start: int, end: int) -> list[int]:
        looked_at.update(range(start >> 15, (end - 1 >> 15) + 1))
        return []

    monkeypatch.setattr(select, "read_pages", read)
    write_export(kernel.program(), tmp_path / "out")
    assert looked_at <= present
    assert looked_at


@pytest.mark.parametrize("margin", ["-1", "many"])
def test_margin_has_to_be_a_number_of_pages(
    tmp_path: Path, margin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["export", str(tmp_path / "out"), f"--margin={margin}"])
    assert raised.value.code == 2
    assert margin in capsys.readouterr().err


def test_command_in_the_repl(tmp_path: Path) -> None:
    prog = partial("7.2").program()
    plugin.drgn_prog_set(prog)
    done = run_command(prog, f"zonedev export {tmp_path / 'out'}")
    assert done.path == tmp_path / "out"
    assert check_json(open_export(done.path)) == check_json(prog)
    with pytest.raises(CommandError, match="is not empty"):
        run_command(prog, f"zonedev export {tmp_path / 'out'}")


def test_what_modules_need_is_kept_whatever_was_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a pgmap whose neighbour in a slab belongs to a module.
    with unpacked(VMCORES / "7.3-fsdax-collision") as files:
        words = words_to_load_symbols(files)
        monkeypatch.setattr(select, "guessed_words", lambda prog, pgmap: words)
        write_export(open_export(files), tmp_path / "out", ExportOptions())
    assert words
    assert words_to_load_symbols(tmp_path / "out") == words


def words_to_load_symbols(files: Path) -> frozenset[int]:
    """The addresses of words that drgn reads one by one while it loads symbols."""
    prog = open_export(files)
    recorder = Recorder(prog, prog["VMCOREINFO"].string_())
    dump._load(recorder.prog, files / "vmlinux")
    return frozenset(start for start, end in recorder._read if end - start == 8)


# Names of hosts lie beside the version that says which stable kernel it is.

_DEBIAN_VERSION = b"#1 SMP PREEMPT_DYNAMIC Debian 6.1.99-1 (2024-07-15)"
_HOST = {"sysname": b"Linux", "nodename": b"mail7.example", "domainname": b"example"}
_UTS_MEMBERS = ("sysname", "nodename", "release", "version", "machine", "domainname")


def named_host() -> FakeKernel:
    """A distributor's kernel, whose name does not say which stable kernel it is."""
    kernel = collision("6.1")
    size = 65
    names = Struct(
        len(_UTS_MEMBERS) * size,
        False,
        {name: Member(f"char [{size}]", i * size) for i, name in enumerate(_UTS_MEMBERS)},
    )
    uts = Struct(names.size + 4, False, {"name": Member("struct new_utsname", 4)})
    structs = {**kernel.layout.structs, "new_utsname": names, "uts_namespace": uts}
    kernel.layout = replace(kernel.layout, name="other", release="6.1.0-9-amd64", structs=structs)
    address = kernel.add_variable("init_uts_ns", "struct uts_namespace") + 4
    for name, text in {**_HOST, "version": _DEBIAN_VERSION}.items():
        kernel.poke(address + names.members[name].offset, text + b"\0")
    return kernel


@pytest.mark.parametrize("blank", [False, True], ids=["named", "blank"])
def test_stable_release_is_kept_and_the_names_of_hosts_beside_it_are_not(
    tmp_path: Path, blank: bool
) -> None:
    prog = named_host().program()
    assert kernel_release(prog) == (6, 1, 99)
    write_export(prog, tmp_path / "one", ExportOptions(blank_names=blank))
    one = open_export(tmp_path / "one")
    write_export(one, tmp_path / "two", ExportOptions(blank_names=True))
    for exported in (one, open_export(tmp_path / "two")):
        assert kernel_release(exported) == (6, 1, 99)
        names = exported["init_uts_ns"].name
        for hidden in (names.nodename, names.domainname):
            assert not readable(exported, hidden.address_, 1)
    for path in (*(tmp_path / "one").iterdir(), *(tmp_path / "two").iterdir()):
        assert b"example" not in path.read_bytes()
