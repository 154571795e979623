# SPDX-License-Identifier: LGPL-2.1-or-later

"""``docs/walkers.md``, from the table of PFN walkers."""

from __future__ import annotations

from collections.abc import Iterator

from drgn_zonedev.pfn_walkers.outcome import FATAL, Act, WalkOutcome
from drgn_zonedev.pfn_walkers.table import ONLY_STABLE, WALKERS, Guard, Walker

__all__ = ("document",)


def document() -> str:
    """Get ``docs/walkers.md``."""
    return "\n".join(_document()) + "\n"


_INTRODUCTION = """# The walkers

The PFN walkers of the kernel that `zonedev walkers` judges: where they are, what they check before
they read a struct page, and what they do with it. What is checked in the struct page itself comes
after *then*. A walker with several guards has the last one that this kernel has, by a function, a
feature, or else the release. Stable trees take fixes: where it was found from which release on, the
third number counts, and where a kernel does not say it (Ubuntu's 5.15.0-91), it is not judged.

*Known* names the sources that were read, and the commit, and nothing else is known of a guard:
releases between those were not read, and v5.4 only where it is named. A *tree* of a release has
changes of a vendor, or is from the weeks after it. What was booted is what *Proof* names.

`page_zone()` of a struct page whose zone does not exist leads behind `node_zones[]`. Comparing it
with the zone that is walked is harmless. Who *changes the per-CPU pagesets of its zone* follows a
word that lies there; who *takes the lock of its zone* writes there.

Left out is what asks about a PFN and reads nothing of its struct page: `mark_nosave_pages()` and
the other loops of hibernation that end in a bitmap, `page_ext_from_phys()`, virtio-mem's test
whether a block is offline. So is what runs at boot only, before there is device memory, and what
finds its PFNs in a list of its own (allocation tags)."""

_OUTCOMES = """
## What can happen

From the worst to the best. With those in bold, the kernel dies, or may.
"""


_CHANGES = """
## First releases

Of each guard that older kernels do not have. Where no release is named, the debugging
information shows the guard, or no kernel that is read is older.

| walker | since | commit |
|---|---|---|"""


def _document() -> Iterator[str]:
    yield _INTRODUCTION
    yield _CHANGES
    for walker in WALKERS:
        for guard in walker.guards:
            if _since(guard) or guard.commit:
                yield f"| {walker.name} | {_since(guard)} | {guard.commit or 'not found'} |"
    for walker in WALKERS:
        yield ""
        yield from _section(walker)
    yield _OUTCOMES
    for outcome in WalkOutcome:
        name = outcome.name.lower().replace("_", "-")
        yield f"- {f'**{name}**' if outcome in FATAL else name}: it {outcome.value}"


def _section(walker: Walker) -> Iterator[str]:
    yield f"## {walker.name}"
    yield ""
    older = f" (before: `{walker.older}()`)" if walker.older else ""
    moved = ""
    if walker.moved:
        (major, minor), file = walker.moved
        moved = f" (before v{major}.{minor}: {file})"
    until = " until v{}.{}".format(*walker.until) if walker.until else ""
    yield f"{walker.what}: `{walker.function}()`{older} in {walker.file}{moved}{until}"
    which = f"the last of {walker.stride.value}" if walker.stride and walker.last else ""
    which = which or (walker.stride.value if walker.stride else "")
    if which:
        yield f"(it reads {which})"
    yield ""
    for guard in walker.guards:
        yield f"- {_guard(guard)}"
        yield f"  It {', '.join(_does(guard))}."
        yield f"  {_known(guard)}"
    if walker.note:
        yield ""
        yield f"Note: {walker.note}."
    if walker.proof:
        yield ""
        yield f"Proof: {walker.proof.what}: {', '.join(walker.proof.releases)}."


def _since(guard: Guard) -> str:
    linus = [guard.since] if any(guard.since) and guard.since != ONLY_STABLE else []
    return ", ".join("v" + ".".join(map(str, release)) for release in (*linus, *guard.stable))


def _guard(guard: Guard) -> str:
    since = f"since {_since(guard)}: " if _since(guard) else ""
    steps = ", ".join(guard.steps) or "nothing"
    filters = "".join(f", then {name}" for name in guard.filters)
    return f"**Guard** {since}{steps}{filters}."


def _does(guard: Guard) -> Iterator[str]:
    for each in guard.does:
        yield each.value if isinstance(each, Act) else f"goes on if {each}"


def _known(guard: Guard) -> str:
    by = guard.function and f"`{guard.function}()`"
    how = f"; shown by {by or guard.feature}" if by or guard.feature else ""
    return f"Known: {guard.source}{how}."
