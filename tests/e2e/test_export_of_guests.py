# SPDX-License-Identifier: LGPL-2.1-or-later

"""Real guests, full of secrets: none of them gets into an export."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drgn import Program
from drgn.commands import run_command
from support.exports import check_json, open_export
from support.guests import Booted, boot_alone, each_guest, require_free, zonedev

from drgn_zonedev.export.write import ExportOptions, write_export
from drgn_zonedev.lab import SCENARIOS, Kernel, Scenario, fetch_kernel
from drgn_zonedev.lab.scenarios.steps import namespace
from drgn_zonedev.opening.core import open_dump

pytestmark = pytest.mark.qemu

SECRET = "Z0NEDEVSECRET"
KINDS = ("cmdline", "cache", "filename", "process", "environment", "symlink", "media")

# Symbolic links are short strings in slabs, among the kernel's own structures.
_HIDE = f"""
yes {SECRET}-cache | head -c 1000000 >/cached
for i in $(seq 500); do ln -s {SECRET}-symlink-$i /link-$i; done
>/{SECRET}-filename
VARIABLE={SECRET}-environment sh -c 'sleep 3600; : {SECRET}-process' &
"""

SCENARIO = Scenario(
    name="secrets",
    summary="fsdax-collision with secrets wherever a guest has any",
    kernel_args=(*SCENARIOS["fsdax-collision"].kernel_args, f"{SECRET}={SECRET}-cmdline"),
    modules=SCENARIOS["fsdax-collision"].modules,
    steps=(
        ("eval", _HIDE),
        namespace("fsdax"),
        ("wait_for", "/dev/pmem0"),
        ("eval", f"yes {SECRET}-media | head -c 1000000 >/dev/pmem0; sync"),
        # Among the structures that come after the device's, too.
        ("eval", f"for i in $(seq 500); do ln -s {SECRET}-symlink-$i /later-$i; done"),
    ),
)


@dataclass(frozen=True)
class Dumped:
    """A dump of the guest, and its kernel."""

    path: Path
    kernel: Kernel

    def program(self) -> Program:
        """Open it."""
        return open_dump(self.path, self.kernel.vmlinux)


@pytest.fixture(scope="module", params=["6.1", "7.3"])
def dumped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dumped]:
    kernel = fetch_kernel(request.param)
    with boot_alone(kernel, SCENARIO) as guest:
        path = guest.dump(tmp_path_factory.mktemp("secrets") / "dump.elf")
    yield Dumped(path, kernel)
    path.unlink()


def _holds(path: Path, text: bytes) -> bool:
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        return contents.find(text) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_guest_has_the_secret(dumped: Dumped, kind: str) -> None:
    assert _holds(dumped.path, f"{SECRET}-{kind}".encode())


@pytest.mark.parametrize(
    "options", [ExportOptions(), ExportOptions(all_memmap=True, margin=1 << 20)]
)
def test_export_has_no_secret(dumped: Dumped, options: ExportOptions, tmp_path: Path) -> None:
    prog = dumped.program()
    write_export(prog, tmp_path / "out", options)
    for path in (tmp_path / "out").iterdir():
        assert not _holds(path, SECRET.encode()), path.name
    assert check_json(open_export(tmp_path / "out")) == check_json(prog)


def test_names_of_devices_can_be_blanked(dumped: Dumped, tmp_path: Path) -> None:
    prog = dumped.program()
    write_export(prog, tmp_path / "named")
    write_export(prog, tmp_path / "blank", ExportOptions(blank_names=True))
    for name in (b"pfn0.", b"pmem0", b"namespace0.0"):
        assert not _holds(tmp_path / "blank" / "vmcore", name)
    assert _holds(tmp_path / "named" / "vmcore", b"pmem0")


def test_plain_drgn_opens_an_export(dumped: Dumped, tmp_path: Path) -> None:
    write_export(dumped.program(), tmp_path / "out")
    script = tmp_path / "script.py"
    script.write_text(
        "from drgn import *\n"
        "from drgn.helpers.linux import *\n"
        "assert len(list(for_each_present_section(prog))) == 8\n"
        "((_, entry), *_) = xa_for_each(prog['pgmap_array'].address_of_())\n"
        "pgmap = cast('struct dev_pagemap *', entry)\n"
        "page = pfn_to_page(prog, pgmap.ranges[0].start.value_() // 4096 + 0x2000)\n"
        "print(decode_page_flags(page), compound_head(page) == page)\n"
        "print(slab_object_info(pgmap).slab_cache.name.string_().decode())\n"
        "print(len(list(for_each_memory_block(prog))))\n"
        "assert follow_phys(prog['init_mm'].address_of_(), page) != 0\n"
    )
    files = ("-c", str(tmp_path / "out" / "vmcore"), "-s", str(tmp_path / "out" / "vmlinux"))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("drgn")), *files, "-q", str(script)],
        env={**os.environ, "DRGN_DISABLE_PLUGINS": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    flags, cache, blocks = done.stdout.splitlines()
    assert flags.endswith("True")
    assert "PG_reserved" in flags
    assert cache.startswith("kmalloc-")
    assert blocks == "7"


_MEASURE = """
import resource, sys, time
from drgn import Program
from drgn_zonedev.export.write import write_export
prog = Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
prog.type("struct page")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
write_export(prog, sys.argv[3])
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_export_is_quick_and_small(dumped: Dumped, tmp_path: Path) -> None:
    arguments = [str(dumped.path), str(dumped.kernel.vmlinux), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    seconds, kib = map(float, done.stdout.split())
    assert seconds < 5
    assert kib < 200 << 10


@each_guest([("6.12", "nvdimm-partial")])
def test_running_guest(booted: Booted, tmp_path: Path) -> None:
    source = booted.live.options
    require_free(booted.guest)
    assert zonedev(*source, "export", str(tmp_path / "out")).status == 0
    found = zonedev(*source, "check", "--only", "devices", "--format", "json").document
    files = ("-c", str(tmp_path / "out" / "vmcore"), "-s", str(tmp_path / "out" / "vmlinux"))
    exported = zonedev(*files, "check", "--only", "devices", "--format", "json").document
    for document in (found, exported):
        document["kernel"].pop("live")
        for pgmap in document["pgmaps"]:
            pgmap["ref"].pop("count")
    assert exported == found


def test_kmem_of_drgn_prints_the_same(
    dumped: Dumped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("drgn.commands._crash")
    source = dumped.program()
    write_export(source, tmp_path / "out")
    said = []
    for prog in (source, open_export(tmp_path / "out")):
        run_command(prog, "crash kmem -n")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert re.search(r"\bmemory0 .*ONLINE", said[1])
