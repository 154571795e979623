# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev proposal``"""

from __future__ import annotations

import argparse

from drgn import Program

from drgn_zonedev.commands.base import (
    Command,
    Outcome,
    output_arguments,
    print_result,
)

__all__ = ("PROPOSAL",)


def _proposal(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.pfn_proposal import proposal
    from drgn_zonedev.render.proposal import proposal_document, proposal_text

    with progress_bar() as progress:
        report = proposal(prog, progress=progress)
    print_result(
        args,
        lambda screen: proposal_text(report, screen=screen),
        lambda: proposal_document(report),
    )
    return Outcome(report)


PROPOSAL = Command(
    "proposal",
    "try every way to build pfn_zone_device() on this memory",
    output_arguments,
    _proposal,
)
