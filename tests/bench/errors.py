# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why something could not be measured."""

from __future__ import annotations

__all__ = ("BenchError",)


class BenchError(Exception):
    """A part of the bench cannot run. The message says why, and what to do about it."""
