# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError
from drgn_zonedev.lab.kernels.build import _PATCHES, _edits, check_config, merged_config
from drgn_zonedev.lab.kernels.edits import edited_files, parse_edits, read_files, write_changed
from drgn_zonedev.lab.kernels.known import BUILT_KERNELS

SOURCE = """\
int work(int a,
	int b);

struct thing {
	int first;
	int last;
};

struct thing *work_on(struct thing *thing);

static int work(int a,
		int b)
{
	long_call(a,
		b);
	if (b) {
		call(b);
	}
	return a;
}

static int other(void)
{
	call(1);
	call(2);
	return work(1, 2);
}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "a.c").write_text(SOURCE)
    return tmp_path


def applied(tree: Path, script: str) -> list[str]:
    edits = parse_edits(script)
    write_changed(tree, edited_files(read_files(tree, edits), edits))
    return (tree / "a.c").read_text().splitlines()


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("in work\nbefore call(b)", "\tif (b) {", "\t\tcall(b);"),
        ("in work\nafter call(b)", "\t\tcall(b);", "\t}"),
        ("in work\nafter long_call(", "\t\tb);", "\tif (b) {"),
        ("in work\nafter if (b) {", "\tif (b) {", "\t\tcall(b);"),
        ("in struct thing\nafter int first", "\tint first;", "\tint last;"),
        ("before static int other(", "", "static int other(void)"),
        ("in other\nbefore call(2)", "\tcall(1);", "\tcall(2);"),
    ],
)
def test_lines_go_where_they_belong(tree: Path, place: str, before: str, after: str) -> None:
    lines = applied(tree, f"file a.c\n\n{place}\n+\tone;\n+\ttwo;\n")
    index = lines.index("\tone;")
    assert lines[index - 1 : index + 3] == [before, "\tone;", "\ttwo;", after]
    # Nothing else has changed.
    assert [*lines[:index], *lines[index + 2 :]] == SOURCE.splitlines()


def test_edits_follow_one_another(tree: Path) -> None:
    script = """\
# A comment.
file a.c

in work
before call(b)
+\tone;

