# SPDX-License-Identifier: LGPL-2.1-or-later

"""The option ``--map`` of ``ranges`` and ``check``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from drgn import FaultError, Program

from drgn_zonedev.commands.base import STANDARD_OUTPUT, UsageError
from drgn_zonedev.commands.drgn_code import print_code, write_code
from drgn_zonedev.render.screen import Screen, current_screen
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.census.kind_spans import KindsByPlace
    from drgn_zonedev.classification.snapshot import Snapshot
    from drgn_zonedev.render.picture.map_html import NodeSpan
    from drgn_zonedev.render.picture.scene import Picture

__all__ = (
    "MAP",
    "PICTURES",
    "MapSubject",
    "check_map_arguments",
    "html_map",
    "is_map",
    "map_code",
    "map_text",
)

PICTURES = ("svg", "html")
"""Formats that only a map has."""


@dataclass(frozen=True)
class MapSubject:
    """What a map shows, and the structures and the program that it is from."""

    prog: Program
    snapshot: Snapshot
    scene: Picture


MAP = Argument(
    "--map",
    action="store_true",
    help="draw a picture of physical memory instead; with -o FILE.svg or --format svg, as "
    "SVG, and with -o FILE.html or --format html, as a page that zooms from all memory to a "
    "PFN",
)
"""``--map``"""


# Do not write a picture into a file with one of these names.
_OTHER_FORMATS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf")
# Explaining a page takes some milliseconds.
_MOST_EXPLAINED = 40


def _is_file(args: argparse.Namespace, suffix: str) -> bool:
    return args.output is not None and args.output.lower().endswith(suffix)


def check_map_arguments(args: argparse.Namespace) -> None:
    """
    Refuse contradicting arguments, before any work is done.

    :raises UsageError: if ``--map`` contradicts another argument
    """
    if args.map and args.format not in ("text", *PICTURES):
        raise UsageError(f"--map draws a picture: remove --format {args.format}")
    if is_map(args) and args.output is not None and args.output.lower().endswith(_OTHER_FORMATS):
        raise UsageError(
            f"{args.output}: --map draws text, SVG or HTML: choose a name that ends in .svg or "
            ".html"
        )
    for suffix, form in ((".svg", "SVG"), (".html", "HTML")):
        if _is_file(args, suffix) and not is_map(args):
            raise UsageError(
                f"{args.output}: only --map draws {form}: add it, or choose another name"
            )
        if _is_file(args, suffix) and args.format in PICTURES and args.format != suffix[1:]:
            raise UsageError(
                f"{args.output}: --format {args.format} draws no {form}: choose one of them"
            )


def is_map(args: argparse.Namespace) -> bool:
    """Return whether a map is asked for."""
    return args.map or args.format in PICTURES


def _form(args: argparse.Namespace) -> str:
    if args.format in PICTURES:
        return str(args.format)
    return next((form for form in PICTURES if _is_file(args, f".{form}")), "text")


def map_text(args: argparse.Namespace, screen: Screen | None, subject: MapSubject) -> str:
    """Draw the map as ``--format`` says, or else the name of ``--output``."""
    from drgn_zonedev.render.picture.svg import svg_text
    from drgn_zonedev.render.picture.terminal import Terminal, current_terminal, terminal_text

    scene, form = subject.scene, _form(args)
    if form == "svg":
        return svg_text(scene)
    if form == "html":
        return html_map(subject)
    terminal = current_terminal(args.color)
    if args.output is not None and args.color == "auto":
        terminal = Terminal(terminal.width, colour=False)
    # A picture is zoomed out to what can be seen at a time; a pager would show a part of it.
    return terminal_text(scene, terminal, current_screen() if screen else None)


def html_map(subject: MapSubject) -> str:
    """Draw the map as HTML, and explain a page of each kind there."""
    from drgn_zonedev.render.picture.map_html import MapDetails, map_html

    pfns = dict.fromkeys(islice(_telling_pfns(subject.scene), _MOST_EXPLAINED))
    details = MapDetails(
        tuple(_node_spans(subject.prog)),
        _kinds(subject),
        _explained(subject.prog, subject.snapshot, pfns),
    )
    return map_html(subject.scene, details)


def _telling_pfns(scene: Picture) -> Iterator[int]:
    """Yield a page of each group of findings, and of each case."""
    for group in scene.groups:
        if group.start_pfn < group.end_pfn:
            yield group.start_pfn
    yield from {r.case: r.start_pfn for r in reversed(scene.ranges)}.values()


def _node_spans(prog: Program) -> Iterator[NodeSpan]:
    from drgn_zonedev.kernel.nodes import nodes

    # Without them, there is a layer less.
    with contextlib.suppress(FaultError, LookupError):
        for node in nodes(prog).found:
            if node.spanned_pages:
                yield node.nid, node.start_pfn, node.end_pfn


def _kinds(subject: MapSubject) -> KindsByPlace:
    from drgn_zonedev.census.kind_spans import KindsByPlace, kind_spans

    # `ranges` reads no struct pages.
    if subject.scene.findings is None:
        return KindsByPlace()
    with contextlib.suppress(FaultError, LookupError):
        return kind_spans(subject.prog, subject.snapshot, subject.scene.ranges)
    return KindsByPlace()


def _explained(prog: Program, snapshot: Snapshot, pfns: Iterable[int]) -> dict[int, str]:
    from drgn_zonedev.explanation.explain import explain_subject
    from drgn_zonedev.explanation.resolve import resolve
    from drgn_zonedev.render.explanation_text import explanation_text

    said = {}
    for pfn in pfns:
        # On a live kernel, it may be gone.
        with contextlib.suppress(ValueError, FaultError):
            subject = resolve(prog, pfn, "pfn", snapshot.resources)
            said[pfn] = explanation_text(explain_subject(prog, snapshot, subject))
    return said


def map_code(builder: DrgnCodeBuilder, args: argparse.Namespace, contents: str) -> None:
    """
    Write code that draws the map.

    :param contents: The arguments of ``make_scene()``.
    """
    imported = "drgn_zonedev.render.picture.scene:make_scene"
    write_code(builder, f"scene = make_scene({contents})\n", imported)
    form = _form(args)
    drawn_by = "drgn_zonedev.render.picture.svg", "svg_text", "scene"
    if form == "text":
        drawn_by = _terminal_code(builder, args)
    if form == "html":
        write_code(
            builder,
            "prog = get_default_prog()\n",
            "drgn:get_default_prog",
            "drgn_zonedev.classification.reading:take_snapshot",
            "drgn_zonedev.commands.map:MapSubject",
        )
        drawn_by = (
            "drgn_zonedev.commands.map",
            "html_map",
            "MapSubject(prog, take_snapshot(prog), scene)",
        )
    print_code(builder, args, drawn_by, ("", "", ""))


def _terminal_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> tuple[str, str, str]:
    module = "drgn_zonedev.render.picture.terminal"
    if args.output not in STANDARD_OUTPUT:
        builder.add_from_import(module, "Terminal")
        return module, "terminal_text", "scene, Terminal(80, colour=False), None"
    builder.add_from_import(module, "current_terminal")
    builder.add_from_import("drgn_zonedev.render.screen", "current_screen")
    return module, "terminal_text", "scene, current_terminal(), current_screen()"
