# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev kernel``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("KERNEL",)


def _kernel(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.render.kernel_knowledge import (
        kernel_knowledge_document,
        kernel_knowledge_text,
    )
    from drgn_zonedev.verification.kernel_knowledge import kernel_knowledge

    known = kernel_knowledge(session.prog)
    print_result(
        args, lambda screen: kernel_knowledge_text(known), lambda: kernel_knowledge_document(known)
    )
    return Outcome(known)


def _kernel_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    module = "drgn_zonedev.verification.kernel_knowledge"
    write_code(builder, "known = kernel_knowledge()\n", f"{module}:kernel_knowledge")
    print_rendered_code(builder, args, "kernel_knowledge", "known")


KERNEL = Command(
    "kernel",
    "show what zonedev knows about this kernel, and what was proven on a booted one",
    output_arguments(),
    _kernel,
    DrgnCode(_kernel_code, frozenset()),
)
