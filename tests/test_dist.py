# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is shipped: sdist and wheel, in an empty environment; and the manual page."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(*command: object, cwd: Path = ROOT, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **env} if env else None,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # In a copy: what is generated on the way must not be seen by other tests.
    copy = tmp_path_factory.mktemp("dist") / "drgn_zonedev"
    shutil.copytree(
        ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache")
    )
    subprocess.run(
        ["sh", copy / "scripts" / "dist", copy / "out"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(copy)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    yield copy / "out"
    shutil.rmtree(copy)


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    venv = tmp_path_factory.mktemp("venv")
    _run(sys.executable, "-m", "venv", venv)
    (wheel,) = dist.glob("*.whl")
    _run(venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", wheel)
    return venv / "bin"


@pytest.mark.qemu  # Nothing is booted, but it takes as long.
def test_sdist_and_wheel_hold_what_is_needed_at_run_time(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        "drgn_zonedev/render/schema.json",
        "drgn_zonedev/share/zonedev.bash",
        "drgn_zonedev/vmcores/7.3-fsdax-collision/dump.tar.xz",
        "drgn_zonedev/lab/guest/init",
        "drgn_zonedev/py.typed",
    }
    assert needed <= names
    assert not any(name.startswith("tests/") for name in names)
    assert any(name.endswith(".data/data/share/man/man1/zonedev.1") for name in names)
    with tarfile.open(sdist) as tar:
        members = {name.split("/", 1)[-1] for name in tar.getnames()}
    assert needed - {"drgn_zonedev/vmcores/7.3-fsdax-collision/dump.tar.xz"} <= members
    # README.md links there.
    assert {"CHANGELOG.md", "docs/cases.md", "docs/examples/kernel-ci.yml"} <= members


@pytest.mark.qemu
def test_wheel_works_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    shown = _run(installed / "zonedev", "demo", cwd=tmp_path, LANG="C.UTF-8")
    assert "case 5, reserved" in shown
    assert "NOT AS EXPECTED" not in shown
    script = _run(installed / "zonedev", "completion", "bash", cwd=tmp_path, LANG="C.UTF-8")
    assert "zonedev" in script
    code = "import _drgn_util.plugins as p; print(*(n for n, _ in p._load_plugins()))"
    plugins = _run(installed / "python", "-c", code, cwd=tmp_path, LANG="C.UTF-8")
    assert "zonedev" in plugins.split()
    # Where man looks if this directory is in PATH.
    page = installed.parent / "share" / "man" / "man1" / "zonedev.1"
    assert ".SH EXIT STATUS" in page.read_text(encoding="utf-8")


def _copy_for_dist(directory: Path) -> Path:
    # Of a checkout, what scripts/dist needs to fail in it.
    (directory / "scripts").mkdir(parents=True)
    (directory / "drgn_zonedev").mkdir()
    shutil.copy(ROOT / "scripts" / "dist", directory / "scripts")
    shutil.copy(ROOT / "scripts" / "write-man", directory / "scripts")
    return directory


def test_nothing_generated_is_left_behind_by_a_build_that_fails(tmp_path: Path) -> None:
    copy = _copy_for_dist(tmp_path / "copy")
    done = subprocess.run(
        ["sh", copy / "scripts" / "dist"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "false"},
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert list((copy / "drgn_zonedev").iterdir()) == []


def test_manual_page_without_its_generator_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "argparse_manpage.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "write-man"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install argparse-manpage")


@pytest.mark.qemu  # Nothing is booted, but it takes as long.
def test_editable_install_is_found_from_the_directory_above_a_clone(tmp_path: Path) -> None:
    clone = tmp_path / "drgn_zonedev"
    skipped = shutil.ignore_patterns(".git", ".venv", ".*_cache", "vmcores", "*.egg-info")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=skipped)
    _run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "-e", clone)
    code = "import drgn_zonedev; print(drgn_zonedev.__file__)"
    found = _run(python, "-c", code, cwd=tmp_path, LANG="C.UTF-8").strip()
    assert found == str(clone / "drgn_zonedev" / "__init__.py")


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("man") / "zonedev.1"
    page.write_text(_run(sys.executable, ROOT / "scripts" / "write-man"))
    return page


def test_manual_page_has_every_command_and_the_exit_status(manual: Path) -> None:
    from drgn_zonedev.commands import every_command

    text = manual.read_text()
    for command in every_command():
        assert f"zonedev {command.name}" in text
    assert ".SH EXIT STATUS" in text


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("groff", ("-ww", "-man", "-Tutf8", "-z")),
        ("mandoc", ("-T", "lint", "-W", "warning")),
    ],
)
def test_manual_page_renders_without_warnings(
    manual: Path, program: str, arguments: tuple[str, ...]
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments, manual], capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""


def test_no_feature_newer_than_python_3_9_is_used() -> None:
    vermin = Path(sys.executable).parent / "vermin"
    done = subprocess.run(
        [vermin, "-t=3.9-", "--violations", "--no-tips", "--no-parse-comments", "drgn_zonedev"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
