# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Words of the structures between pages and processes are overwritten at random: an answer comes
soon, with what is wrong in it said, and never an exception.
"""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from drgn import FaultError
from support.usedpages import FIRST, Machine, machine

from drgn_zonedev.page_users.pins import Pins
from drgn_zonedev.render.pins import pins_document, pins_text

_SEEDS = 20
_SECONDS = 5


def crowded(layout: str) -> Machine:
    """A machine with a user of each kind."""
    made = machine(layout)
    made.users.own(made.file, FIRST, 8)
    made.set_used(FIRST, mapped=2, others=1, pages=8)
    for process in (made.first, made.second):
        made.users.map(process, made.file, range(FIRST, FIRST + 8))
    made.users.pipe(made.first, range(FIRST, FIRST + 8))
    made.set_used(FIRST + 16, others=1024)
    made.users.ring(made.second, [FIRST + 16])
    made.users.wait_for_removal(made.first, made.pgmap)
    made.users.wait_for_page(made.second, FIRST)
    return made


def addresses(made: Machine) -> list[int]:
    """Where the users' structures begin."""
    kernel, found = made.kernel, [made.file.file, made.file.inode, made.file.dentry]
    for process in (made.first, made.second):
        found += [process.task, process.mm, kernel.member("task_struct", process.task, "files")]
        found += process.files
    found += [kernel.member("file", file, "private_data") for file in found[-2:]]
    return [*found, *made.file.vmas, made.pgmap, kernel.variables["bit_wait_table"][1] + 7 * 24]


def damage(made: Machine, known: list[int], rng: random.Random) -> None:
    """Overwrite a word of a structure, often with the address of another one."""
    at = rng.choice(known) + 8 * rng.randrange(16)
    values = (0, (1 << 64) - 1, rng.getrandbits(64), rng.choice(known), at, rng.getrandbits(32))
    # The last structure may be smaller.
    with contextlib.suppress(FaultError):
        made.kernel.memory.read(at, 8)
        made.kernel.poke(at, rng.choice(values).to_bytes(8, "little"))


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_damage_has_an_answer(layout: str, seed: int) -> None:
    rng, made = random.Random(f"{layout} {seed}"), crowded(layout)
    known = addresses(made)
    for _ in range(rng.randrange(1, 12)):
        damage(made, known, rng)
    began = time.monotonic()
    found = made.pins()
    assert time.monotonic() - began < _SECONDS
    assert isinstance(found, Pins)
    assert pins_text(found)
    assert pins_document(found)["schema"] == "drgn-zonedev/pins/1"
    # What was not damaged is still counted.
    assert found.pgmaps == () or found.pgmaps[0].pages <= 0x8000
