# SPDX-License-Identifier: LGPL-2.1-or-later

"""What of a report was in an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Finding

__all__ = ("Baselined",)


@dataclass(frozen=True)
class Baselined:
    """A report's findings that are not in its baseline."""

    new: frozenset[Finding]

    def is_new(self, finding: Finding) -> bool:
        """Whether the baseline does not have a finding, or not as bad."""
        return finding in self.new
