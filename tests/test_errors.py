# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Every error is one line that names what it is about and says what to do.

Each provocation is a command line, the exit status, and what the line has to name.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import drgn
import pytest
from support.fakekernel import FakeKernel, collision
from support.opening import open_instead
from support.processcore import write_process_core

from drgn_zonedev.commands.base import UsageError
from drgn_zonedev.export import store as stored
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.opening import live
from drgn_zonedev.shell import cli, completion

# After the colon comes what to do about it.
ADVICE = re.compile(
    r"[:;,] .*\b(apt-get install|build it|check|choose|give|install|is QEMU running|make room|"
    r"needs|pip install|remove|run|see|take|takes|try|unpack|use|export it)\b"
)

VMCORES = Path(__file__).parents[1] / "vmcores"

Files = dict[str, Path]


def _ids(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Things that are not what they are given for."""
    text, core, taken = tmp_path / "notes.txt", tmp_path / "core", tmp_path / "taken"
    text.write_text("no core at all\n")
    write_process_core(core)
    taken.mkdir()
    other, unpacked = tmp_path / "other", tmp_path / "unpacked"
    other.write_bytes(Path(sys.executable).read_bytes())
    unpacked.mkdir()
    with StoredDump(VMCORES / "6.1-empty").files() as stored:
        shutil.copy(stored / "vmcore", unpacked)
    (taken / "file").write_text("")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "dump.tar.xz").write_bytes(b"no archive")
    return {
        "missing": tmp_path / "missing",
        "text": text,
        "core": core,
        "directory": taken,
        "broken": broken,
        "socket": tmp_path / "socket",
        "other": other,
        "unpacked": unpacked,
        "deep": tmp_path / "no" / "such" / "file",
    }


def _error(capsys: pytest.CaptureFixture[str], status: int, *argv: str) -> str:
    assert cli.main(argv) == status
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if not line.startswith("lab: ")]
    assert len(lines) == 1, output.err
    assert lines[0].startswith("zonedev: error: ")
    assert ADVICE.search(lines[0]), lines[0]
    return lines[0]


OPENING = [
    (("-c", "{missing}", "check"), "{missing}"),
    (("-c", "{text}", "check"), "{text}"),
    (("-c", "{directory}", "check"), "{directory}"),
    (("-c", "{broken}", "check"), "{broken}"),
    (("-c", "{core}", "check"), "{core}"),
    (("--qemu", "{missing}", "check"), "{missing}"),
    (("--qemu", "{socket}", "check"), "{socket}"),
    (("-c", "{unpacked}", "-s", "{missing}", "check"), "{missing}"),
    (("-c", "{unpacked}", "-s", "{directory}", "check"), "is a directory: give the vmlinux"),
    (("--qemu", "localhost:0", "check"), "with a PORT from 1 to 65535"),
    (("--qemu", "localhost:1", "check"), "-qmp tcp:localhost:1,"),
    (("demo", "4.19"), "4.19"),
    (("demo", "--vmcores", "{directory}"), "--vmcores"),
    (("lab", "run", "4.19"), "'4.19'"),
    (("lab", "run", "--kernel", "{missing}"), "--vmlinux"),
    (("lab", "run", "--kernel", "{missing}", "--vmlinux", "{text}"), "{missing}"),
    (("lab", "run", "--kernel", "{text}", "--vmlinux", "{text}"), "{text}"),
    (("lab", "run", "6.1", "--kernel", "{text}", "--vmlinux", "{text}"), "6.1"),
]


@pytest.mark.parametrize(("argv", "named"), OPENING, ids=_ids)
def test_what_cannot_be_opened(
    argv: tuple[str, ...], named: str, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(files["socket"]))  # nobody listens
        line = _error(capsys, 2, *(word.format(**files) for word in argv))
    assert named.format(**files) in line


def test_archive_that_is_damaged_is_named_once(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _error(capsys, 2, "-c", str(files["broken"]), "check")
    assert line.count(str(files["broken"])) == 1
    assert "copy it again" in line


def test_export_that_there_is_no_room_to_unpack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored, "unpack", fail)
    line = _error(capsys, 2, "-c", str(VMCORES / "6.1-empty"), "check")
    assert f"no room for it in {tempfile.gettempdir()}: make room" in line


@pytest.mark.parametrize("word", ["{missing}", "{unpacked}"])
def test_old_junit_file_does_not_outlive_an_error(
    word: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.xml"
    results.write_text("those of last week")
    argv = ["-c", word.format(**files), "check", "--format", "junit", "-o", str(results)]
    assert cli.main(argv) == (2 if "missing" in word else 3)
    error = ElementTree.parse(results).getroot().find("testsuite[@errors='1']/testcase/error")
    assert error is not None
    assert capsys.readouterr().err == f"zonedev: error: {error.text}\n"
    assert cli.main([*argv[:-1], str(files["deep"])]) == (2 if "missing" in word else 3)


NO_SYMBOLS = [
    ((), "no debugging symbols for Linux 6.1."),
    (("-s", "{text}"), "{text} (no ELF file)"),
    (("-s", "{other}"), "{other} ("),
]


@pytest.mark.parametrize(("symbols", "named"), NO_SYMBOLS, ids=_ids)
def test_dump_without_its_symbols(
    symbols: tuple[str, ...], named: str, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("-c", str(files["unpacked"]), *(word.format(**files) for word in symbols), "check")
    line = _error(capsys, 3, *argv)
    assert named.format(**files) in line
    # The package to install is named, whatever was given.
    assert "linux-image-6.1.0-56-cloud-amd64-dbg" in line


def test_symbols_of_another_build_are_told_by_their_build_id(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        StoredDump(VMCORES / "7.3-empty").files() as stored,
        StoredDump(VMCORES / "6.1-empty").program() as prog,
    ):
        line = _error(
            capsys, 3, "-c", str(files["unpacked"]), "-s", str(stored / "vmlinux"), "check"
        )
        wanted = prog.main_module().build_id
        other = drgn.Program(drgn.host_platform).extra_module("other", create=True)
        other.try_file(stored / "vmlinux", force=True)
    assert wanted
    assert other.build_id
    assert wanted != other.build_id
    assert f"vmlinux (build ID {other.build_id.hex()}): not the debugging symbols of" in line
    assert f"(build ID {wanted.hex()}): give the vmlinux of the same build" in line


@pytest.fixture
def whole() -> Iterator[Path]:
    """An export, with its own vmlinux."""
    with StoredDump(VMCORES / "6.1-empty").files() as directory:
        yield directory


def test_vmlinux_that_is_cut_off_is_of_the_right_build(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = (whole / "vmlinux").read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(contents[: len(contents) * 3 // 4])
    line = _error(capsys, 3, "-c", str(whole / "vmcore"), "-s", str(cut), "check")
    assert f"{cut} (of the right build, but stripped or cut off): not the debugging" in line
    assert line.count("build ID") == 1


@pytest.mark.parametrize("module", [gzip, lzma, bz2])
def test_compressed_dump_is_to_be_unpacked(
    module: ModuleType, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packer = {gzip: "gzip", lzma: "xz", bz2: "bzip2"}[module]
    packed = tmp_path / "packed"
    packed.write_bytes(module.compress((whole / "vmcore").read_bytes()))
    line = _error(capsys, 2, "-c", str(packed), "check")
    assert line.endswith(f"{packed}: it is compressed with {packer}: unpack it first")
    # But libelf can read a vmlinux that is compressed.
    packed.write_bytes(module.compress((whole / "vmlinux").read_bytes()))
    assert cli.main(["-c", str(whole / "vmcore"), "-s", str(packed), "pgmaps"]) == 0
    capsys.readouterr()
    packed.write_bytes(module.compress(b"no ELF file"))
    line = _error(capsys, 3, "-c", str(whole / "vmcore"), "-s", str(packed), "check")
    assert f"{packed} (no build ID, no DWARF)" in line


def test_dump_and_vmlinux_that_are_swapped(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vmcore, vmlinux = str(whole / "vmcore"), str(whole / "vmlinux")
    line = _error(capsys, 2, "-c", vmlinux, "-s", vmcore, "check")
    assert line.endswith(": give the dump to -c, and its vmlinux to -s")
    assert f"{vmcore} (a dump, which -c takes)" in _error(
        capsys, 3, "-c", vmcore, "-s", vmcore, "check"
    )


@pytest.mark.parametrize("architecture", ["aarch64", "i386", "s390x"])
def test_architecture_that_the_dump_contradicts(
    architecture: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _error(capsys, 2, "--architecture", architecture, "-c", str(whole), "check")
    assert f"says that it is of x86_64, not {architecture}: remove --architecture" in line
    # What the dump itself says may be said.
    assert cli.main(["--architecture", "x86_64", "-c", str(whole), "pgmaps"]) == 0


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")]
)
def test_running_kernel_that_cannot_be_read(error: OSError) -> None:
    line = live._why_not_opened(error)
    assert str(error.strerror) in line
    assert "try as root" in line


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeKernel]:
    """Let ``zonedev`` open the last synthetic kernel of this list instead of a dump."""
    kernels: list[FakeKernel] = [collision("6.1")]
    open_instead(monkeypatch, lambda: kernels[-1].program())
    return kernels


ARGUMENTS = [
    (("check", "-o", "{deep}"), "{deep}"),
    (("ranges", "--map", "-o", "map.png"), "map.png"),
    (("pfn", "nosuch"), "'nosuch'"),
    (("pfn", "0x10000000000"), "0x10000000000"),
    (("pfn", "0x1000", "--as", "page"), "0x1000"),
    (("export", "{directory}"), "{directory}"),
    (("export", "{text}/below"), "{text}/below"),
]


@pytest.mark.parametrize(("argv", "named"), ARGUMENTS, ids=_ids)
def test_arguments_that_fit_no_kernel(
    opened: list[FakeKernel],
    argv: tuple[str, ...],
    named: str,
    files: Files,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = _error(capsys, 2, *(word.format(**files) for word in argv))
    assert named.format(**files) in line


@pytest.mark.parametrize("command", ["check", "ranges", "pgmaps", "walkers"])
def test_kernel_without_zone_device(
    opened: list[FakeKernel], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened[-1].variables.pop("pgmap_array")
    assert "CONFIG_ZONE_DEVICE" in _error(capsys, 3, command)


@pytest.mark.parametrize("command", ["check", "ranges", "sections", "pgmaps"])
def test_kernel_without_sparsemem(
    opened: list[FakeKernel], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened[-1].variables.pop("mem_section")
    assert "CONFIG_SPARSEMEM" in _error(capsys, 3, command)


@pytest.mark.parametrize(
    "error",
    [
        LookupError("could not find 'struct folio'"),
        drgn.FaultError("cannot read", 0x1000),
    ],
)
def test_debugging_information_or_memory_that_is_missing(
    opened: list[FakeKernel],
    error: Exception,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(args: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    named = "struct folio" if isinstance(error, LookupError) else "0x1000"
    assert named in _error(capsys, 3, "check")


def test_generator_of_completion_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(parser: object, shell: str) -> str:
        raise UsageError("completion is generated by shtab, which is not installed: pip install x")

    monkeypatch.setattr(completion, "completion_script", fail)
    assert "shtab" in _error(capsys, 2, "completion", "fish")


PARSED = [
    (("check", "--fail-on", "nonsense"), "nonsense"),
    (("check", "--fail-on", "case2"), "case3"),
    (("check", "--format", "yaml"), "json"),
    (("sections", "x"), "hexadecimal numbers start with 0x"),
    (("pfn", "1", "--as", "frame"), "phys"),
    (("export", "out", "--margin", "-5"), "-5"),
    (("nosuch",), "check"),
    ((), "zonedev --help"),
    (("check", "-c", "vmcore"), "-c vmcore: options that select the program come before"),
    (("check", "--nosuch"), "--nosuch"),
    (("check", "--drgn"), "--drgn: it is for %zonedev, in drgn's REPL"),
    (("--pause", "check"), "--qemu"),
    (("-c", "", "check"), "-c/--core: it is empty: give a path"),
    (("--qemu", "", "check"), "--qemu: it is empty: give a path"),
    (("lab", "run", "-j", "0"), "'0'"),
    (("completion", "csh"), "bash"),
    (("walkers", "--walker", "nobody"), "nobody"),
]


@pytest.mark.parametrize(("argv", "named"), PARSED, ids=_ids)
def test_arguments_that_do_not_parse_show_the_usage(
    argv: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(argv)
    assert e.value.code == 2
    *usage, line = capsys.readouterr().err.splitlines()
    assert usage[0].startswith("usage: zonedev")
    assert re.match(r"zonedev[a-z ]*: error: ", line)
    assert named in line
