# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError, fetch_kernel
from drgn_zonedev.lab.kernels import fetch
from drgn_zonedev.lab.kernels.known import cache_dir, kernel_dir


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/drgn_zonedev")


@pytest.mark.parametrize("value", ["", "relative"])
def test_without_a_usable_xdg_the_cache_is_in_the_home_directory(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_dir() == Path("/home/somebody/.cache/drgn_zonedev")


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"unknown kernel '2.6': choose one of 5.10, 6.1"):
        fetch_kernel("2.6")


def test_a_cached_kernel_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "install_kernel", None)  # Calling it would fail.
    kernel_dir("6.1").mkdir(parents=True)
    record = {"release": "6.1.0-1-cloud-amd64", "version": "6.1.1-1"}
    (kernel_dir("6.1") / "kernel.json").write_text(json.dumps(record))
    kernel = fetch_kernel("6.1")
    assert (kernel.name, kernel.release) == ("6.1", "6.1.0-1-cloud-amd64")
    assert kernel.system_map == kernel_dir("6.1") / "System.map"


def test_a_damaged_cache_says_what_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel_dir("6.1").mkdir(parents=True)
    (kernel_dir("6.1") / "kernel.json").write_text("{")
    with pytest.raises(LabError, match=r"6\.1 is damaged .*: delete it"):
        fetch_kernel("6.1")
