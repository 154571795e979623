# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fuzzing at length: ``scripts/fuzz --seed 1 --count 20000``.

Damages stored dumps at random and holds the tool to its promises: an answer, no
traceback, no hang, bounded memory, valid JSON, an exit status that says what
happened. A failure is written as a recipe to the corpus, which the tests replay.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory, stored_dumps

from .archives import SHARE, fuzz_archives
from .builtin import SHARE as BUILTIN_SHARE
from .builtin import fuzz_builtin
from .doors import DOOR_SHARE, DOORS, fuzz_doors
from .image import Image
from .mutation import Recipe, describe, draw_recipe, load_recipe, recipe_text
from .trial import LIMITS, Outcome, try_recipes

CORPUS = Path(__file__).parent / "corpus"

# Inputs that one worker does for one dump before it goes on to the next.
_BATCH = 25


def unpacked(directory: Path) -> list[Image]:
    """Unpack all stored dumps."""
    dumps = default_directory()
    if dumps is None:
        raise SystemExit("there are no stored dumps")
    return [_unpacked(d.name, d.path / ARCHIVE, directory) for d in stored_dumps(dumps)]


def kept(directory: Path) -> list[Image]:
    """
    Unpack the dumps that are stored no more, but that recipes of the corpus damage: an
    edit at an offset means something in the very dump that it was drawn for.
    """
    archives = sorted((CORPUS / "dumps").glob("*.tar.xz"))
    return [_unpacked(a.name[: -len(".tar.xz")], a, directory) for a in archives]


def _unpacked(name: str, archive: Path, directory: Path) -> Image:
    target = directory / name
    target.mkdir()
    unpack(archive, target)
    return Image(name, target)


@dataclass
class Tally:
    """What came of many inputs."""

    inputs: int = 0
    unopenable: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    failures: list[tuple[Recipe, tuple[str, ...]]] = field(default_factory=list)

    def add(self, recipe: Recipe, outcome: Outcome) -> None:
        where = f"{recipe.dump}: {recipe.what}"
        self.inputs += 1
        self.unopenable += not outcome.opened
        if outcome.statuses:
            self.statuses[outcome.statuses[0]] += 1
        self.slowest = max(self.slowest, (outcome.seconds, where))
        self.largest = max(self.largest, (outcome.memory, where))
        if outcome.failures:
            self.failures.append((recipe, outcome.failures))

    def merge(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.unopenable += other.unopenable
        self.statuses += other.statuses
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)
        self.failures += other.failures


def _batches(seed: int, count: int, images: list[Image]) -> Iterator[tuple[Image, int, int]]:
    rng = random.Random(seed)
    turn = 0
    while count > 0:
        if turn % len(images) == 0:
            rng.shuffle(images)
        size = min(_BATCH, count, max(1, count // len(images) + 1))
        yield images[turn % len(images)], rng.getrandbits(64), size
        count -= size
        turn += 1


def workers(jobs: int) -> ProcessPoolExecutor:
    """
    Get processes that can fork: drgn's threads (OpenMP) would keep the children of
    a process that has ever loaded debugging symbols with them waiting for ever.
    """
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", DEBUGINFOD_URLS="")
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))


def known(image: Image) -> Image:
    """Find out everything that recipes are drawn from, once for all workers."""
    assert image.structures
    assert image.small_reads
    assert image.large_reads
    assert image.pfns
    assert image.names
    assert image.vmemmap
    return image


def run_batch(image: Image, seed: int, count: int) -> Tally:
    """Draw and try inputs for one dump."""
    rng, contents, tally = random.Random(seed), image.contents(), Tally()
    recipes = [draw_recipe(rng, image, contents) for _ in range(count)]
    for recipe, outcome in zip(recipes, try_recipes(image, recipes)):
        tally.add(recipe, outcome)
    return tally


