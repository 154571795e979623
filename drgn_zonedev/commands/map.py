# SPDX-License-Identifier: LGPL-2.1-or-later

"""The option ``--map`` of ``ranges`` and ``check``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from drgn import FaultError, Program

from drgn_zonedev.commands.base import UsageError
from drgn_zonedev.model import Finding, KernelFacts, Pgmap, Range
from drgn_zonedev.render.screen import Screen, current_screen

if TYPE_CHECKING:
    from drgn_zonedev.render.picture.map_html import NodeSpan
    from drgn_zonedev.render.picture.scene import Picture

__all__ = ("check_map_arguments", "map_arguments", "map_text")


def map_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--map``."""
    parser.add_argument(
        "--map",
        action="store_true",
        help="draw a picture of physical memory instead; with -o FILE.svg, as SVG, and with "
        "-o FILE.html, as a page that zooms from all memory to a PFN",
    )


# Do not write text into a file with one of these names.
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
    if args.map and args.format != "text":
        raise UsageError(f"--map draws a picture: remove --format {args.format}")
    if args.map and args.output is not None and args.output.lower().endswith(_OTHER_FORMATS):
        raise UsageError(
            f"{args.output}: --map draws text, SVG or HTML: choose a name that ends in .svg or "
            ".html"
        )
    for suffix, form in ((".svg", "SVG"), (".html", "HTML")):
        if _is_file(args, suffix) and not args.map:
            raise UsageError(
                f"{args.output}: only --map draws {form}: add it, or choose another name"
            )


def map_text(
    prog: Program,
    args: argparse.Namespace,
    screen: Screen | None,
    kernel: KernelFacts,
    ranges: Iterable[Range],
    pgmaps: Iterable[Pgmap],
    findings: Iterable[Finding] | None = None,
) -> str:
    """Draw the map as SVG, HTML or text, depending on the name of ``--output``."""
    from drgn_zonedev.render.picture.scene import make_scene
    from drgn_zonedev.render.picture.svg import svg_text
    from drgn_zonedev.render.picture.terminal import Terminal, current_terminal, terminal_text

    scene = make_scene(kernel, ranges, pgmaps, findings)
    if _is_file(args, ".svg"):
        return svg_text(scene)
    if _is_file(args, ".html"):
        return _html(prog, scene)
    terminal = current_terminal(args.color)
    if args.output is not None and args.color == "auto":
        terminal = Terminal(terminal.width, colour=False)
    # A picture is zoomed out to what can be seen at a time; a pager would show a part of it.
    return terminal_text(scene, terminal, current_screen() if screen else None)


def _html(prog: Program, scene: Picture) -> str:
    from drgn_zonedev.render.picture.map_html import map_html

    pfns = dict.fromkeys(islice(_telling_pfns(scene), _MOST_EXPLAINED))
    return map_html(scene, tuple(_node_spans(prog)), _explained(prog, pfns))


def _telling_pfns(scene: Picture) -> Iterator[int]:
    """Yield a page of each group of findings, and of each case."""
    from drgn_zonedev.render.finding_groups import group_findings

    for group in group_findings(scene.findings or ()):
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


def _explained(prog: Program, pfns: Iterable[int]) -> dict[int, str]:
    from drgn_zonedev.classification.reading import take_snapshot
    from drgn_zonedev.explanation.explain import explain_subject
    from drgn_zonedev.explanation.resolve import resolve
    from drgn_zonedev.render.explanation_text import explanation_text

    snapshot, said = take_snapshot(prog), {}
    for pfn in pfns:
        # On a live kernel, it may be gone.
        with contextlib.suppress(ValueError, FaultError):
            subject = resolve(prog, pfn, "pfn", snapshot.resources)
            said[pfn] = explanation_text(explain_subject(prog, snapshot, subject))
    return said
