# SPDX-License-Identifier: LGPL-2.1-or-later

"""Of stored dumps that are much alike, a sample for every run."""

from __future__ import annotations

from typing import Any

import pytest


def sampled(names: list[str], step: int) -> list[Any]:
    """Parameters of a test, of which only one in *step* is in every run."""
    long = pytest.mark.long(f"of {len(names)} dumps, {len(names[::step])} are in every run")
    return [name if name in names[::step] else pytest.param(name, marks=long) for name in names]
