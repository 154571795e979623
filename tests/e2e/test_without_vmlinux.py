# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is said of a real kernel without its vmlinux is what is said with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.guests import Booted, each_guest, require_free, zonedev

from drgn_zonedev.lab import KERNELS

pytestmark = pytest.mark.qemu

COMMANDS = ("check", "walkers", "proposal", "pgmaps", "sections", "ranges")
GUESTS = [(kernel, "fsdax-collision") for kernel in KERNELS]


def answer(*args: str) -> Any:
    result = zonedev(*args, "--format", "json")
    assert result.status in (0, 1), result.stderr
    return json.loads(result.stdout)


@each_guest(GUESTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_dump_without_vmlinux_gets_the_same_answer(booted: Booted, command: str) -> None:
    options = booted.dumped.options
    whole = answer("--types", "dwarf", *options, command)
    builtin = answer("--types", "btf", *options[:2], command)
    assert builtin["kernel"].pop("types") == "btf"
    assert builtin == whole


@each_guest([guest for guest in GUESTS if guest[0] in ("6.1", "7.3")])
def test_export_without_vmlinux_gives_the_same_answers(booted: Booted, tmp_path: Path) -> None:
    options, export = booted.dumped.options, str(tmp_path / "export")
    made = zonedev("--types", "btf", *options[:2], "export", export)
    assert made.status == 0, made.stderr
    for command in COMMANDS:
        exported = answer("-c", export, command)
        assert "types" not in exported["kernel"]
        assert exported == answer(*options, command), command


@each_guest(GUESTS)
def test_guest_without_vmlinux_is_judged(booted: Booted) -> None:
    require_free(booted.guest)
    found = answer(*booted.live.options[:2], "check")
    assert found["kernel"]["types"] == "btf"
    assert found["pgmaps"]
    assert found["coverage"]["pages_verified"] > 0
