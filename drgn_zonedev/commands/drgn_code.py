# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Code
----

``%zonedev COMMAND --drgn`` prints Python code that does the same as the command, to start
from in drgn's REPL or a script. It uses drgn's default program. Each command writes its own
code with these functions.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drgn import Program

from drgn_zonedev.commands.base import STANDARD_OUTPUT, Command

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = (
    "JSON",
    "TEXT",
    "print_code",
    "print_of_kernel_code",
    "print_rendered_code",
    "print_value_code",
    "python_code",
    "write_code",
)

TEXT, JSON = "drgn_zonedev.render.as_text", "drgn_zonedev.render.as_json"


def python_code(
    prog: Program, command: Command, args: argparse.Namespace, words: Sequence[str]
) -> str:
    """
    Write Python code that does the same as a command.

    :param args: Its arguments, parsed.
    :param words: Its name and its arguments, as they were given.
    """
    from drgn.commands import DrgnCodeBuilder

    builder = DrgnCodeBuilder(prog)
    if _is_expressed(command, args):
        command.drgn_code.write(builder, args)
    else:
        # For other output, such as JUnit, run the command itself.
        line = shlex.join(["zonedev", *(word for word in words if word != "--drgn")])
        write_code(
            builder,
            f"result = run_command(get_default_prog(), {line!r})\n",
            "drgn:get_default_prog",
            "drgn.commands:run_command",
        )
    return builder.get()


# Options of the terminal do not matter for code.
_NEVER_MATTER = ("command", "drgn", "format", "output", "all", "no_pager", "color")


def _is_expressed(command: Command, args: argparse.Namespace) -> bool:
    if getattr(args, "format", "text") not in command.drgn_code.formats:
        return False
    known = {*_NEVER_MATTER, *command.drgn_code.expresses}
    return not any(value for name, value in vars(args).items() if name not in known)


def write_code(builder: DrgnCodeBuilder, code: str, *imports: str) -> None:
    """
    Write code, and import what it uses.

    :param imports: ``module:name`` of each
    """
    for each in imports:
        builder.add_from_import(*each.split(":"))
    builder.append(code)


def print_code(
    builder: DrgnCodeBuilder,
    args: argparse.Namespace,
    text: tuple[str, str, str],
    document: tuple[str, str, str],
) -> None:
    """
    Write code that prints a text or a document, as ``--format`` and ``--output`` ask for.

    :param text: A module, a function in it, and its arguments.
    :param document: The same, for JSON.
    """
    is_json = _is_json(args)
    module, function, arguments = document if is_json else text
    builder.add_from_import(module, function)
    value = f"{function}({arguments})"
    if is_json:
        builder.add_from_import(JSON, "render")
        value = f"render({value})"
    _print(builder, args, value)


def print_value_code(
    builder: DrgnCodeBuilder, args: argparse.Namespace, name: str, module: str
) -> None:
    """Write code like :func:`print_code()`, for a variable that prints as the text."""
    if _is_json(args):
        document = module, f"{name}_document", name
        print_code(builder, args, document, document)
    else:
        _print(builder, args, name)


def _is_json(args: argparse.Namespace) -> bool:
    return getattr(args, "format", "text") == "json"


def _print(builder: DrgnCodeBuilder, args: argparse.Namespace, value: str) -> None:
    if args.output in STANDARD_OUTPUT:
        builder.append(f"print({value})\n")
        return
    with builder.begin_block(f'with open({args.output!r}, "w") as f:\n'):
        builder.append(f"print({value}, file=f)\n")


def print_of_kernel_code(
    builder: DrgnCodeBuilder, args: argparse.Namespace, name: str, text_only: str = ""
) -> None:
    """
    Write code that prints objects of the kernel, such as sections.

    :param name: The variable that holds them; it is also the prefix of the functions that
        render them.
    """
    builder.add_from_import("drgn_zonedev.classification.facts", "kernel_facts")
    arguments = f"kernel_facts(), {name}"
    text = (TEXT, f"{name}_text", f"{arguments}{text_only}")
    print_code(builder, args, text, (JSON, f"{name}_document", arguments))


def print_rendered_code(
    builder: DrgnCodeBuilder, args: argparse.Namespace, name: str, arguments: str = "report"
) -> None:
    """
    Write code that prints what has its own module in ``render``.

    :param name: Of the module; it is also the prefix of the functions there.
    """
    module = f"drgn_zonedev.render.{name}"
    text, document = (f"{name}_{what}" for what in ("text", "document"))
    print_code(builder, args, (module, text, arguments), (module, document, arguments))
