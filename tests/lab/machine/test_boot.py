# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, Guest, Kernel, LabError, boot
from drgn_zonedev.lab.host.errors import GuestEndedError, NotPossible
from drgn_zonedev.lab.kernels.custom_kernel import OWN
from drgn_zonedev.lab.machine import boot as guest
from drgn_zonedev.lab.machine import qemu
from drgn_zonedev.lab.machine.boot import vmcoreinfo_in

NONE = Path("/none")
KERNEL = Kernel("6.1", "6.1.0-56", "1", NONE, NONE, NONE, (), NONE)
SCENARIO = SCENARIOS["fsdax-collision"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where guests have their files; nothing needs to be installed."""
    monkeypatch.setattr(guest, "check_host", lambda architecture: None)
    monkeypatch.setattr(guest, "_check_possible", lambda kernel, scenario: None)
    monkeypatch.setattr(guest, "build_initramfs", lambda kernel, scenario, truth: b"")
    monkeypatch.setattr(guest, "_work_directory", lambda: Path(tempdir(tmp_path)))
    monkeypatch.setattr(qemu, "find_tool", lambda program: "/usr/bin/setpriv")
    return tmp_path


def tempdir(parent: Path) -> Path:
    directory = parent / str(len(list(parent.iterdir())))
    directory.mkdir()
    return directory


def pretend_qemu(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run a shell script in place of QEMU, in the guest's directory."""

    def command(kernel: Kernel, scenario: object, work: Path, **options: object) -> list[str]:
        return ["/bin/sh", "-c", f"cd {work}; {script}"]

    monkeypatch.setattr(guest, "qemu_command", command)


READY = "printf '== begin uname\\n6.1.0-56\\n== end uname\\n== ready\\n' >facts.txt; exec sleep 60"


def test_a_ready_guest_has_facts_and_leaves_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, READY)
    with boot(KERNEL, SCENARIO) as running:
        assert running.facts == {"uname": "6.1.0-56"}
        assert Path(f"/proc/{running.pid}").exists()
    assert not Path(f"/proc/{running.pid}").exists()
    assert list(work.iterdir()) == []


def test_an_exception_in_the_body_ends_the_guest(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, READY)
    seen: list[Guest] = []

    def interrupted() -> None:
        with boot(KERNEL, SCENARIO) as running:
            seen.append(running)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not Path(f"/proc/{seen[0].pid}").exists()
    assert list(work.iterdir()) == []


