# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pgmaps``"""

from __future__ import annotations

import argparse

from drgn import Program

from drgn_zonedev.command import (
    Command,
    Outcome,
    output_arguments,
    print_result,
)
from drgn_zonedev.render import as_json, as_text

__all__ = ("PGMAPS",)


def _pgmaps(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.report import kernel_facts
    from drgn_zonedev.snapshot import take_snapshot, with_devices

    kernel, pgmaps = kernel_facts(prog), with_devices(prog, take_snapshot(prog).pgmaps)
    print_result(
        args,
        lambda screen: as_text.pgmaps_text(kernel, pgmaps, screen=screen),
        lambda: as_json.pgmaps_document(kernel, pgmaps),
    )
    return Outcome(pgmaps)


PGMAPS = Command("pgmaps", "show every struct dev_pagemap", output_arguments, _pgmaps)
