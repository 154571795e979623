# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Make the guest's root file system: busybox, the needed modules, the script and its steps.

This takes a fraction of a second, so it is made for every guest and is never out of date.
"""

from __future__ import annotations

import gzip
import lzma
import shlex
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Callable

from drgn_zonedev.lab.host.boards import BOARDS
from drgn_zonedev.lab.host.errors import LabError, NotPossible
from drgn_zonedev.lab.host.tools import find_tool, run_tool
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.package_files import fetch_busybox
from drgn_zonedev.lab.machine.programs import compile_program
from drgn_zonedev.lab.machine.xfs import xfs_files
from drgn_zonedev.lab.scenarios import Scenario

__all__ = (
    "Entry",
    "base_modules",
    "binds_at_boot",
    "build_capture_initramfs",
    "build_initramfs",
    "cpio",
    "file_entry",
    "has_module",
    "is_static",
    "module_closure",
    "parse_modules_dep",
    "steps_script",
)

_BASE_MODULES = ("libnvdimm", "qemu_fw_cfg")

_GUEST_SCRIPT = Path(__file__).parents[1] / "guest" / "init"
_CAPTURE_SCRIPT = _GUEST_SCRIPT.with_name("capture")
_DIRECTORY, _FILE, _CHARACTER_DEVICE = 0o040000, 0o100000, 0o020000


@dataclass(frozen=True)
class Entry:
    """A file, directory or character device of a cpio archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file_entry(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Return the archive entry of an ordinary file."""
    return Entry(name, _FILE | permissions, data)


def _parents(names: Iterable[str]) -> list[str]:
    return sorted({str(parent) for name in names for parent in Path(name).parents} - {"."})


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Pack entries in the "newc" format that kernels unpack; missing parents are added."""
    entries = list(entries)
    named = {entry.name for entry in entries}
    directories = [Entry(name, _DIRECTORY | 0o755) for name in _parents(named) if name not in named]
    archive = bytearray()
    for number, entry in enumerate([*directories, *entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file, device, name size, sum
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device)
        header = "070701" + "".join(f"{field:08X}" for field in (*fields, len(name), 0))
        archive += _padded(header.encode() + name) + _padded(entry.data)
    return bytes(archive)


def _module_name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def parse_modules_dep(text: str) -> dict[str, tuple[str, ...]]:
    """Map a module's name to the paths of itself and of all it needs, from ``modules.dep``."""
    closures = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        closures[_module_name(path)] = (path, *needed.split())
    return closures


def module_closure(
    names: Iterable[str], closures: Mapping[str, tuple[str, ...]], builtin: Iterable[str]
) -> list[str]:
    """Return the paths of the modules in `names` and of all they need, each once, sorted."""
    present = {_module_name(path) for path in builtin}
    paths: set[str] = set()
    for name in names:
        if name in closures:
            paths.update(closures[name])
        elif name not in present:
            raise NotPossible(f"this kernel has no module {name}")
    return sorted(paths)


_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".zst": lambda data: run_tool("zstd", "-dcq", data=data),
}


def _plain(path: str) -> str:
    return path[: path.rindex(".")] if Path(path).suffix in _UNPACK else path


def _unpacked(path: Path) -> bytes:
    # busybox's modprobe may not support compression.
    data = path.read_bytes()
    return _UNPACK[path.suffix](data) if path.suffix in _UNPACK else data


def _builtin(modules: Path) -> str:
    try:
        return (modules / "modules.builtin").read_text()
    except FileNotFoundError:
        return ""


def binds_at_boot(kernel: Kernel, module: str) -> bool:
    """Return whether a driver is built in, and so binds its devices before any step."""
    if kernel.modules is None:
        return True
    return module in {_module_name(path) for path in _builtin(kernel.modules).split()}


def has_module(kernel: Kernel, name: str) -> bool:
    """Return whether a kernel has a module as a file."""
    if kernel.modules is None:
        return False
    return name in parse_modules_dep((kernel.modules / "modules.dep").read_text())


def base_modules(kernel: Kernel) -> tuple[str, ...]:
    """
    Return what a guest loads for every scenario. Without qemu_fw_cfg, it cannot tell QEMU its
    VMCOREINFO; kernels for machines without it do not have libnvdimm, either.
    """
    return _BASE_MODULES if BOARDS[kernel.architecture].has_vmcoreinfo else ()


def _module_entries(kernel: Kernel, names: Iterable[str]) -> list[Entry]:
    if kernel.modules is None:
        return []
    closures = parse_modules_dep((kernel.modules / "modules.dep").read_text())
    builtin = _builtin(kernel.modules)
    paths = module_closure(names, closures, builtin.split())
    directory = f"lib/modules/{kernel.release}"
    entries = []
    dependencies = []
    for path in paths:
        data = _unpacked(kernel.modules / path)
        entries.append(file_entry(f"{directory}/{_plain(path)}", data))
        needed = " ".join(_plain(other) for other in closures[_module_name(path)][1:])
        dependencies.append(f"{_plain(path)}: {needed}\n")
    entries.append(file_entry(f"{directory}/modules.dep", "".join(dependencies).encode()))
    # modprobe of a built-in module succeeds only if this file lists it.
    entries.append(file_entry(f"{directory}/modules.builtin", builtin.encode()))
    return entries


def is_static(program: bytes) -> bool:
    """Return whether a 64-bit ELF program runs without shared libraries (it names no loader)."""
    if program[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    interpreter = 3
    types = (struct.unpack_from("<I", program, offset + i * size)[0] for i in range(count))
    return interpreter not in types


def _busybox(architecture: str) -> bytes:
    if architecture != "amd64":
        return fetch_busybox(architecture).read_bytes()
    program = Path(find_tool("busybox")).read_bytes()
    if not is_static(program):
        raise LabError("busybox needs shared libraries: apt-get install busybox-static")
    return program


def steps_script(scenario: Scenario) -> str:
    """Return the scenario's modules and steps as lines for the guest script."""
    load = [("load", *scenario.modules)] if scenario.modules else []
    return "".join(f"{shlex.join(command)}\n" for command in (*load, *scenario.steps))


def _user_space(script: Path, architecture: str) -> list[Entry]:
    return [
        *(Entry(name, _DIRECTORY | 0o755) for name in ("dev", "proc", "sys", "tmp")),
        Entry("dev/console", _CHARACTER_DEVICE | 0o600, device=(5, 1)),
        file_entry("bin/busybox", _busybox(architecture), 0o755),
        file_entry("init", script.read_bytes(), 0o755),
    ]


def _file_system(mib: int) -> list[Entry]:
    return [file_entry(name, data) for name, data in xfs_files(mib).items()] if mib else []


def build_capture_initramfs(kernel: Kernel, modules: Iterable[str], files: list[Entry]) -> bytes:
    """Return the initramfs of the kernel that takes over from one that panics."""
    return cpio(
        [
            *_user_space(_CAPTURE_SCRIPT, kernel.architecture),
            *files,
            *_module_entries(kernel, modules),
        ]
    )


def build_initramfs(
    kernel: Kernel, scenario: Scenario, modules: Mapping[str, Path] = MappingProxyType({})
) -> bytes:
    """
    Return the initramfs that makes `kernel` go through the steps of `scenario`.

    :param modules: what was built for it, by names; ``zonedev_truth`` is asked after the steps
    """
    board = BOARDS[kernel.architecture]
    return cpio(
        [
            *(file_entry(f"{name}.ko", path.read_bytes()) for name, path in modules.items()),
            *_user_space(_GUEST_SCRIPT, kernel.architecture),
            *(
                file_entry(f"bin/{name}", compile_program(name, board.compiler), 0o755)
                for name in scenario.programs
            ),
            *(file_entry(name, path.read_bytes(), 0o755) for name, path in scenario.files.items()),
            *_file_system(scenario.xfs_mib),
            file_entry("steps", steps_script(scenario).encode()),
            file_entry("base_modules", " ".join(base_modules(kernel)).encode()),
            *_module_entries(kernel, (*base_modules(kernel), *scenario.modules)),
        ]
    )