in work
before one;
+\tzero;
+
"""
    lines = applied(tree, script)
    assert lines[lines.index("\tzero;") :][:4] == ["\tzero;", "", "\tone;", "\t\tcall(b);"]


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("in other\nbefore call(", 2),
        ("in work\nbefore call(2)", 0),
        ("in thing\nbefore first", 0),
        ("in nothing\nafter call(1)", 0),
        ("before call(1)", 0),  # Not at the left margin.
    ],
)
def test_a_place_that_is_not_there_once_is_an_error_and_changes_nothing(
    tree: Path, place: str, count: int
) -> None:
    script = f"file a.c\nin other\nbefore call(1)\n+fine;\n{place}\n+x;\n"
    with pytest.raises(LabError, match=f"found {count} such places"):
        applied(tree, script)
    assert (tree / "a.c").read_text() == SOURCE


def test_a_file_that_is_not_there_is_an_error(tree: Path) -> None:
    with pytest.raises(LabError, match=r"b\.c is not in this kernel"):
        applied(tree, "file b.c\nbefore x\n+y\n")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("before x\n+y\n", "line 1 of the script is invalid: before x"),
        ("file a.c\n+y\n", "line 2 of the script is invalid"),
        ("file a.c\nbefore x\n-y\n", "line 3 of the script is invalid: -y"),
        ("file a.c\nin x\nbefore y\n", "there is nothing to insert"),
        ("file a.c\nbefore x\nin y\n+z\n", "line 4 of the script is invalid"),
    ],
)
def test_an_invalid_script_is_refused(script: str, complaint: str) -> None:
    with pytest.raises(LabError, match=complaint):
        parse_edits(script)


# --- our own ---


FILES = {
    "include/linux/memremap.h",
    "include/linux/mmzone.h",
    "mm/memremap.c",
    "mm/sparse-vmemmap.c",
}
USERS = {"fs/proc/page.c", "mm/memory-failure.c", "mm/memory_hotplug.c"}


@pytest.mark.parametrize(
    ("kernel", "files"), [("6.12-proposal", FILES), ("7.3-proposal", FILES | USERS)]
)
def test_our_script_can_be_parsed_and_touches_what_it_should(kernel: str, files: set[str]) -> None:
    edits = parse_edits(_edits(BUILT_KERNELS[kernel]))
    assert {edit.file for edit in edits} == files
    text = "\n".join(line for edit in edits for line in edit.lines)
    for name in ("pfn_zone_device", "pfn_zone_device_claimed", "pfn_zone_device_reserved"):
        assert f"EXPORT_SYMBOL_GPL({name});" in text


@pytest.mark.parametrize(
    ("kernel", "function"),
    [
        ("7.3-too-early", "pagemap_range"),
        ("7.3-kept", "unmark_initialized"),
        ("7.3-forgotten", "mark_initialized"),
    ],
)
def test_a_broken_kernel_differs_in_one_line_of_one_function(kernel: str, function: str) -> None:
    whole = parse_edits(_edits(BUILT_KERNELS["7.3-proposal"]))
    broken = parse_edits(_edits(BUILT_KERNELS[kernel]))
    assert broken[:-1] == whole
    assert (broken[-1].file, broken[-1].inside) == ("mm/memremap.c", function)
    assert len(broken[-1].lines) == 1


def test_a_setting_that_kconfig_dropped_is_said() -> None:
    wanted = (_PATCHES / "proposal.config").read_text()
    check_config(wanted, wanted)
    config = wanted.replace("CONFIG_ZONE_DEVICE=y", "# CONFIG_ZONE_DEVICE is not set")
    with pytest.raises(LabError, match=r"no CONFIG_ZONE_DEVICE=y$"):
        check_config(config, wanted)


def test_a_setting_that_kconfig_made_against_the_wish_is_said() -> None:
    wanted = "CONFIG_SMP=y\n# CONFIG_NUMA is not set\n"
    check_config("CONFIG_SMP=y\n", wanted)
    check_config(wanted, wanted)
    with pytest.raises(LabError, match=r"no # CONFIG_NUMA is not set$"):
        check_config("CONFIG_SMP=y\nCONFIG_NUMA=y\n", wanted)


def test_of_several_configurations_a_later_one_decides() -> None:
    first = "# Memory\n\nCONFIG_NUMA=y\nCONFIG_NR_CPUS=8\n# CONFIG_WERROR is not set\n"
    second = "CONFIG_NR_CPUS=64\n# CONFIG_NUMA is not set\n# Not for us\nCONFIG_WERROR=y\n"
    assert merged_config([first, second]).splitlines() == [
        "# CONFIG_NUMA is not set",
        "CONFIG_NR_CPUS=64",
        "CONFIG_WERROR=y",
    ]


@pytest.mark.parametrize(
    ("script", "function"),
    [("page_zone.edit", "__init_deferred_page"), ("page_zone-6.12.edit", "init_reserved_page")],
)
def test_a_page_that_no_zone_spans_is_left_alone(tree: Path, script: str, function: str) -> None:
    source = tree / "mm" / "mm_init.c"
    source.parent.mkdir()
    source.write_text(
        f"static void {function}(unsigned long pfn, int nid)\n{{\n"
        "\tfor (zid = 0; zid < MAX_NR_ZONES; zid++)\n\t\tif (zone_spans_pfn(zone, pfn))\n"
        "\t\t\tbreak;\n\t__init_single_page(pfn_to_page(pfn), pfn, zid, nid);\n}\n"
        f"static inline void {function}(unsigned long pfn, int nid)\n{{\n}}\n"
    )
    edits = parse_edits((_PATCHES / script).read_text())
    write_changed(tree, edited_files(read_files(tree, edits), edits))
    lines = [line.strip() for line in source.read_text().splitlines()]
    last = lines.index("__init_single_page(pfn_to_page(pfn), pfn, zid, nid);")
    assert lines[last - 3 : last] == ["if (zid == MAX_NR_ZONES)", "return;", ""]
