# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where debugging symbols are looked for: stored dumps bring a vmlinux, which is moved about."""

from __future__ import annotations

import os
from pathlib import Path

import drgn
import pytest

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.opening.core import open_core
from drgn_zonedev.opening.failures import CannotOpenError
from drgn_zonedev.opening.symbol_search import BESIDE, Method, SymbolSearch, set_search
from drgn_zonedev.opening.symbols import MissingSymbolsError, load_symbols
from drgn_zonedev.shell import cli


def unpack_dump(directory: Path, name: str = "6.1-empty") -> Path:
    dumps = default_directory()
    assert dumps is not None
    directory.mkdir(exist_ok=True)
    unpack(dumps / name / ARCHIVE, directory)
    return directory / "vmcore"


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    return unpack_dump(tmp_path / "dump")


def found(vmcore: Path, search: SymbolSearch | None = None) -> Path:
    prog = open_core(str(vmcore))
    set_search(prog, search or SymbolSearch())
    load_symbols(prog, [])
    path = prog.main_module().debug_file_path
    assert path is not None
    return Path(path)


def methods(*names: str, enabled: bool) -> SymbolSearch:
    return SymbolSearch(tuple(Method(name, enabled) for name in names))


def test_vmlinux_beside_the_dump_is_taken(vmcore: Path) -> None:
    assert found(vmcore) == vmcore.with_name("vmlinux")


def test_vmlinux_is_taken_from_a_directory_of_any_name(tmp_path: Path) -> None:
    vmcore = unpack_dump(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")))
    prog = open_core(str(vmcore))
    set_search(prog, SymbolSearch())
    load_symbols(prog, [])
    assert prog.type("struct page").size == 64


def test_vmlinux_of_another_build_beside_the_dump_is_not(vmcore: Path, tmp_path: Path) -> None:
    other = unpack_dump(tmp_path / "other", "6.12-empty").with_name("vmlinux")
    other.replace(vmcore.with_name("vmlinux"))
    with pytest.raises(MissingSymbolsError, match=f"for {vmcore.with_name('vmlinux')}"):
        found(vmcore)


def test_dump_may_lie_beside_it_in_vain(vmcore: Path) -> None:
    with pytest.raises(MissingSymbolsError) as e:
        found(vmcore, methods(BESIDE, enabled=False))
    assert str(vmcore.with_name("vmlinux")) not in str(e.value)


def test_later_method_holds(vmcore: Path) -> None:
    both = SymbolSearch((Method(BESIDE, enabled=False), Method(BESIDE, enabled=True)))
    assert found(vmcore, both) == vmcore.with_name("vmlinux")


def test_vmlinux_is_found_in_a_kernel_directory(vmcore: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    vmcore.with_name("vmlinux").rename(build / "vmlinux")
    search = SymbolSearch(kernel_directories=(str(build),))
    assert found(vmcore, search) == build / "vmlinux"


def test_vmlinux_is_found_by_its_build_id_in_a_debug_directory(
    vmcore: Path, tmp_path: Path
) -> None:
    build_id = next(open_core(str(vmcore)).loaded_modules())[0].build_id
    assert build_id is not None
    path = tmp_path / "debug" / ".build-id" / build_id.hex()[:2] / f"{build_id.hex()[2:]}.debug"
    path.parent.mkdir(parents=True)
    vmcore.with_name("vmlinux").rename(path)
    search = SymbolSearch(debug_directories=(str(tmp_path / "debug"),))
    assert found(vmcore, search) == path
    without = SymbolSearch((Method("build-id", enabled=False),), search.debug_directories)
    with pytest.raises(MissingSymbolsError):
        found(vmcore, without)


def test_options_of_drgn_are_set() -> None:
    prog = drgn.Program(drgn.host_platform)
    set_search(prog, methods("kmod", "debug-link", enabled=False))
    assert prog.debug_info_options.try_kmod is drgn.KmodSearchMethod.NONE
    assert not prog.debug_info_options.try_debug_link
    set_search(prog, methods("kmod=walk", "debug-link", enabled=True))
    assert prog.debug_info_options.try_kmod is drgn.KmodSearchMethod.WALK
    assert prog.debug_info_options.try_debug_link


@pytest.mark.parametrize(
    ("method", "option"),
    [
        (Method("nonsense", enabled=False), "--no-symbols-by nonsense"),
        (Method("kmod", enabled=True), "--try-symbols-by kmod"),
        (Method("kmod=walk", enabled=False), "--no-symbols-by kmod=walk"),
        (Method("", enabled=True), "--try-symbols-by "),
    ],
)
def test_method_that_drgn_does_not_have_is_refused(method: Method, option: str) -> None:
    prog = drgn.Program(drgn.host_platform)
    with pytest.raises(CannotOpenError, match=f"^{option}: .*standard"):
        set_search(prog, SymbolSearch((method,)))


def test_missing_directory_is_named(tmp_path: Path) -> None:
    prog = drgn.Program(drgn.host_platform)
    missing = str(tmp_path / "missing")
    with pytest.raises(CannotOpenError, match=f"there is no directory {missing}"):
        set_search(prog, SymbolSearch(kernel_directories=(missing,)))


def test_one_line_says_what_was_tried(
    vmcore: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    os.unlink(vmcore.with_name("vmlinux"))
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    options = ("--types", "dwarf", "--try-symbols-by", "debuginfod", "-c", str(vmcore))
    assert cli.main([*options, "check"]) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert "looked in /usr/lib/debug, /boot, /lib/modules" in line
    assert f"for {vmcore.with_name('vmlinux')}" in line
    assert "by debuginfod at no server: $DEBUGINFOD_URLS is not set: give its vmlinux" in line
    assert cli.main([*options, "--no-symbols-by", "standard,debuginfod,beside", "check"]) == 3
    assert "looked nowhere: give its vmlinux" in capfd.readouterr().err
