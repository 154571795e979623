# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError, fetch_kernel
from drgn_zonedev.lab.kernels import build
from drgn_zonedev.lab.kernels.edits import edited_files, parse_edits, read_files, write_changed
from drgn_zonedev.lab.kernels.known import BUILT_KERNELS, kernel_dir

NAME = "6.12-proposal"
RELEASE = "6.12.1-proposal"
PROPOSALS = [name for name, r in BUILT_KERNELS.items() if "device_bits-7.3.edit" in r.edits]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def store(**record: object) -> None:
    kernel_dir(NAME).mkdir(parents=True)
    record = {"release": RELEASE, "version": "6.12.1-1", **record}
    (kernel_dir(NAME) / "kernel.json").write_text(json.dumps(record))


def test_a_kernel_that_is_not_built_says_how_to() -> None:
    with pytest.raises(LabError, match="is not built yet: zonedev lab build-kernel"):
        fetch_kernel(NAME)


def test_a_built_kernel_needs_neither_network_nor_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    store(recipe=build.recipe_digest(NAME))
    assert build.build_kernels([NAME]) == [fetch_kernel(NAME)]
    assert fetch_kernel(NAME).release == RELEASE


@pytest.mark.parametrize("file", ["pfn_zone_device.edit", "proposal.config"])
def test_a_kernel_of_another_patch_or_config_is_refused(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(recipe=build.recipe_digest(NAME))
    patches = tmp_path / "patches"
    shutil.copytree(build._PATCHES, patches)
    (patches / file).write_bytes((patches / file).read_bytes() + b"#\n")
    monkeypatch.setattr(build, "_PATCHES", patches)
    with pytest.raises(LabError, match="from another patch or config: zonedev lab build-kernel"):
        fetch_kernel(NAME)


def test_what_a_build_lacks_is_named_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "private_apt", None)  # Calling it would fail.
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    with pytest.raises(LabError, match=r"bc is not installed: apt-get install bc$"):
        build.build_kernels([NAME])
    monkeypatch.setattr("shutil.which", lambda program, path=None: f"/bin/{program}")
    monkeypatch.setattr(build, "_LIBELF", Path("/nowhere/libelf.h"))
    with pytest.raises(LabError, match=r"apt-get install libelf-dev$"):
        build.build_kernels([NAME])


def test_only_our_own_kernels_are_built() -> None:
    with pytest.raises(LabError, match=r"6\.1 is not built here: choose one of 6\.12-proposal"):
        build.build_kernels(["6.1"])


def test_what_the_compiler_said_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho 'x.c:1: warning: y' >&2\necho 'x.c:2: error: z' >&2\nexit 2\n")
    make.chmod(0o755)
    monkeypatch.setattr(build, "find_tool", lambda program: str(tmp_path / program))
    with pytest.raises(LabError, match=r"make failed: x.c:2: error: z"):
        build._run(["make", "bzImage"])


@pytest.mark.parametrize("name", BUILT_KERNELS)
def test_a_recipe_names_files_that_can_be_read(name: str) -> None:
    recipe = BUILT_KERNELS[name]
    config = build.merged_config((build._PATCHES / file).read_text() for file in recipe.configs)
    assert "CONFIG_MEMORY_FAILURE=y" in config
    assert bool(parse_edits(build._edits(recipe))) == bool(recipe.edits)


def test_kernels_of_one_source_and_config_are_built_in_one_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[list[str]] = []
    monkeypatch.setattr(build, "_require_programs", lambda board: None)
    monkeypatch.setattr(build, "check_space", lambda *arguments: None)
    monkeypatch.setattr(build, "_build", lambda names, *more: built.append(names))
    monkeypatch.setattr(build, "built_kernel", lambda name: None)
    build.build_kernels(list(BUILT_KERNELS), refresh=True)
    assert built == [
        *(["6.12-proposal"], ["6.12-mended"], ["7.3-small", "7.3-mended"]),
        *(["7.3-debug"], ["6.1-slab"], PROPOSALS, ["7.3-arm64-64k"]),
    ]


