# SPDX-License-Identifier: LGPL-2.1-or-later

"""The option ``--map`` of ``ranges`` and ``check``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from drgn_zonedev.commands.base import UsageError
from drgn_zonedev.model import Finding, KernelFacts, Pgmap, Range
from drgn_zonedev.render.screen import Screen, current_screen

__all__ = ("check_map_arguments", "map_arguments", "map_text")


def map_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--map``."""
    parser.add_argument(
        "--map",
        action="store_true",
        help="draw a picture of physical memory instead; with -o FILE.svg, as SVG",
    )


# Do not write text into a file with one of these names.
_OTHER_FORMATS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".html")


def _is_svg(args: argparse.Namespace) -> bool:
    return args.output is not None and args.output.lower().endswith(".svg")


def check_map_arguments(args: argparse.Namespace) -> None:
    """
    Refuse contradicting arguments, before any work is done.

    :raises UsageError: if ``--map`` contradicts another argument
    """
    if args.map and args.format != "text":
        raise UsageError(f"--map draws a picture: remove --format {args.format}")
    if args.map and args.output is not None and args.output.lower().endswith(_OTHER_FORMATS):
        raise UsageError(f"{args.output}: --map draws text or SVG: choose a name that ends in .svg")
    if _is_svg(args) and not args.map:
        raise UsageError(f"{args.output}: only --map draws SVG: add it, or choose another name")


def map_text(
    args: argparse.Namespace,
    screen: Screen | None,
    kernel: KernelFacts,
    ranges: Iterable[Range],
    pgmaps: Iterable[Pgmap],
    findings: Iterable[Finding] | None = None,
) -> str:
    """Draw the map as SVG or text, depending on the name of ``--output``."""
    from drgn_zonedev.render.picture.scene import make_scene
    from drgn_zonedev.render.picture.svg import svg_text
    from drgn_zonedev.render.picture.terminal import Terminal, current_terminal, terminal_text

    scene = make_scene(kernel, ranges, pgmaps, findings)
    if _is_svg(args):
        return svg_text(scene)
    terminal = current_terminal(args.color)
    if args.output is not None and args.color == "auto":
        terminal = Terminal(terminal.width, colour=False)
    # A picture is zoomed out to what can be seen at a time; a pager would show a part of it.
    return terminal_text(scene, terminal, current_screen() if screen else None)
