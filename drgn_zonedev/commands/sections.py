# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev sections``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    Status,
    UsageError,
    number,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_of_kernel_code, write_code
from drgn_zonedev.render.screen import Screen
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drgn import Program
    from drgn.commands import DrgnCodeBuilder

__all__ = ("SECTIONS",)


_ARGUMENTS = (
    *output_arguments(),
    Argument("nr", metavar="NR", type=number, nargs="*", help="show only these sections"),
)


def _sections(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classification.facts import kernel_facts
    from drgn_zonedev.classification.section_rows import section_rows
    from drgn_zonedev.render import as_json, as_text

    prog = session.prog
    kernel = kernel_facts(prog)
    _require_sections(prog, args.nr)
    rows = [row for row in section_rows(prog) if not args.nr or row.nr in args.nr]
    found = {row.nr for row in rows}
    absent = [f"section {nr} is not present" for nr in dict.fromkeys(args.nr) if nr not in found]

    def text(screen: Screen | None) -> str:
        if absent and not rows:
            return "\n".join(absent)
        return "\n".join([as_text.sections_text(kernel, rows, screen=screen), *absent])

    print_result(
        args,
        text,
        lambda: as_json.sections_document(kernel, rows),
    )
    # Every kernel has sections: none found means that they could not be read.
    return Outcome(rows, Status.OK if rows or args.nr else Status.NOT_JUDGED)


def _require_sections(prog: Program, numbers: Sequence[int]) -> None:
    from drgn_zonedev.kernel.mmzone import sparsemem_geometry

    geometry = sparsemem_geometry(prog)
    last = (geometry.max_pfn - 1) // geometry.pages_per_section
    for nr in numbers:
        if not 0 <= nr <= last:
            raise UsageError(
                f"{nr} is not a section number on this machine: give one from 0 to {last}"
            )


def _sections_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    condition = f" if row.nr in {args.nr!r}" if args.nr else ""
    code = f"sections = [row for row in section_rows(){condition}]\n"
    write_code(builder, code, "drgn_zonedev.classification.section_rows:section_rows")
    print_of_kernel_code(builder, args, "sections")


SECTIONS = Command(
    "sections",
    "show sections, their flags and subsections",
    _ARGUMENTS,
    _sections,
    DrgnCode(_sections_code, frozenset({"nr"})),
)
