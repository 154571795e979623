# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which kernel a dump is of."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from support.cellar import copy_stored, stored, unpack_stored
from support.dumpfiles import Machine, write_kdump

from drgn_zonedev.fleet.dumped_kernel import dumped_kernel
from drgn_zonedev.fleet.find import Found, find_dumps
from drgn_zonedev.vmcore.vmcoreinfo_words import UNNAMED, DumpedKernel


def find(path: Path) -> Found:
    (found,) = find_dumps([str(path)], print)
    return found


def test_export_is_of_the_kernel_that_it_was_made_from(tmp_path: Path) -> None:
    packed = copy_stored("7.2-ghost", tmp_path / "x.tar.xz")
    with tarfile.open(stored("7.2-ghost")) as tar:
        member = tar.extractfile("meta.json")
        assert member
        said = json.load(member)["kernel"]
    for path in (packed, unpack_stored("7.2-ghost", tmp_path / "d")):
        kernel = dumped_kernel(find(path))
        assert (kernel.release, kernel.build_id) == (said["release"], said["build_id"])


def test_kdump(tmp_path: Path) -> None:
    path = write_kdump(Machine(), tmp_path / "vmcore")
    assert dumped_kernel(find(path)) == DumpedKernel("6.1.0-imagined")


def test_damaged_export_has_no_name(tmp_path: Path) -> None:
    packed = copy_stored("7.2-ghost", tmp_path / "x.tar.xz")
    packed.write_bytes(packed.read_bytes()[:5000])
    assert dumped_kernel(find(packed)) == UNNAMED
