# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pins``"""

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
    not_empty,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_value_code, write_code
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.page_users.pins import Pins

__all__ = ("PINS",)


_ARGUMENTS = (
    *output_arguments(),
    Argument(
        "what",
        metavar="DEVICE|PGMAP|PFN",
        type=not_empty,
        nargs="?",
        help="the name of a device or its disk (dax0.0, pmem0), or the address of its "
        "struct dev_pagemap, for all of its pages; or one page, as pfn takes it "
        "(default: all devices)",
    ),
    Argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="take the number as a PFN, a physical address or the address of a struct page, "
        "instead of guessing",
    ),
)


def _pins(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.page_users.find_pins import find_pins
    from drgn_zonedev.render.pins import pins_document, pins_text

    try:
        pins = find_pins(session.prog, args.what, args.kind)
    except ValueError as e:
        raise UsageError(str(e)) from e
    print_result(args, lambda screen: pins_text(pins, screen=screen), lambda: pins_document(pins))
    return Outcome(pins, _status(pins))


def _status(pins: Pins) -> Status:
    if pins.is_kept:
        return Status.FINDINGS
    return Status.NOT_JUDGED if pins.gaps else Status.OK


def _pins_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    arguments = ", ".join(repr(value) for value in (args.what, args.kind) if value)
    write_code(builder, f"pins = find_pins({arguments})\n", "drgn_zonedev:find_pins")
    print_value_code(builder, args, "pins", "drgn_zonedev.render.pins")


PINS = Command(
    "pins",
    "show which pages of devices are used, by whom, and who waits for that to end",
    _ARGUMENTS,
    _pins,
    DrgnCode(_pins_code, frozenset({"what", "kind"})),
)
