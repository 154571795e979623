# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``export`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drgn_zonedev.export.archive import is_archive_name
from drgn_zonedev.render.as_text import size_text
from drgn_zonedev.util.strings import printable

__all__ = ("export_text",)


def export_text(path: Path, meta: dict[str, Any]) -> str:
    """Describe an export, and how to open it."""
    contents, kernel = meta["contents"], meta["kernel"]
    pages = sum(end - start for start, end in contents["memmap"])
    lines = [
        f"{path}: Linux {kernel['release']} ({kernel['architecture']}), "
        f"{size_text(contents['bytes'])} of memory in {contents['segments']} pieces, "
        f"with {pages} struct pages"
    ]
    options = meta["options"]
    if not options["all_memmap"]:
        other = "other RAM" if options.get("pfns") else "RAM"
        lines.append(f"not included: the struct pages of {other}, which --all-memmap includes")
    if meta["unreadable"]:
        lines.append(
            f"could not be read from the source: {len(meta['unreadable'])} (see meta.json)"
        )
    lines.append(f"open it with: {_opened_with(path)}")
    return "\n".join(printable(line) for line in lines)


def _opened_with(path: Path) -> str:
    # drgn itself does not unpack anything.
    if is_archive_name(path):
        return f"zonedev -c {path} COMMAND"
    return f"drgn -c {path}/vmcore -s {path}/vmlinux"
