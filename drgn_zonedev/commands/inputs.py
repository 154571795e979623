# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Inputs
------

What a command reads besides the program: bounded, as a device or a pipe may never end, and never
overwritten by an output.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from drgn_zonedev.commands.base import STANDARD_OUTPUT, UsageError
from drgn_zonedev.util.output_files import identities, is_one_of

__all__ = ("OverwriteError", "input_data", "named_files", "refuse_overwriting")

# Names of arguments, of all commands; for outputs, also the option.
_OUTPUTS = {"output": "-o", "junit": "--junit", "json": "--json", "html": "--html", "out": "OUT"}
_INPUTS = ("core", "kernel", "vmlinux", "system_map", "modules", "vmcores", "vmcoreinfo", "log")
_REPORTS = ("baseline", "old", "new")
_STDOUT = 1
# Of a report or a log. Reports of the largest machines have some megabytes.
_MAX_BYTES = 1 << 30


class OverwriteError(UsageError):
    """An output is also an input. Nothing is written to it, not even an error."""


def input_data(path: str, advice: str) -> bytes:
    """
    Read a file to its end, ``-`` for standard input.

    :param advice: What to do if it cannot be read.
    :raises UsageError: if it cannot be read, or does not end within 1 GiB
    """
    try:
        with _opened(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise UsageError(f"cannot read {path}: {e.strerror or e}: {advice}") from e
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} is longer than 1 GiB: {advice}")
    return data


def _opened(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if path != "-":
        return open(path, "rb")
    # Python has none if it was closed.
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return contextlib.nullcontext(sys.stdin.buffer)


def named_files(args: argparse.Namespace) -> Iterator[Path]:
    """
    Get the files and directories that arguments say to read. Commands read files in such a
    directory, or one level below.
    """
    paths = [Path(path) for path in getattr(args, "symbols", ())]
    # --kernel names a file for lab; for other commands it is a flag.
    named = [getattr(args, name, None) for name in (*_INPUTS, *_REPORTS)]
    paths += [Path(path) for path in named if isinstance(path, (str, Path))]
    for path in paths:
        yield path
        with contextlib.suppress(OSError):
            yield from (below for below in path.glob("*") if below.is_dir())


def refuse_overwriting(args: argparse.Namespace, inputs: Iterable[Path]) -> None:
    """
    Make sure that no output is an input, by whatever path, symbolic or hard link.

    :raises OverwriteError: if one is
    """
    known = identities(inputs)
    for name, option in _OUTPUTS.items():
        path = getattr(args, name, None)
        if path not in STANDARD_OUTPUT and is_one_of(path, known):
            raise OverwriteError(
                f"{path} is an input, which {option} would overwrite: choose another place"
            )
    if is_one_of(_STDOUT, known):
        raise OverwriteError(
            "standard output is redirected to an input: choose another place for it"
        )
