# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from drgn_zonedev.lab.kernels.unpack import destination, unpack_members

R = "7.3.4+deb13-cloud-amd64"
KERNEL = "kernel/drivers/nvdimm/nd_pmem.ko"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (f"./boot/vmlinuz-{R}", "vmlinuz"),
        (f"./boot/vmlinux-{R}", "vmlinuz"),
        (f"./usr/lib/modules/{R}/vmlinuz", "vmlinuz"),
        (f"./lib/modules/{R}/{KERNEL}", f"usr/lib/modules/{R}/{KERNEL}"),
        (f"./usr/lib/modules/{R}/{KERNEL}.xz", f"usr/lib/modules/{R}/{KERNEL}.xz"),
        (f"./usr/lib/modules/{R}/modules.order", f"usr/lib/modules/{R}/modules.order"),
        (f"./usr/lib/debug/boot/vmlinux-{R}", "vmlinux"),
        (f"./usr/lib/debug/lib/modules/{R}/vmlinux", "vmlinux"),
        (f"./usr/lib/debug/boot/System.map-{R}", "System.map"),
        (f"./usr/lib/debug/lib/modules/{R}/System.map", "System.map"),
        (f"./usr/lib/debug/lib/modules/{R}/{KERNEL}", "debug/nd_pmem.ko"),
        (f"./usr/lib/debug/lib/modules/{R}/kernel/drivers/dax/kmem.ko", "debug/kmem.ko"),
        (
            f"./usr/lib/debug/lib/modules/{R}/kernel/drivers/dax/device_dax.ko",
            "debug/device_dax.ko",
        ),
    ],
)
def test_every_layout_ends_in_the_same_place(member: str, expected: str) -> None:
    assert destination(member) == expected


@pytest.mark.parametrize(
    "member",
    [
        f"./boot/System.map-{R}",  # A stub: the real one comes with the debug symbols.
        f"./boot/config-{R}",
        "./usr/share/doc/linux-image/copyright",
        f"./usr/lib/debug/lib/modules/{R}/kernel/fs/ext4/ext4.ko",
        f"./usr/lib/modules/{R}/kernel/../../../../../x.ko",
        f"/boot/vmlinuz-{R}",
    ],
)
def test_everything_else_is_left_out(member: str) -> None:
    assert destination(member) is None


def test_links_are_left_out_and_files_are_written(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo(f"./usr/lib/debug/boot/vmlinux-{R}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        file = tarfile.TarInfo(f"./usr/lib/debug/lib/modules/{R}/vmlinux")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"\x7fELF"))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="r|") as archive:
        unpack_members(archive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vmlinux"]
    assert not (tmp_path / "vmlinux").is_symlink()
    assert (tmp_path / "vmlinux").read_bytes() == b"\x7fELF"
