# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernel Knowledge
----------------

What ``zonedev kernel`` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drgn_zonedev.render.as_json import kernel_document
from drgn_zonedev.render.as_text import kernel_text
from drgn_zonedev.verification.kernel_knowledge import KernelKnowledge

__all__ = ("kernel_knowledge_document", "kernel_knowledge_text")


def kernel_knowledge_text(known: KernelKnowledge) -> str:
    """Render what is known of a kernel: its layout, the ways that were taken, and the rules."""
    parts = [
        (part.name, f"booted: {', '.join(part.booted)}" if part.booted else "by reading")
        for part in known.parts
    ]
    checks = [
        (c.name, "present" if c.is_present else "absent", f"since {c.release}", c.decides)
        for c in known.checks
    ]
    rules = [
        (
            r.memory,
            r.finding,
            r.word,
            f"{r.commit} ({r.release})",
            "booted" if r.is_proven else "by reading",
        )
        for r in known.rules
    ]
    sections: list[tuple[str, Sequence[tuple[str, ...]]]] = [
        ("LAYOUT", parts),
        ("PRESENCE CHECKS", checks),
        ("RULES", rules),
    ]
    lines = [kernel_text(known.facts)]
    for title, rows in sections:
        lines += ["", title, *_columns(rows)]
    if not known.has_zone_device:
        lines.append("    none about device memory: there is none")
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    ]


def kernel_knowledge_document(known: KernelKnowledge) -> dict[str, Any]:
    """Get what is known of a kernel as JSON."""
    return {
        "schema": "drgn-zonedev/kernel/1",
        "kernel": kernel_document(known.facts),
        "layout": [
            {"part": p.name, "fingerprint": p.fingerprint, "booted": list(p.booted)}
            for p in known.parts
        ],
        "presence_checks": [
            {
                "name": c.name,
                "present": c.is_present,
                "decides": c.decides,
                "since": c.release,
            }
            for c in known.checks
        ],
        "rules": [
            {
                "memory": r.memory,
                "finding": r.finding,
                "word": r.word,
                "commit": r.commit,
                "since": r.release,
                "proven": r.is_proven,
            }
            for r in known.rules
        ],
    }
