# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The files that each command opens for writing, makes, moves or removes, as strace sees
them: those that it is for, a temporary directory, and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from drgn_zonedev.export.store import StoredDump, default_directory

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace (scripts/setup)")

# System calls that change a file, or make or remove one.
_CALLS = "open,openat,openat2,creat,truncate,ftruncate,rename,renameat,renameat2,unlink,unlinkat"
_CALLS += ",link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,chmod,fchmodat,chown,lchown,fchownat"
_CALLS += ",utimensat,setxattr,mknod,mknodat"
# A file for each thread, whose calls are not cut in two by those of others; and a process does not
# stop at other calls.
STRACE = (
    *("strace", "--seccomp-bpf", "-ff", "-y", "-qq"),
    *("-e", f"trace={_CALLS}", "-e", "signal=none"),
)
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_WRITES = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")
# With -y, a directory's descriptor says which one it is.
_PATH = re.compile(r'(?:<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"')

# Devices, which hold nothing.
_EVERYWHERE = ("/dev/null", "/dev/tty")


@dataclass(frozen=True)
class Allowed:
    """What a command may write: paths below the working directory, and in TMPDIR."""

    command: str
    paths: tuple[str, ...] = ()
    unpacks: bool = False


# What is written beside its place.
_BESIDE = r"\.zonedev-\w+"
_EXPORT = r"out(/(vmcore|vmlinux|meta\.json))?|\.out\.\w+(/(vmcore|vmlinux|meta\.json))?"

ALLOWED = [
    Allowed("-c d check"),
    Allowed("-c d check -j 2"),
    Allowed("-c d check -o out", ("out", _BESIDE)),
    Allowed("-c d check --format junit -o out", ("out", _BESIDE)),
    Allowed("-c d ranges"),
    Allowed("-c d ranges --map -o out.svg", (r"out\.svg", _BESIDE)),
    Allowed("-c d sections"),
    Allowed("-c d pgmaps --format json -o out", ("out", _BESIDE)),
    Allowed("-c d pfn 0"),
    Allowed("-c d walkers"),
    Allowed("-c d proposal"),
    Allowed("-c d export out", (_EXPORT,)),
    Allowed("-c d/vmcore -s d/vmlinux check"),
    Allowed("-c symbolic -s d/vmlinux check -o out", ("out", _BESIDE)),
    Allowed("-c packed.tar.xz check", unpacks=True),
    Allowed("-c packed.tar.xz export out", (_EXPORT,), unpacks=True),
    Allowed("demo", unpacks=True),
    Allowed("survey packed.tar.xz", (r"survey\.db(-journal)?",), unpacks=True),
    Allowed("completion bash"),
    Allowed("lab list"),
    # Refused: an output is an input.
    Allowed("-c d check -o d/vmcore"),
    Allowed("-c d check -o hard"),
    Allowed("-c d check --format junit -o symbolic"),
    Allowed("-c d/vmcore -s d/vmlinux pfn 0 -o d/vmlinux"),
    Allowed("-c d export d --force"),
    Allowed("-c symbolic -s d/vmlinux export d --force"),
    Allowed("lab run --kernel d/vmcore --vmlinux d/vmlinux --junit hard"),
    Allowed("lab run --kernel d/vmcore --vmlinux d/vmlinux --json d/vmlinux --dump d"),
    # Cannot be opened.
    Allowed("-c d/vmlinux check --format junit -o hard", ("hard", _BESIDE)),
    Allowed("-c missing check --format junit -o out", ("out", _BESIDE)),
    Allowed("-c missing check"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")
    stored = default_directory()
    assert stored
    with StoredDump(stored / "6.1-empty").files() as files:
        shutil.copytree(files, directory / "d")
    shutil.copy(stored / "6.1-empty/dump.tar.xz", directory / "packed.tar.xz")
    (directory / "symbolic").symlink_to("d/vmcore")
    (directory / "tmp").mkdir()
    return directory


def written(logs: Path) -> Iterator[str]:
    """Get the paths that were written, made, moved or removed."""
    lines = (line for log in logs.iterdir() for line in log.read_text().splitlines())
    for line in lines:
        found = _CALL.match(line)
        if not found or int(found[3]) < 0:
            continue
        if found[1].startswith("open") and not _WRITES.search(found[2]):
            continue
        yield from (os.path.join(*pair) for pair in _PATH.findall(found[2]))


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda allowed: allowed.command)
def test_files_that_a_command_writes(work: Path, tmp_path: Path, allowed: Allowed) -> None:
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "hard").unlink(missing_ok=True)
    os.link(work / "d/vmcore", work / "hard")
    command = [*STRACE, "-o", str(tmp_path / "log")]
    command += [sys.executable, "-B", "-m", "drgn_zonedev", *allowed.command.split()]
    env = {**os.environ, "TMPDIR": str(work / "tmp"), "HOME": str(work), "OMP_NUM_THREADS": "1"}
    before = {path: path.read_bytes() for path in (work / "d").iterdir()}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    patterns = [re.compile(re.escape(f"{work}/") + path) for path in allowed.paths]
    patterns += [re.compile(re.escape(path)) for path in _EVERYWHERE]
    patterns += [re.compile(re.escape(f"{work}/tmp/") + ".*")] if allowed.unpacks else []
    paths = {os.path.join(work, path) for path in written(tmp_path)}
    odd = {p for p in paths if not any(pattern.fullmatch(p) for pattern in patterns)}
    assert not odd
    assert {path: path.read_bytes() for path in (work / "d").iterdir()} == before


def test_the_log_is_understood(tmp_path: Path) -> None:
    # Otherwise, nothing would ever be found in it.
    code = (
        "import os; open('a', 'w'); os.rename('a', 'b'); os.mkdir('c'); open('b');"
        "os.unlink('d', dir_fd=os.open('.', os.O_RDONLY))"
    )
    logs, work = tmp_path / "logs", tmp_path / "work"
    logs.mkdir()
    work.mkdir()
    command = [*STRACE, "-o", str(logs / "log"), sys.executable, "-B", "-c", code]
    (work / "d").write_text("")
    subprocess.run(command, cwd=work, check=True)
    found = {os.path.join(work, path) for path in written(logs)}
    assert found == {str(work / name) for name in "abcd"}