def test_only_files_that_the_next_kernel_changes_are_written(tmp_path: Path) -> None:
    source = "int f(void)\n{\n\treturn 0;\n}\n"
    common = "file common.h\nin f\nbefore return\n+\tg();\n"
    own = "file own.c\nin f\nbefore return\n+\th();\n"
    for name in ("common.h", "own.c"):
        (tmp_path / name).write_text(source)
    untouched = read_files(tmp_path, parse_edits(common + own))
    times = []
    for script in (common, common + own, common):
        write_changed(tmp_path, edited_files(untouched, parse_edits(script)))
        times.append((tmp_path / "common.h").stat().st_mtime_ns)
        assert "\tg();\n\treturn 0;" in (tmp_path / "common.h").read_text()
        assert ("h();" in (tmp_path / "own.c").read_text()) == ("h();" in script)
    assert len(set(times)) == 1


def kernel_tree(root: Path, *files: str) -> Path:
    """Make a kernel's tree with some files, each of which holds its own name."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    return root


def test_a_kernel_with_a_script_for_it_collects_its_headers_itself(tmp_path: Path) -> None:
    script = "scripts/package/install-extmod-build"
    tree = kernel_tree(tmp_path / "tree", script, "include/linux/mm.h")
    (tree / script).write_text(
        '#!/bin/sh\nmkdir "$1" && echo $SRCARCH >"$1/own" && pwd >>"$1/own"\n'
    )
    (tree / script).chmod(0o755)
    build._install_headers(tree, tmp_path / "headers", "x86")
    assert [path.name for path in (tmp_path / "headers").iterdir()] == ["own"]
    assert (tmp_path / "headers/own").read_text() == f"x86\n{tree}\n"


# What deploy_kernel_headers() of 6.1 puts into its two lists, an example of each line.
_HEADERS = (
    *("Makefile", "arch/x86/Makefile", "arch/x86/Makefile_32.cpu"),
    *("include/linux/mm.h", "include/config/auto.conf", "include/generated/autoconf.h"),
    *("scripts/Makefile.build", "scripts/mod/modpost", "scripts/gcc-plugins/latent.so"),
    *("arch/x86/Kbuild.platforms", "arch/x86/pci/Platform"),
    *("arch/x86/include/asm/page.h", "arch/x86/include/generated/asm/unistd.h"),
    *("arch/x86/um/asm/include/a.h", "arch/x86/scripts/b.sh", "Module.symvers", ".config"),
)
_NOT_HEADERS = (
    *("mm/Makefile", "mm/include/mm.h", "arch/x86/mm/Makefile", "arch/x86/mm/init.o"),
    *("arch/arm64/include/asm/page.h", "tools/objtool/check.c", "tools/include/c.h", "vmlinux"),
)


@pytest.mark.parametrize("objtool", [(), ("tools/objtool/objtool",)])
def test_headers_of_a_kernel_without_a_script_for_them_are_those_of_its_package(
    objtool: tuple[str, ...], tmp_path: Path
) -> None:
    tree = kernel_tree(tmp_path / "tree", *_HEADERS, *objtool, *_NOT_HEADERS)
    (tree / "scripts/mod/modpost").chmod(0o755)
    link = "scripts/dtc/include-prefixes/arm"
    (tree / link).parent.mkdir(parents=True)
    (tree / link).symlink_to("../../../arch/arm/boot/dts")  # Nothing is there.
    headers = tmp_path / "headers"
    build._install_headers(tree, headers, "x86")
    have = [str(path.relative_to(headers)) for path in headers.rglob("*") if path.is_file()]
    assert sorted(have) == sorted((*_HEADERS, *objtool))
    assert all((headers / file).read_text() == file for file in have)
    assert os.access(headers / "scripts/mod/modpost", os.X_OK)
    assert os.readlink(headers / link) == "../../../arch/arm/boot/dts"
