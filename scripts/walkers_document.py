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
they read a struct page, and what they do with it. After *then* come the checks of the struct page
itself. If a walker has several guards, the last one that the kernel has counts; a function, a
feature, or else the release shows which it has. Stable trees take fixes: where it was found from
which stable release on a guard is there, the third number of the release counts, and a kernel that
does not show it (Ubuntu's 5.15.0-91) is not judged.

*Known* names the commit, and the sources that were read; nothing else is known of a guard. Releases
in between were not read, and v5.4 only where it is named. A *tree* of a release has changes of a
vendor, or is from the weeks after the release. *Proof* names the kernels that were booted.

If the zone of a struct page does not exist, `page_zone()` points past the end of `node_zones[]`.
Comparing it with the zone that is walked is harmless. A walker that *changes the per-CPU pagesets
of its zone* follows a word that lies there; one that *takes the lock of its zone* writes there.

Left out are walkers that ask about a PFN, but do not read its struct page: `mark_nosave_pages()`
and the other loops of hibernation that end in a bitmap, `page_ext_from_phys()`, and virtio-mem's
test whether a block is offline. Also left out are those that run only at boot, before there is
device memory, and those that find their PFNs in a list of their own (allocation tags)."""

_OUTCOMES = """
## What can happen

From the worst to the best. In bold are those that kill the kernel, or may.
"""


_CHANGES = """
## First releases

These are the first releases of guards that older kernels do not have. Where no release is named,
the debugging information shows the guard, or every kernel that can be read has it.

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
