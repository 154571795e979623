# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Blank names
-----------

Blanks the names in an export, and checks that none is left. Each byte of a name that the analysis
reads is replaced by ``x``. Then everything that was written is searched for all known names.
Constants of the kernel are allowed: strings in its image and its modules, and the identifiers of
its debugging information.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from drgn import FaultError, Program

from drgn_zonedev.export.elf_writer import Encoding
from drgn_zonedev.export.name_search import occurrences, pointed_to
from drgn_zonedev.export.private_names import (
    PrivateName,
    constant_names,
    image,
    is_public,
    other_names,
    printed_names,
)
from drgn_zonedev.kernel.resource import iomem_resources
from drgn_zonedev.model import Report
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.util.strings import printable

__all__ = ("NameLeftError", "require_no_names")

# A name this short may also be a number, and the memory map has every number.
_NUMBER_SIZE = 4

# Modules are within 2 GiB of the kernel on architectures where code must be near it.
_MAX_MODULES = 1 << 31

_IDENTIFIER = re.compile(rb"[A-Za-z_]\w*")

# A word with letters and other characters, which our own sentences cannot contain.
_DISTINCT = re.compile(r"(?=.*[A-Za-z])(?=.*[^A-Za-z_ ]).{4,}", re.DOTALL)


class NameLeftError(Exception):
    """A name is left in an export, or the analysis shows one whose place in memory is not known."""


def require_no_names(
    source: Program,
    recorded: Program,
    report: Report,
    names: Iterable[PrivateName],
    directory: Path,
) -> None:
    """
    Make sure that no name is left in what was written.

    :param recorded: The program that reads what is exported.
    :param report: The analysis of that program.
    :param names: The names that were found before, and blanked.
    :raises NameLeftError: for the first one that is left
    """
    for text in _shown(recorded, report):
        if not is_public(text.encode()) and text not in constant_names(source):
            raise NameLeftError(f"cannot find where the name {text} is stored")
    known = {n.text: n for n in (*other_names(source), *printed_names(source), *names)}
    own = {n.address for n in (*known.values(), *names)}
    _search_memory(source, directory / "vmcore", known, own)
    _search_vmlinux(directory / "vmlinux", known)
    _search_meta(directory / "meta.json", known)


def _shown(prog: Program, report: Report) -> Iterator[str]:
    for pgmap in report.pgmaps:
        if pgmap.device is not None:
            yield pgmap.device.name
            yield pgmap.device.disk or ""
            yield pgmap.device.region_device or ""
    try:
        yield from (resource.name for resource in iomem_resources(prog).found)
    except (FaultError, LookupError):
        return


def _left_error(name: PrivateName, where: str) -> NameLeftError:
    text = printable(name.text.decode(errors="backslashreplace"))
    return NameLeftError(f"{text}, the name of {name.of}, is still {where}")


def _search_memory(
    prog: Program, vmcore: Path, known: dict[bytes, PrivateName], own: set[int]
) -> None:
    assert prog.platform is not None
    encoding = Encoding(prog.platform)
    constants = (image(prog), *_modules(prog))
    found = [
        (o.address, known[o.text])
        for o in occurrences(vmcore, encoding, known)
        if o.address in own or not any(start <= o.address < end for start, end in constants)
    ]
    short = {at for at, name in found if len(name.text) <= _NUMBER_SIZE and at not in own}
    led_to = pointed_to(vmcore, encoding, short) if short else set()
    for at, name in found:
        if at not in short or at in led_to:
            raise _left_error(name, f"in memory at {at:#x}")


def _modules(prog: Program) -> Iterator[Span]:
    # Since Linux kernel commit ac3b43283923 ("module: replace module_layout with
    # module_memory") (in v6.4), mod_tree has separate bounds for data in vmalloc() memory.
    for prefix in ("", "data_"):
        try:
            tree = prog["mod_tree"]
            start = tree.member_(prefix + "addr_min").value_()
            end = tree.member_(prefix + "addr_max").value_()
        except (LookupError, FaultError):
            continue
        if start < end <= start + _MAX_MODULES:
            yield start, end


def _search_vmlinux(vmlinux: Path, known: dict[bytes, PrivateName]) -> None:
    for text in sorted(known.keys() & set(vmlinux.read_bytes().split(b"\0"))):
        if not _IDENTIFIER.fullmatch(text):
            raise _left_error(known[text], "in vmlinux")


def _search_meta(meta: Path, known: dict[bytes, PrivateName]) -> None:
    texts = list(_strings(json.loads(meta.read_bytes())))
    for name in known.values():
        text = printable(name.text.decode(errors="backslashreplace"))
        whole = re.compile(rf"(?<![\w.:-]){re.escape(text)}(?![\w:-])")
        if text in texts or (_DISTINCT.fullmatch(text) and any(map(whole.search, texts))):
            raise _left_error(name, "in meta.json")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
