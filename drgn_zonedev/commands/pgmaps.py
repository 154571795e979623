# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pgmaps``"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_of_kernel_code, write_code

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("PGMAPS", "write_pgmaps")

_logger = logging.getLogger("drgn_zonedev")


def _pgmaps(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classification.facts import kernel_facts
    from drgn_zonedev.classification.reading import take_snapshot, with_devices
    from drgn_zonedev.render import as_json, as_text

    prog = session.prog
    # Raises LookupError if the kernel was built without CONFIG_ZONE_DEVICE.
    prog["pgmap_array"]
    snapshot = take_snapshot(prog)
    kernel, pgmaps = kernel_facts(prog), with_devices(prog, snapshot.pgmaps)
    print_result(
        args,
        lambda screen: as_text.pgmaps_text(kernel, pgmaps, screen=screen),
        lambda: as_json.pgmaps_document(kernel, pgmaps),
    )
    if snapshot.stray_claims or snapshot.pgmap_array_gaps:
        _logger.warning("pgmap_array has unreadable or invalid entries: check shows them")
    return Outcome(pgmaps)


def write_pgmaps(builder: DrgnCodeBuilder, named_by: str = "with_devices") -> None:
    """Write code that gets the pgmaps, and the names of their devices by a function."""
    write_code(
        builder,
        "pgmaps = take_snapshot(get_default_prog()).pgmaps\n"
        f"pgmaps = {named_by}(get_default_prog(), pgmaps)\n",
        "drgn:get_default_prog",
        "drgn_zonedev.classification.reading:take_snapshot",
        f"drgn_zonedev.classification.reading:{named_by}",
    )


def _pgmaps_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_pgmaps(builder)
    print_of_kernel_code(builder, args, "pgmaps")


PGMAPS = Command(
    "pgmaps",
    "show every struct dev_pagemap",
    output_arguments(),
    _pgmaps,
    DrgnCode(_pgmaps_code, frozenset()),
)
