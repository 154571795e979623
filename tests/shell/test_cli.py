# SPDX-License-Identifier: LGPL-2.1-or-later

"""What people meet first: options, exit statuses, and errors that say what to do."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import drgn
import pytest
from support.fakekernel import FakeKernel, collision, partial
from support.monitor import Monitor
from support.opening import open_instead
from support.processcore import write_process_core

from drgn_zonedev.commands import COMMANDS
from drgn_zonedev.commands.base import Status
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.findings import KINDS
from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[2] / "vmcores"
ET_CORE, EM_X86_64, PT_NOTE = 4, 62, 4


def _zonedev(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drgn_zonedev", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _one_line_error(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("zonedev: error: ")
    return line


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeKernel]:
    """Let ``zonedev`` open the last synthetic kernel of this list instead of a dump."""
    kernels: list[FakeKernel] = [collision("6.1")]
    open_instead(monkeypatch, lambda: kernels[-1].program())
    return kernels


def test_missing_core_is_one_clear_line(tmp_path: Path) -> None:
    missing = tmp_path / "vmcore"
    error = _one_line_error(_zonedev("-c", str(missing), "check"), 2)
    assert error.endswith(f"cannot open {missing}: No such file or directory: check the path")


def test_text_file_is_no_core(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no core at all\n")
    assert "not an ELF core file" in _one_line_error(_zonedev("-c", str(text), "check"), 2)


def test_directory_is_no_core(tmp_path: Path) -> None:
    assert "directory" in _one_line_error(_zonedev("-c", str(tmp_path), "check"), 2)


def test_core_of_a_process_is_no_kernel(tmp_path: Path) -> None:
    core = tmp_path / "core"
    write_process_core(core)
    assert "is not a Linux kernel" in _one_line_error(_zonedev("-c", str(core), "check"), 2)


@pytest.mark.parametrize("command", ["check", "ranges"])
def test_dump_that_is_cut_off_is_told_whatever_comes_of_it(command: str, tmp_path: Path) -> None:
    with StoredDump(VMCORES / "6.1-ghost").files() as files:
        whole = _zonedev("-c", str(files), command)
        vmcore = tmp_path / "vmcore"
        size = vmcore.write_bytes((files / "vmcore").read_bytes()[:-1]) + 1
        cut = _zonedev("-c", str(vmcore), "-s", str(files / "vmlinux"), command)
    assert "cut off" not in whole.stderr
    (line,) = (line for line in cut.stderr.splitlines() if "cut off" in line)
    assert f"{vmcore} is cut off: it ends at {size - 1} of {size} bytes" in line
    assert cut.returncode == whole.returncode


def test_missing_socket_is_one_clear_line(tmp_path: Path) -> None:
    error = _one_line_error(_zonedev("--qemu", str(tmp_path / "qmp"), "check"), 2)
    assert "is QEMU running" in error


def test_socket_that_nobody_listens_on_is_one_clear_line(tmp_path: Path) -> None:
    address = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(address))
    assert "Connection refused" in _one_line_error(_zonedev("--qemu", str(address), "check"), 2)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--bogus",),
        ("-c",),
        ("nosuch",),
        ("-c", "x", "--qemu", "y", "check"),
        ("-c", "x", "--pause", "check"),
        ("check", "--fail-on", "nonsense"),
        ("check", "--fail-on", "case2"),
        ("check", "--format", "yaml"),
        ("pfn",),
        ("pfn", "1", "--as", "frame"),
        ("sections", "x"),
    ],
    ids=" ".join,
)
def test_usage_errors_are_status_2_without_a_traceback(args: tuple[str, ...]) -> None:
    done = _zonedev(*args)
    assert done.returncode == 2
    assert "usage: zonedev" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [("--help",), ("check", "--help"), ("lab", "run", "--help")])
def test_help_is_status_0(args: tuple[str, ...]) -> None:
    done = _zonedev(*args)
    assert done.returncode == 0
    assert "usage: zonedev" in done.stdout


def test_module_of_the_command_line_is_the_command_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "drgn_zonedev.shell.cli",
        "-c",
        str(tmp_path / "none"),
        "check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert str(tmp_path / "none") in _one_line_error(done, 2)


def test_version_names_drgn_too() -> None:
    assert f"(drgn {drgn.__version__})" in _zonedev("--version").stdout


def test_kernel_without_zone_device_cannot_be_judged(
    opened: list[FakeKernel], capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = collision("6.1")
    kernel.variables.pop("pgmap_array")
    opened.append(kernel)
    assert cli.main(["check"]) == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert "CONFIG_ZONE_DEVICE" in output.err
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [
        ("error", 0),
        ("warning", 1),
        ("info", 1),
        ("case5", 1),
        ("case3", 0),
        ("case4", 0),
        ("case3,case5", 1),
        ("case5-reserved", 1),
        ("ghost-pages", 0),
    ],
)
def test_fail_on_decides_the_exit_status(
    opened: list[FakeKernel], fail_on: str, status: int
) -> None:
    assert cli.main(["check", "--fail-on", fail_on]) == status


def test_injected_defect_is_status_1_by_default(
    opened: list[FakeKernel], capsys: pytest.CaptureFixture[str]
) -> None:
    opened[-1].poke_page_word(0x25000, 1, 0)
    assert cli.main(["check"]) == 1
    assert "error: device-page-pgmap [0x25000, 0x25001) 1 page:" in capsys.readouterr().out


def test_memmap_that_cannot_be_read_at_all_is_status_3(
    opened: list[FakeKernel], capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = partial("6.1")
    kernel.unmap_memmap(0x100000, 0x114000)
    opened.append(kernel)
    assert cli.main(["check", "--only", "devices", "--format", "json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert [r["case"] for r in document["ranges"] if r["pgmap"]] == [
        "reserved",
        "metadata",
        "device",
    ]
    assert document["summary"]["findings_by_severity"]["error"] == 0
    assert document["coverage"]["pages_unreadable"] == 0x14000


def test_output_file_that_cannot_be_written_is_a_usage_error(
    opened: list[FakeKernel], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["check", "-o", str(tmp_path / "no" / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


IN_FLIGHT = Path(__file__).parents[2] / "vmcores" / "6.1-init-in-flight"


@pytest.mark.parametrize(("fail_on", "status"), [("error", 0), ("case4", 1)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_reader_that_goes_away_does_not_change_the_status(
    fail_on: str, status: int, form: str
) -> None:
    # Like zonedev … | head -n 0: the pipe is closed before anything is written.
    read, write = os.pipe()
    os.close(read)
    words = ["-c", str(IN_FLIGHT), "check", "--fail-on", fail_on, "--format", form]
    done = subprocess.run(
        [sys.executable, "-m", "drgn_zonedev", *words],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.returncode == status
    assert b"rror" not in done.stderr


def _in_shell(words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m drgn_zonedev {words}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_standard_error_and_input_may_be_closed(closed: str) -> None:
    done = _in_shell(f"-c {IN_FLIGHT} check --fail-on case4 --format json {closed}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("{")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words",
    [f"-c {IN_FLIGHT} check", "lab list", "completion bash", "demo", "--version", "check --help"],
)
def test_answer_that_goes_nowhere_is_one_clear_line(words: str, closed: str) -> None:
    done = _in_shell(f"{words} {closed}")
    assert (done.returncode, done.stdout) == (2, "")
    if "2>&-" not in closed:
        assert _one_line_error(done, 2).startswith(
            "zonedev: error: cannot write standard output: Bad file descriptor"
        )


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_answer_in_a_file_needs_no_standard_output(closed: str, tmp_path: Path) -> None:
    words = f"-c {IN_FLIGHT} check --fail-on case4 -o {tmp_path / 'report'}"
    done = _in_shell(f"{words} {closed}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "case4" in (tmp_path / "report").read_text()


def test_mistake_of_ours_is_not_taken_for_a_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> drgn.Program:
        raise AssertionError("no such thing")

    monkeypatch.setattr(cli, "_open", fail)
    assert cli.main(["ranges"]) == 3
    *_, raised, line = capsys.readouterr().err.splitlines()
    assert raised == "AssertionError: no such thing"
    assert line.startswith("zonedev: error: this is a bug of zonedev: report it")


@pytest.mark.parametrize(
    "argv", ["-c {dump} ranges", "-c {dump} ranges --all", "completion bash", "lab list", "demo"]
)
def test_standard_output_that_is_full_is_one_clear_line(argv: str) -> None:
    dump = Path(__file__).parents[2] / "vmcores" / "6.1-empty"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "drgn_zonedev", *argv.format(dump=dump).split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("zonedev: error: cannot write standard output: No space left on device")


def test_memory_that_ends_like_a_pipe_is_not_taken_for_a_reader(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> drgn.Program:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli, "_open", fail)
    assert cli.main(["ranges"]) == 3
    assert "reading memory fails: Broken pipe" in capsys.readouterr().err


def test_guest_that_ends_while_it_is_paused_is_told(
    opened: list[FakeKernel], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = Monitor(tmp_path / "qmp")
    other.ends_after = "stop"
    assert cli.main(["--qemu", str(tmp_path / "qmp"), "--pause", "ranges"]) == 3
    output = capsys.readouterr()
    assert "qmp is lost: QEMU closed the connection" in output.err
    assert "[0x24000, 0x24002)" in output.out


def test_every_kind_of_finding_can_be_named_in_fail_on(opened: list[FakeKernel]) -> None:
    for slug in KINDS:
        assert cli.main(["check", "--fail-on", slug]) == (slug == "case5-reserved")


def test_lab_rejects_names_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "run", "4.19"]) == 2
    assert "'4.19'" in capsys.readouterr().err


# --- Exports, which bring their own symbols ---------------------------------------------


@pytest.mark.parametrize("part", ["", "dump.tar.xz"])
def test_export_is_opened_with_its_own_symbols(part: str) -> None:
    dump = Path(__file__).parents[2] / "vmcores" / "6.1-init-in-flight"
    done = _zonedev("-c", str(dump / part), "ranges", "--format", "json")
    assert done.returncode == 0, done.stderr
    expected = json.loads((dump / "expected.json").read_text(encoding="utf-8"))["ranges"]
    found = [[r["start_pfn"], r["end_pfn"], r["case"]] for r in json.loads(done.stdout)["ranges"]]
    assert [r for r in expected if r[2] == "initializing"] == [
        r for r in found if r[2] == "initializing"
    ]


def test_archive_that_is_no_export_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "other.tar.xz").write_bytes(b"no archive")
    error = _one_line_error(_zonedev("-c", str(tmp_path / "other.tar.xz"), "check"), 2)
    assert "other.tar.xz: this is not a packed export" in error


@pytest.mark.parametrize("command", ["check", "ranges", "sections", "walkers", "proposal"])
def test_no_kernel_has_no_sections(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    open_instead(monkeypatch, lambda: FakeKernel("6.1").program())
    assert cli.main([command]) == Status.NOT_JUDGED


@pytest.mark.parametrize("command", ["check", "ranges", "walkers", "proposal"])
def test_device_without_sections_is_no_kernel_either(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    kernel = FakeKernel("6.1")
    kernel.pgmap((0x24000, 0x30000), ref="exited")
    open_instead(monkeypatch, kernel.program)
    assert cli.main([command]) == Status.NOT_JUDGED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_what_waits_in_code_of_drgn(tmp_path: Path, number: signal.Signals) -> None:
    # A pipe without a writer: opening it waits, in C. One for a dump is refused.
    os.mkfifo(tmp_path / "pipe")
    with StoredDump(VMCORES / "6.1-empty").files() as files:
        core, symbols = str(files / "vmcore"), str(tmp_path / "pipe")
        process = subprocess.Popen(
            [sys.executable, "-m", "drgn_zonedev", "-c", core, "-s", symbols, "check"],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL) and None,
        )
        time.sleep(1.5)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) in (-number, 128 + number)
        assert time.monotonic() - begun < 1
        assert process.stderr
        assert process.stderr.read() == b""


def test_export_has_no_btf_to_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    export = str(VMCORES / "6.1-empty")
    assert cli.main(["--types", "btf", "-c", export, "check"]) == Status.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is an export, which has a vmlinux but no BTF: remove --types btf")


@pytest.mark.parametrize(
    "words",
    [
        "check",
        "-c dump check --fail-on warning --fail-on case3 -q",
        "-c check ranges --map",
        "-c dump -s a -s b --types dwarf pfn 0x24400 --as pfn",
        "--qemu a:1 --pause pages --by order",
        "-kqc dump",
        "-k pins dax0.0",
        "pfn check",
    ],
)
def test_the_parser_of_one_command_says_what_that_of_all_says(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    def said(parse: Callable[[Sequence[str]], argparse.Namespace]) -> object:
        try:
            return vars(parse(words.split()))
        except SystemExit as e:
            return e.code, capsys.readouterr()

    assert said(cli._arguments) == said(lambda each: cli._parse(cli.make_parser(), each))


@pytest.mark.parametrize(
    "words",
    [
        "--format json check",
        "chekc",
        "check --formta json",
        "check -c dump",
        "--pause check",
        "check --format xml",
        "check check",
        "--help check",
        "-kh check",
        "check -h",
        "check --help",
        "check -vh",
        "-c check",
        "--version check",
    ],
)
def test_usage_and_help_are_those_of_all_commands(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    with pytest.raises(SystemExit) as short:
        cli._arguments(words.split())
    printed = capsys.readouterr()
    with pytest.raises(SystemExit) as whole:
        cli._parse(cli.make_parser(), words.split())
    assert (short.value.code, printed) == (whole.value.code, capsys.readouterr())
    assert printed.out or printed.err


def test_a_command_does_not_import_the_others() -> None:
    code = (
        "import sys; from drgn_zonedev.shell import cli; cli._arguments(['check']);"
        "print(*(m for m in sys.modules if m.startswith('drgn_zonedev.commands.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert "check" in modules
    assert modules.isdisjoint(set(COMMANDS) - {"check"})
