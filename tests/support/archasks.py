# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Find the code that does something else on another architecture, whatever words it asks with.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from drgn import Architecture

MEMBERS = {member.name for member in Architecture} - {"UNKNOWN"}
# As drgn, Debian, uname(2) and the kernel's folders say.
NAMES = {
    *(name.lower() for name in MEMBERS),
    *("x86", "x86-64", "x86_64", "amd64", "i386", "i686", "arm", "arm64", "aarch64"),
    *("powerpc", "ppc", "ppc64", "ppc64le", "ppc64el", "s390", "s390x"),
    *("riscv", "riscv64", "loong64", "loongarch", "loongarch64"),
}
WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(NAMES)})(?![a-z0-9])", re.IGNORECASE)
# They look for a part of a string.
SEARCHES = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "find", "index", "count"),
    *("match", "fullmatch", "search", "compile", "split", "partition", "rpartition"),
}
# A file of the kernel's source.
FILE = re.compile(r"\b(?:(?:arch|include|mm)/[\w/.-]+\.[chS]|arch/(?:\w+/)?Kconfig)\b")


def asks(source: str) -> list[ast.expr]:
    """Return the expressions that ask which architecture it is."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.expr))
    return [node for node in found if _asks(node)]


def followed(source: str) -> Iterator[set[str]]:
    """
    For each statement of a module that asks, get the files of the kernel that are named in it, in
    what it refers to in this module, and in comments before either.
    """
    statements, lines = ast.parse(source).body, source.splitlines()
    ends = [statement.end_lineno or 0 for statement in statements]
    texts = ["\n".join(lines[start:end]) for start, end in zip([0, *ends], ends)]
    by_name = {name: at for at, s in enumerate(statements) for name in _defined(s)}

    def reached(at: int, seen: set[int]) -> set[int]:
        if at not in seen:
            seen.add(at)
            for node in ast.walk(statements[at]):
                if isinstance(node, ast.Name) and node.id in by_name:
                    reached(by_name[node.id], seen)
        return seen

    for at, statement in enumerate(statements):
        if any(_asks(node) for node in ast.walk(statement)):
            yield {file for i in reached(at, set()) for file in FILE.findall(texts[i])}


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _asks(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in MEMBERS
    if isinstance(node, ast.Constant):
        return str(node.value).lower() in NAMES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and (
            node.func.attr in SEARCHES and any(_names(argument) for argument in node.args)
        )
    if isinstance(node, ast.Compare):
        return _names(node.left) or _compares(node)
    return isinstance(node, ast.Subscript) and _is_architecture(node.slice)


def _names(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(WORD.search(str(node.value)))


def _compares(node: ast.Compare) -> bool:
    # What is open may be of no known architecture, or not of the one that was asked for.
    parts = [part for side in node.comparators for part in getattr(side, "elts", [side])]
    constants = [part for part in parts if not _is_architecture(part)]
    if all(isinstance(part, ast.Attribute) and part.attr == "UNKNOWN" for part in constants):
        return False
    return any(_is_architecture(side) for side in (node.left, *parts))


def _is_architecture(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("arch", "architecture")