def ends(pid: int) -> bool:
    """Tell whether a process ends within a while; whoever inherits it may not bury it at once."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_a_killed_caller_takes_its_guest_along(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from drgn_zonedev.lab.machine.qemu import running
with running(["/bin/sleep", "60"], Path({str(tmp_path)!r})) as process:
    print(process.pid, flush=True)
    while Path(f"/proc/{{process.pid}}/comm").read_text() != "sleep\\n":
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        timeout=20,
        check=False,
        env={"PYTHONPATH": str(Path(guest.__file__).parents[3]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == -9
    assert ends(int(done.stdout))


def test_a_guest_that_does_not_boot_is_started_once_more_visibly(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, "echo 'Kernel panic' >console.log")
    lines: list[str] = []
    with (
        pytest.raises(LabError, match=r"panicked or rebooted; its console is kept in .*\n.*panic"),
        boot(KERNEL, SCENARIO, progress=lines.append),
    ):
        pytest.fail("it never boots")
    assert sum(line.startswith("booting") for line in lines) == 2
    assert lines[1].endswith("\nstarting the guest once more")
    assert sorted(path.name for path in work.rglob("console.log")) == ["console.log"] * 2


def test_a_guest_that_hangs_is_given_up(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_qemu(monkeypatch, "exec sleep 60")
    with (
        pytest.raises(LabError, match="not ready within 0 s"),
        boot(KERNEL, SCENARIO, timeout=0.2, attempts=1),
    ):
        pytest.fail("it never boots")


def test_a_guest_that_gave_up_is_not_tried_again(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, "echo '== failed bind region0' >facts.txt")
    lines: list[str] = []
    with (
        pytest.raises(LabError, match="gave up: bind region0"),
        boot(KERNEL, SCENARIO, progress=lines.append),
    ):
        pytest.fail("it gave up")
    assert len(lines) == 1


def test_what_qemu_complains_of_is_passed_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_qemu(monkeypatch, "echo 'bad option' >&2; exit 1")
    with (
        pytest.raises(LabError, match=r"^QEMU failed: bad option$"),
        boot(KERNEL, SCENARIO),
    ):
        pytest.fail("it was never started")
    assert list(work.iterdir()) == []


def test_what_a_guest_prints_cannot_command_the_terminal(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, "printf '\\033[2Jboo' >console.log")
    with (
        pytest.raises(LabError) as caught,
        boot(KERNEL, SCENARIO, attempts=1),
    ):
        pytest.fail("it never boots")
    assert "\033" not in str(caught.value)
    assert "?[2Jboo" in str(caught.value)


def test_a_guest_that_passes_its_breakpoint_by_is_noticed_at_once(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_qemu(monkeypatch, READY)
    system_map = work.with_name("System.map")
    system_map.write_text("ffffffff81000000 T some_function\n")
    kernel = dataclasses.replace(KERNEL, system_map=system_map)
    scenario = dataclasses.replace(SCENARIO, breakpoint="some_function")
    with (
        pytest.raises(LabError, match=r"went through its steps without some_function\(\)"),
        boot(kernel, scenario),
    ):
        pytest.fail("it did not stop")


def test_too_little_memory_is_refused() -> None:
    pytest.importorskip("qemu.qmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guest, "find_tool", lambda program: program)
        with (
            pytest.raises(LabError, match="needs 1024 MiB of memory, not 512"),
            boot(KERNEL, SCENARIO, memory_mib=512),
        ):
            pytest.fail("the scenarios' memory does not exist")


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(LabError, match="unknown accelerator 'warp'"):
        qemu.accelerator("warp")


def test_kvm_is_not_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "kvm_works", lambda: False)
    assert qemu.accelerator("auto") == "tcg,thread=multi"
    with pytest.raises(LabError, match="KVM does not work"):
        qemu.accelerator("kvm")


def test_what_a_panic_began_with_is_shown_with_its_end(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["BUG: unable to handle page fault", *("trace" for _ in range(40)), "Kernel panic"]
    script = "printf '%s\\n' " + " ".join(map(repr, lines))
    pretend_qemu(monkeypatch, f"{script} >console.log; exit 0")
    with pytest.raises(GuestEndedError) as error, boot(KERNEL, SCENARIO, attempts=1):
        pytest.fail("it is not ready")
    text = str(error.value)
    assert text.count("trace") < 20
    assert text.index("BUG: unable to handle page fault") < text.index("Kernel panic")
    assert error.value.console.splitlines() == lines


def test_a_kernel_of_the_user_has_no_driver_for_device_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guest, "check_host", lambda architecture: None)
    own = Kernel(OWN, "7.9", "1", Path("/k"), Path("/k"), None, (), None)
    with (
        pytest.raises(NotPossible, match="only for the lab's own kernels"),
        guest.boot(own, SCENARIOS["device-coherent"]),
    ):
        pytest.fail("there is no such module")


def test_vmcoreinfo_is_what_its_note_describes() -> None:
    # As append_elf_note() writes it; behind it are zeros, up to the size of the note.
    text = b"OSRELEASE=6.12.0\nPAGESIZE=65536\n"
    note = struct.pack("<III12s", 11, len(text), 0, b"VMCOREINFO\0") + text
    assert vmcoreinfo_in(note + bytes(4096)) == text


def test_a_dump_that_qemu_writes_wrongly_is_not_taken(tmp_path: Path) -> None:
    kernel = dataclasses.replace(KERNEL, architecture="ppc64el")
    guest = Guest(kernel, SCENARIOS["empty"], "", tmp_path / "log", {}, tmp_path / "socket", 0)
    with pytest.raises(NotPossible, match="as if it was big-endian"):
        guest.dump(tmp_path / "dump.elf")
    assert list(tmp_path.iterdir()) == []
