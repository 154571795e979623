# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.host.apt import Apt, Mirror, Package, Suite
from drgn_zonedev.lab.kernels import debian
from drgn_zonedev.lab.kernels.debian import image_release, parts_of_image


def package(name: str, *depends: str) -> Package:
    return Package(name, "1-1", 1 << 20, depends)


@pytest.mark.parametrize(
    ("dependency", "release"),
    [
        ("linux-image-6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64"),
        ("linux-image-6.1.0-56-cloud-amd64-dbg", "6.1.0-56-cloud-amd64"),
        ("linux-image-7.2.12+deb14-cloud-amd64-unsigned", "7.2.12+deb14-cloud-amd64"),
    ],
)
def test_the_metapackage_names_the_release(dependency: str, release: str) -> None:
    metapackage = package("linux-image-cloud-amd64", "linux-base-cloud-amd64", dependency)
    assert image_release(metapackage) == release


def test_a_metapackage_without_an_image_is_refused() -> None:
    with pytest.raises(LabError, match="depends on no kernel image"):
        image_release(package("linux-image-cloud-amd64", "linux-base"))


def test_a_split_image_brings_its_parts_and_nothing_else() -> None:
    image = package(
        "linux-image-7.3-a",
        "dracut",
        "linux-initramfs-tool",
        "linux-base-7.3-a",
        "linux-binary-7.3-a",
        "linux-modules-7.3-a",
        "linux-modules-7.4-a",
    )
    assert parts_of_image(image, "7.3-a") == [
        "linux-base-7.3-a",
        "linux-binary-7.3-a",
        "linux-modules-7.3-a",
    ]


REPOSITORY = {
    "linux-image-cloud-amd64": package("linux-image-cloud-amd64", "linux-image-7.3-a"),
    "linux-image-cloud-amd64-dbg": package("linux-image-cloud-amd64-dbg", "linux-image-7.3-a-dbg"),
    "linux-image-7.3-a": package("linux-image-7.3-a", "linux-modules-7.3-a"),
    "linux-modules-7.3-a": package("linux-modules-7.3-a"),
    "linux-image-7.3-a-dbg": package("linux-image-7.3-a-dbg"),
}


class FakeApt(Apt):
    """A mirror that holds REPOSITORY; a package's file says what it is."""

    def update(self) -> None:
        pass

    def show(self, *names: str) -> dict[str, Package]:
        return {name: REPOSITORY[name] for name in names}

    def download(self, package: Package, directory: Path) -> Path:
        directory.mkdir()
        deb = directory / "x.deb"
        deb.write_text(package.name)
        return deb


def unpack(deb: Path, root: Path) -> None:
    files = {
        "linux-image-7.3-a": ["vmlinuz"],
        "linux-modules-7.3-a": ["usr/lib/modules/7.3-a/kernel/nd_pmem.ko"],
        "linux-image-7.3-a-dbg": ["vmlinux", "System.map", "debug/nd_pmem.ko"],
    }
    for name in files[deb.read_text()]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(debian, "find_mirror", lambda: Mirror("http://m.example/", None, None))
    monkeypatch.setattr(debian, "private_apt", lambda directory, suite, mirror: FakeApt(directory))
    monkeypatch.setattr(debian, "unpack_package", unpack)
    monkeypatch.setattr(debian, "find_tool", lambda program: "/bin/true")
    # These packages are empty: no test depends on what is left of this machine's disk.
    monkeypatch.setattr(debian, "_NEEDED_BYTES", 1)
    return tmp_path / "drgn_zonedev"


def test_a_fetched_kernel_is_complete_and_leaves_nothing_else(cache: Path) -> None:
    kernel = debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    assert kernel.release == "7.3-a"
    assert kernel.modules == cache / "kernels/7.3/usr/lib/modules/7.3-a"
    assert [path.name for path in kernel.debug_modules] == ["nd_pmem.ko"]
    assert kernel.vmlinuz.exists()
    assert sorted(path.name for path in cache.iterdir()) == ["kernels", "lock"]


def test_the_flavour_decides_which_kernel_of_a_suite_it_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {
        name.replace("cloud-", ""): package(name.replace("cloud-", ""), *found.depends)
        for name, found in REPOSITORY.items()
    }
    monkeypatch.setattr(FakeApt, "show", lambda self, *names: {name: plain[name] for name in names})
    debian.install_kernel("7.3-amd64", Suite("trixie-backports", flavour="amd64"))
    assert (cache / "kernels/7.3-amd64/vmlinux").exists()


def test_a_kernel_that_is_still_the_newest_is_not_downloaded_again(cache: Path) -> None:
    debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    lines: list[str] = []
    debian.install_kernel("7.3", Suite("trixie-backports"), lines.append)
    assert not any("downloading" in line for line in lines)


def test_a_newer_kernel_replaces_the_older(cache: Path) -> None:
    debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    record = cache / "kernels/7.3/kernel.json"
    record.write_text(record.read_text().replace("1-1", "1-0"))
    (cache / "kernels/7.3/old").touch()
    debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    assert not (cache / "kernels/7.3/old").exists()


def test_an_interrupted_fetch_leaves_nothing_under_the_final_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(deb: Path, root: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(debian, "unpack_package", interrupt)
    with pytest.raises(KeyboardInterrupt):
        debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_what_a_killed_fetch_left_is_cleared(cache: Path) -> None:
    (cache / "fetch-old").mkdir(parents=True)
    debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)
    assert not (cache / "fetch-old").exists()


def test_a_package_layout_that_has_changed_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "unpack_package", lambda deb, root: None)
    with pytest.raises(LabError, match="hold no vmlinuz: their layout has changed"):
        debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)


def test_a_full_disk_is_said_before_downloading(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_NEEDED_BYTES", 1 << 70)
    with pytest.raises(LabError, match="make room"):
        debian.install_kernel("7.3", Suite("trixie-backports"), lambda line: None)


def test_a_missing_security_archive_is_said(cache: Path) -> None:
    lines: list[str] = []
    debian.install_kernel("7.3", Suite("bookworm", security=True), lines.append)
    assert lines[0] == "apt knows no security archive: bookworm without it"
