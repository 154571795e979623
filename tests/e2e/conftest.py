# SPDX-License-Identifier: LGPL-2.1-or-later

"""Guests that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.guests import Booted, boot_shared

from drgn_zonedev.lab import BUILT_KERNELS, Kernel, LabError, fetch_kernel
from drgn_zonedev.lab.host.errors import NotPossible


@pytest.fixture(scope="session")
def booted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """The guest that ``each_guest()`` names; it ends when a test takes another one."""
    kernel, scenario = request.param
    directory = tmp_path_factory.mktemp("guest")
    try:
        with boot_shared(_fetch(kernel), scenario, directory) as found:
            yield found
    except NotPossible as error:
        # Of Debian's kernels, the scenarios themselves say what is not possible.
        if kernel not in BUILT_KERNELS:
            raise
        pytest.skip(str(error))


def _fetch(name: str) -> Kernel:
    try:
        return fetch_kernel(name)
    except LabError as error:
        if name not in BUILT_KERNELS:
            raise
        # That takes a quarter of an hour, and need not have been done.
        pytest.skip(str(error))
