# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``export`` says of what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fakekernel import collision

from drgn_zonedev.export.write import ExportOptions, write_export
from drgn_zonedev.render.export import export_text


def _meta(*, all_memmap: bool) -> dict[str, Any]:
    return {
        "kernel": {"release": "6.1", "architecture": "x86_64"},
        "contents": {"bytes": 4096, "segments": 3, "memmap": [[0, 64], [100, 108]]},
        "options": {"all_memmap": all_memmap},
        "unreadable": [],
    }


def test_ram_that_is_not_in_it_is_named_with_the_option_that_includes_it() -> None:
    text = export_text(Path("out"), _meta(all_memmap=False))
    assert "72 struct pages" in text
    assert "not included: the struct pages of RAM, which --all-memmap includes" in text
    assert "not included" not in export_text(Path("out"), _meta(all_memmap=True))


@pytest.mark.parametrize("all_memmap", [False, True])
def test_what_was_written_is_described_so(tmp_path: Path, all_memmap: bool) -> None:
    # 1 GiB of RAM around the device.
    options = ExportOptions(all_memmap=all_memmap)
    done = write_export(collision("6.1").program(), tmp_path / "out", options)
    assert ("not included" in export_text(done.path, done.meta)) is not all_memmap
    pages = sum(end - start for start, end in done.meta["contents"]["memmap"])
    assert (pages == 0x40000) is all_memmap
