# SPDX-License-Identifier: LGPL-2.1-or-later

"""``docs/findings.md``, from the table of all kinds of findings."""

from __future__ import annotations

from collections.abc import Iterator

from drgn_zonedev.findings import KINDS, UNTELLABLE, Kind
from drgn_zonedev.model import Severity

__all__ = ("document",)


def document() -> str:
    """Get ``docs/findings.md``."""
    return "\n".join(_document()) + "\n"


def _document() -> Iterator[str]:
    yield "# Findings"
    yield ""
    yield "Everything that `zonedev check` can find, by slug. An *error* is a broken promise of the"
    yield "kernel, a *warning* a hazard that kernels allow, and an *info* is worth knowing."
    for severity in Severity:
        yield ""
        yield f"## {severity.value}"
        for kind in KINDS.values():
            if kind.severity is severity:
                yield from _section(kind)
    yield ""
    yield "## What cannot be told from legal state"
    yield ""
    yield "Silence says nothing about these:"
    yield ""
    for defect, reason in UNTELLABLE:
        yield f"- {defect}: {reason}"


def _section(kind: Kind) -> Iterator[str]:
    yield ""
    yield f"### {kind.slug}"
    yield ""
    yield f"**Meaning**: {kind.message}. {kind.explanation}"
    yield ""
    yield f"**Proof**: {kind.proof}."
    yield ""
    yield f"**Cure**: {kind.cure}"
