# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev proposal``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    Status,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("PROPOSAL",)


def _proposal(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.pfn_proposal import proposal
    from drgn_zonedev.render.proposal import proposal_document, proposal_text

    # Raises LookupError if the kernel was built without CONFIG_ZONE_DEVICE.
    session.prog["pgmap_array"]
    with progress_bar() as progress:
        report = proposal(session.prog, progress=progress)
    print_result(
        args,
        lambda screen: proposal_text(report, screen=screen),
        lambda: proposal_document(report),
    )
    return Outcome(report, Status.NOT_JUDGED if report.nothing_judged else Status.OK)


def _proposal_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_code(builder, "report = proposal()\n", "drgn_zonedev:proposal")
    print_rendered_code(builder, args, "proposal")


PROPOSAL = Command(
    "proposal",
    "try every way to build pfn_zone_device() on this memory",
    output_arguments(),
    _proposal,
    DrgnCode(_proposal_code, frozenset()),
)
