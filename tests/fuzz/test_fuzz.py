# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Damaged dumps, drawn by hypothesis, and those that once broke something.

What is promised is in trial.py. scripts/fuzz does the same at length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from fuzz.image import Image
from fuzz.mutation import Recipe, apply, draw_recipe, load_recipe, recipe_text
from fuzz.run import CORPUS, kept, known, unpacked, workers
from fuzz.trial import Limits, try_recipes
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# A kernel of each kind of struct page, and devices of each kind of memmap.
DUMPS = ("5.10-fsdax-collision", "6.1-devdax-2m", "6.12-two-in-one", "7.3-init-in-flight")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with workers(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pool: ProcessPoolExecutor) -> dict[str, Image]:
    directory = tmp_path_factory.mktemp("dumps")
    found = {image.name: image for image in unpacked(directory) + kept(directory)}
    return {**found, **{name: pool.submit(known, found[name]).result() for name in DUMPS}}


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    # A recipe is small as it is, and a failure is to be seen while somebody waits.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(name=st.sampled_from(DUMPS), rng=st.randoms(use_true_random=False))
def test_damaged_dump_is_answered(
    pool: ProcessPoolExecutor, images: dict[str, Image], name: str, rng: random.Random
) -> None:
    image = images[name]
    recipe = draw_recipe(rng, image, image.contents())
    (outcome,) = pool.submit(try_recipes, image, [recipe]).result()
    # Shown whole, which a comparison is not.
    if outcome.failures:
        pytest.fail("\n".join((*outcome.failures, recipe_text(recipe))))


@settings(max_examples=4, deadline=None, derandomize=True)
@given(size=st.integers(0, 4096))
def test_dump_that_ends_in_its_headers_cannot_be_opened(
    pool: ProcessPoolExecutor, images: dict[str, Image], size: int
) -> None:
    image = images[DUMPS[0]]
    recipe = Recipe(image.name, (), size, ("ranges",))
    (outcome,) = pool.submit(try_recipes, image, [recipe]).result()
    assert not outcome.failures
    assert (outcome.statuses, outcome.opened) == ((2, 2), False)


def corpus() -> list[Path]:
    return sorted(CORPUS.glob("*.json"))


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_damage_that_once_broke_something(
    pool: ProcessPoolExecutor, images: dict[str, Image], path: Path
) -> None:
    recipe = load_recipe(path)
    (outcome,) = pool.submit(try_recipes, images[recipe.dump], [recipe]).result()
    assert not outcome.failures


# Without CONFIG_ZONE_DEVICE, and without CONFIG_NUMA.
@pytest.mark.parametrize("name", ["6.1-arm64-empty", "7.3-debug-ghost"])
def test_kernels_that_lack_something_can_be_damaged_too(
    pool: ProcessPoolExecutor, images: dict[str, Image], name: str
) -> None:
    assert len(pool.submit(known, images[name]).result().structures) >= 5


def test_sound_dump_is_answered(pool: ProcessPoolExecutor, images: dict[str, Image]) -> None:
    recipe = Recipe(DUMPS[1], (), None, ("ranges", "--format", "json"))
    (outcome,) = pool.submit(try_recipes, images[DUMPS[1]], [recipe]).result()
    assert (outcome.statuses, outcome.failures, outcome.opened) == ((0, 0), (), True)


def test_hang_is_a_failure_and_does_not_stop_the_others(
    pool: ProcessPoolExecutor, images: dict[str, Image]
) -> None:
    recipe = Recipe(DUMPS[1], (), None, ("ranges",))
    outcomes = pool.submit(
        try_recipes, images[DUMPS[1]], [recipe] * 2, Limits(seconds=0.01)
    ).result()
    assert len(outcomes) == 2
    assert all(o.failures[0].startswith("hang") for o in outcomes)


def test_greed_is_a_failure(pool: ProcessPoolExecutor, images: dict[str, Image]) -> None:
    recipe = Recipe(DUMPS[1], (), None, ("ranges",))
    (outcome,) = pool.submit(
        try_recipes, images[DUMPS[1]], [recipe], Limits(memory=1 << 20)
    ).result()
    assert outcome.failures


def test_recipes_say_the_same_twice(images: dict[str, Image], tmp_path: Path) -> None:
    image = images[DUMPS[2]]
    contents = image.contents()
    drawn = [draw_recipe(random.Random(seed), image, contents) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    (tmp_path / "recipe").write_text(recipe_text(drawn[2]))
    kept = load_recipe(tmp_path / "recipe")
    assert kept == drawn[2]
    assert apply(contents, kept) != contents
