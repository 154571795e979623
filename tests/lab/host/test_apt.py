# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.host import apt as apt_module
from drgn_zonedev.lab.host.apt import (
    Mirror,
    Suite,
    find_mirror,
    parse_mirror,
    parse_packages,
    private_apt,
    sources_list,
)

MAIN = "http://mirror.example/debian/"
SECURITY = "http://mirror.example/debian-security/"


def targets(*lines: tuple[str, str, str, str]) -> str:
    return "".join("\t".join(line) + "\n" for line in lines)


def test_the_mirror_is_the_archive_and_the_security_archive_of_the_machine() -> None:
    output = targets(
        (MAIN, "bookworm", "Debian", "/keys/debian.gpg"),
        (MAIN, "bookworm-updates", "Debian", "/keys/debian.gpg"),
        (SECURITY, "bookworm-security", "Debian", "/keys/debian.gpg"),
    )
    assert parse_mirror(output) == Mirror(MAIN, SECURITY, "/keys/debian.gpg")


def test_other_peoples_repositories_are_no_mirror() -> None:
    output = targets(("http://vendor.example/", "bookworm", "Vendor", ""))
    assert parse_mirror(output) is None


def test_before_the_first_update_the_suite_tells_a_debian_mirror() -> None:
    output = targets(
        ("http://vendor.example/", "nodistro", "$(ORIGIN)", "$(SIGNED_BY)"),
        (SECURITY, "stable-security", "$(ORIGIN)", "$(SIGNED_BY)"),
        (MAIN, "stable", "$(ORIGIN)", "$(SIGNED_BY)"),
    )
    assert parse_mirror(output) == Mirror(MAIN, SECURITY, None)


def test_an_installation_disc_is_no_mirror() -> None:
    assert parse_mirror(targets(("cdrom:[Debian]/", "bookworm", "Debian", ""))) is None


def test_a_machine_without_a_debian_mirror_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apt_module, "_run", lambda command: "")
    monkeypatch.setattr(apt_module, "find_tool", lambda program: program)
    with pytest.raises(LabError, match=r"no Debian mirror: add one"):
        find_mirror()


def test_the_security_archive_is_asked_only_for_suites_that_need_it() -> None:
    mirror = Mirror(MAIN, SECURITY, None)
    assert sources_list(Suite("trixie"), mirror, None) == f"deb {MAIN} trixie main\n"
    assert sources_list(Suite("bookworm", security=True), mirror, "/key") == (
        f"deb [signed-by=/key] {MAIN} bookworm main\n"
        f"deb [signed-by=/key] {SECURITY} bookworm-security main\n"
    )


def test_packages_keep_all_alternatives_and_lose_version_restrictions() -> None:
    show = """\
Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Size: 1928
Depends: dracut | initramfs-tools (>= 0.120), linux-base-x (= 7.3.4-1), kmod:any

Package: other
Version: 1
Description: a text
 that goes on
"""
    packages = parse_packages(show)
    assert list(packages) == ["linux-image-7.3.4+deb13-cloud-amd64", "other"]
    image = packages["linux-image-7.3.4+deb13-cloud-amd64"]
    assert image.depends == ("dracut", "initramfs-tools", "linux-base-x", "kmod")
    assert (image.version, image.size) == ("7.3.4-1~bpo13+1", 1928)
    assert packages["other"].depends == ()


def test_apt_works_in_its_own_directory_only(tmp_path: Path) -> None:
    apt = private_apt(tmp_path / "apt", Suite("trixie"), Mirror(MAIN, None, None))
    conf = (apt.directory / "apt.conf").read_text()
    for option in ("Dir::State", "Dir::Cache", "Dir::State::status", "Dir::Etc::SourceList"):
        assert f'{option} "{tmp_path}/apt/' in conf
    assert "trixie" in (apt.directory / "sources.list").read_text()


def test_a_failing_apt_becomes_one_line() -> None:
    script = "echo 'W: a warning' >&2; echo 'E: no such host' >&2; exit 100"
    with pytest.raises(LabError, match=r"^sh failed: E: no such host$"):
        apt_module._run(["/bin/sh", "-c", script])


def test_an_apt_that_hangs_is_given_up() -> None:
    with pytest.raises(LabError, match="did not finish within 0 s: check the network"):
        apt_module._run(["/bin/sleep", "10"], timeout=0.1)
