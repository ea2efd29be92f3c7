"""Which features of frozen lower blocks are kept; their use is in test_model and test_train."""

import functools
from collections.abc import Iterator

import pytest
import tf_keras as keras

from tlcluster.backbones import BACKBONES
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.training.base import build_base, tapped
from tlcluster.training.lower_part import (
    LEAST_FLOP_PER_BYTE,
    MOST_ROW_BYTES,
    is_kept,
    row_bytes,
    worth_keeping,
)


@functools.cache
def base_of(name: str, side: int) -> keras.Model:
    return build_base(BACKBONES[name], (side, side, 3))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the bases at the end."""
    yield
    base_of.cache_clear()
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("row", "flop", "kept"),
    [
        (MOST_ROW_BYTES, MOST_ROW_BYTES * LEAST_FLOP_PER_BYTE, True),
        (MOST_ROW_BYTES + 4, 1e12, False),
        (1024, 1024 * LEAST_FLOP_PER_BYTE - 1, False),
    ],
)
def test_features_are_kept_that_are_small_and_save_much_work(
    row: int, flop: float, kept: bool
) -> None:
    assert worth_keeping(row, flop) == kept


@pytest.mark.parametrize(
    ("base", "side", "first", "recipe", "row", "kept"),
    [
        ("vgg16", 32, "first", {}, 0, False),
        ("vgg16", 32, "block1", {}, 0, False),  # nothing with weights is below it
        ("vgg16", 32, "block2", {}, 16 * 16 * 64, False),
        ("vgg16", 32, "block4", {}, 4 * 4 * 256, True),
        ("vgg16", 32, "block4", {"taps": "block2,last"}, 4 * 4 * 256 + 128, True),
        ("vgg16", 32, "block4", {"mixup": 0.2}, 0, False),
        ("vgg16", 64, "block4", {}, 8 * 8 * 256, True),
        ("vgg16", 96, "block4", {}, 12 * 12 * 256, False),
        ("mobilenet_v2", 32, "expanded_conv", {}, 16 * 16 * 32, False),
        ("mobilenet_v2", 32, "block_13", {}, 2 * 2 * 96, True),
    ],
)
def test_the_features_of_lower_blocks_are_worth_it_or_not(
    base: str, side: int, first: str, recipe: dict[str, object], row: int, kept: bool
) -> None:
    fields = {**EXPERIMENTS["finetuned"].model_dump(), "base": base, "trainable_from": first}
    experiment = Experiment(**{**fields, **recipe})
    trunk = tapped(base_of(base, side), experiment.taps.split(","))
    assert row_bytes(trunk, experiment) == 4 * row
    assert is_kept(trunk, experiment) == kept