def _reason(failure: str) -> str:
    # What failures of one cause have in common: where the traceback ends.
    lines = [line.strip() for line in failure.splitlines() if line.strip()]
    at = [line for line in lines if line.startswith("File") and "drgn_zonedev" in line]
    if lines[0].startswith(("hang", "crash")):
        # The innermost frame comes first.
        return " | ".join([lines[0], *at[:2]])
    return " | ".join([lines[0][:120], *at[-1:], lines[-1][:160]])


def _keep(directory: Path, recipe: Recipe) -> Path:
    text = recipe_text(recipe)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.write_text(text, encoding="utf-8")
    return path


def replay(path: Path, images: list[Image]) -> Outcome:
    """Try a kept recipe."""
    recipe = load_recipe(path)
    image = next(i for i in images if i.name == recipe.dump)
    print(f"{path.name}: {recipe.dump}: {recipe.what}: {describe(recipe, image)}")
    return try_recipes(image, [recipe])[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.split("\n\n")[1])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dump", action="append", help="only dumps whose name has this")
    parser.add_argument("--builtin", action="store_true", help="only kernels' own BTF and kallsyms")
    parser.add_argument("--keep", type=Path, default=CORPUS, help="where failures are written")
    parser.add_argument("--replay", type=Path, nargs="+", help="try these recipes, nothing else")
    return parser.parse_args()


def main() -> int:
    """Run; the exit status is 1 if anything failed."""
    args = _arguments()
    if args.builtin:
        print(f"seed {args.seed}, {args.count} inputs")
        return int(bool(fuzz_builtin(args.seed, args.count, args.keep / "builtin")))
    with tempfile.TemporaryDirectory(prefix="zonedev-fuzz-") as directory:
        images = unpacked(Path(directory))
        if args.replay:
            images += kept(Path(directory))
            outcomes = [replay(path, images) for path in args.replay]
            for outcome in outcomes:
                print(outcome.statuses, f"{outcome.seconds:.3f} s", *outcome.failures, sep="\n")
            return int(any(o.failures for o in outcomes))
        if args.dump:
            images = [i for i in images if any(word in i.name for word in args.dump)]
        return _run(args, images)


def _run(args: argparse.Namespace, images: list[Image]) -> int:
    print(f"seed {args.seed}, {args.count} inputs, {len(images)} dumps, {args.jobs} jobs")
    total, start = Tally(), time.monotonic()
    archives = [dump.path / ARCHIVE for dump in stored_dumps(default_directory() or CORPUS)]
    packed, each = args.count // SHARE, args.count // DOOR_SHARE
    failed = fuzz_archives(args.seed, packed, archives, args.keep / "archives")
    failed += fuzz_doors(args.seed, each, images)
    failed += fuzz_builtin(args.seed, args.count // BUILTIN_SHARE, args.keep / "builtin")
    with workers(args.jobs) as pool:
        images = list(pool.map(known, images))
        batches = _batches(args.seed, args.count - packed - each * len(DOORS), images)
        for done in as_completed([pool.submit(run_batch, *batch) for batch in batches]):
            tally = done.result()
            total.merge(tally)
            for recipe, failures in tally.failures:
                print(f"FAILED {_keep(args.keep, recipe)}: {_reason(failures[0])}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{total.inputs}/{args.count}", end="", file=sys.stderr)
    _print_summary(total, time.monotonic() - start)
    return int(bool(total.failures or failed))


def _print_summary(total: Tally, seconds: float) -> None:
    print(
        f"{total.inputs} inputs in {seconds:.0f} s: "
        + ", ".join(f"{n} with status {s}" for s, n in sorted(total.statuses.items()))
        + f"; {total.unopenable} of them drgn cannot open"
    )
    print(f"slowest: {total.slowest[0]:.2f} s of {LIMITS.seconds:.0f} s ({total.slowest[1]})")
    memory, limit = total.largest[0] >> 20, LIMITS.memory >> 20
    print(f"largest: {memory} MiB of {limit} MiB ({total.largest[1]})")
    causes = Counter(_reason(failures[0]) for _, failures in total.failures)
    for cause, count in causes.most_common():
        print(f"{count:5} {cause}")
    print(f"{len(total.failures)} failures")


if __name__ == "__main__":
    sys.exit(main())
