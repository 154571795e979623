# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pgmaps``"""

from __future__ import annotations

import argparse
import logging

from drgn import Program

from drgn_zonedev.commands.base import (
    Command,
    Outcome,
    output_arguments,
    print_result,
)
from drgn_zonedev.render import as_json, as_text

__all__ = ("PGMAPS",)

_logger = logging.getLogger("drgn_zonedev")


def _pgmaps(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classification.facts import kernel_facts
    from drgn_zonedev.classification.reading import take_snapshot, with_devices

    snapshot = take_snapshot(prog)
    kernel, pgmaps = kernel_facts(prog), with_devices(prog, snapshot.pgmaps)
    print_result(
        args,
        lambda screen: as_text.pgmaps_text(kernel, pgmaps, screen=screen),
        lambda: as_json.pgmaps_document(kernel, pgmaps),
    )
    if snapshot.stray_claims or snapshot.pgmap_array_gaps:
        _logger.warning("pgmap_array holds what cannot be read or used: check says what and why")
    return Outcome(pgmaps)


PGMAPS = Command("pgmaps", "show every struct dev_pagemap", output_arguments, _pgmaps)
