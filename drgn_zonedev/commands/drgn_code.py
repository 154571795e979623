# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Code
----

``%zonedev COMMAND --drgn``: the Python that yields the same answer, for those who
want to go on from there. It runs in drgn's REPL or a script, with drgn's default
program.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence

from drgn import Program
from drgn.commands import DrgnCodeBuilder

from drgn_zonedev.commands.base import STANDARD_OUTPUT

__all__ = ("python_code",)

Writer = Callable[[DrgnCodeBuilder, argparse.Namespace], None]


def python_code(prog: Program, name: str, args: argparse.Namespace, words: Sequence[str]) -> str:
    """
    Get Python code that yields what a command yields.

    :param name: The command's.
    :param args: Its arguments, parsed.
    :param words: Its arguments, as they were given.
    """
    builder = DrgnCodeBuilder(prog)
    writer = _WRITERS.get(name)
    if writer is not None and _is_plain(args):
        writer(builder, args)
    else:
        # What a command draws is not worth more lines than it takes to run it.
        line = shlex.join(["zonedev", *(word for word in words if word != "--drgn")])
        builder.add_from_import("drgn", "get_default_prog")
        builder.add_from_import("drgn.commands", "run_command")
        builder.append(f"result = run_command(get_default_prog(), {line!r})\n")
    return builder.get()


def _is_plain(args: argparse.Namespace) -> bool:
    # Text or a document, and no picture.
    if getattr(args, "format", "text") not in ("text", "json"):
        return False
    known = {"drgn", "run", "format", "output", "all", "verbose", "fail_on", "pfn", "kind", "nr"}
    known |= {"out", "force", "all_memmap", "margin", "blank_names", "walker"}
    return not any(value for name, value in vars(args).items() if name not in known)


def _print(
    builder: DrgnCodeBuilder,
    args: argparse.Namespace,
    text: tuple[str, str, str],
    document: tuple[str, str, str],
) -> None:
    # Each is a module, a function in it, and its arguments.
    as_json = getattr(args, "format", "text") == "json"
    module, function, arguments = document if as_json else text
    value = f"{function}({arguments})" if function else arguments
    if function:
        builder.add_from_import(module, function)
    if as_json:
        builder.add_from_import("drgn_zonedev.render.as_json", "render")
        value = f"render({value})"
    if args.output in STANDARD_OUTPUT:
        builder.append(f"print({value})\n")
        return
    with builder.begin_block(f'with open({args.output!r}, "w") as f:\n'):
        builder.append(f"print({value}, file=f)\n")


_TEXT, _JSON = "drgn_zonedev.render.as_text", "drgn_zonedev.render.as_json"


def _print_of_kernel(
    builder: DrgnCodeBuilder, args: argparse.Namespace, name: str, text_only: str = ""
) -> None:
    # A view of the kernel's things that are in a variable of that name.
    builder.add_from_import("drgn_zonedev.classification.facts", "kernel_facts")
    arguments = f"kernel_facts(), {name}"
    text = (_TEXT, f"{name}_text", f"{arguments}{text_only}")
    _print(builder, args, text, (_JSON, f"{name}_document", arguments))


def _check(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "check")
    builder.append("report = check()\n")
    text = (_TEXT, "report_text", "report, verbose=True")
    _print(
        builder,
        args,
        text if args.verbose else ("", "", "report"),
        (_JSON, "report_document", "report"),
    )
    if args.fail_on != ("error",):
        builder.add_from_import("drgn_zonedev.commands.check", "failed")
        builder.append(f'if failed(report, {args.fail_on!r}):\n    print("there are findings")\n')


def _ranges(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "classify")
    builder.append("ranges = classify()\n")
    _print_of_kernel(builder, args, "ranges", ", verbose=True" if args.verbose else "")


def _sections(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev.classification.section_rows", "section_rows")
    condition = f" if row.nr in {args.nr!r}" if args.nr else ""
    builder.append(f"sections = [row for row in section_rows(){condition}]\n")
    _print_of_kernel(builder, args, "sections")


def _pgmaps(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn", "get_default_prog")
    builder.add_from_import("drgn_zonedev.classification.reading", "take_snapshot", "with_devices")
    builder.append(
        "pgmaps = take_snapshot(get_default_prog()).pgmaps\n"
        "pgmaps = with_devices(get_default_prog(), pgmaps)\n"
    )
    _print_of_kernel(builder, args, "pgmaps")


def _pfn(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "explain")
    kind = f", {args.kind!r}" if args.kind else ""
    builder.append(f"explanation = explain({args.pfn!r}{kind})\n")
    _print(
        builder,
        args,
        ("", "", "explanation"),
        ("drgn_zonedev.render.explanation_json", "explanation_document", "explanation"),
    )


def _proposal(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "proposal")
    builder.append("report = proposal()\n")
    _print_report(builder, args, "proposal")


def _walkers(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn_zonedev", "walkers")
    builder.append("report = walkers()\n")
    if args.walker:
        builder.add_from_import("dataclasses", "replace")
        builder.append(
            f"chosen = [j for j in report.walkers if j.walker.name in {args.walker!r}]\n"
            "report = replace(report, walkers=tuple(chosen))\n"
        )
    _print_report(builder, args, "walkers")


def _print_report(builder: DrgnCodeBuilder, args: argparse.Namespace, name: str) -> None:
    module = f"drgn_zonedev.render.{name}"
    text, document = (f"{name}_{what}" for what in ("text", "document"))
    _print(builder, args, (module, text, "report"), (module, document, "report"))


def _export(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    builder.add_from_import("drgn", "get_default_prog")
    builder.add_from_import("drgn_zonedev.export.write", "ExportOptions", "write_export")
    builder.add_from_import("drgn_zonedev.render.export", "export_text")
    options = f"{args.all_memmap!r}, {args.margin!r}, {args.blank_names!r}"
    builder.append(
        f"done = write_export(get_default_prog(), {args.out!r}, ExportOptions({options}), "
        f"force={args.force!r})\nprint(export_text(done.path, done.meta))\n"
    )


_WRITERS: dict[str, Writer] = {
    "check": _check,
    "ranges": _ranges,
    "sections": _sections,
    "pgmaps": _pgmaps,
    "pfn": _pfn,
    "export": _export,
    "proposal": _proposal,
    "walkers": _walkers,
}
