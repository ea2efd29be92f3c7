"""The learning rate of each step: it rises, then stays or falls, wherever a training starts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.training.learning_rate import share
from tlcluster.training.schedule import Schedule

warmups = st.floats(0, 1, exclude_max=True)
curves = st.sampled_from(["constant", "cosine"])


def shares(steps: int, curve: str, warmup: float) -> list[float]:
    return [share(step, steps, curve=curve, warmup=warmup) for step in range(steps)]  # type: ignore[arg-type]


@given(steps=st.integers(1, 500))
def test_a_constant_rate_without_warm_up_is_exactly_the_recipe_s(steps: int) -> None:
    assert set(shares(steps, "constant", 0.0)) == {1.0}


@given(steps=st.integers(1, 500), curve=curves, warmup=warmups)
def test_the_rate_rises_to_the_recipe_s_and_then_never_rises_again(
    steps: int, curve: str, warmup: float
) -> None:
    found = shares(steps, curve, warmup)
    top = found.index(max(found))
    assert max(found) == 1.0
    assert abs(top + 1 - warmup * steps) <= 1 or top == 0
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert min(found) > 0


def test_the_warm_up_is_a_line_and_the_cosine_has_its_half_in_the_middle() -> None:
    found = shares(100, "cosine", 0.2)
    assert found[:20] == pytest.approx([n / 20 for n in range(1, 21)])
    assert found[20] == 1.0
    assert found[60] == pytest.approx(0.5)
    assert found[99] == pytest.approx((1 - math.cos(math.pi / 80)) / 2)
    assert shares(100, "constant", 0.2)[20:] == [1.0] * 80


@given(epochs=st.integers(1, 9), steps=st.integers(1, 30), curve=curves, warmup=warmups)
def test_the_rates_of_the_epochs_one_after_another_are_one_curve(
    epochs: int, steps: int, curve: str, warmup: float
) -> None:
    schedule = Schedule(
        rank=0,
        workers=1,
        seed=5,
        global_batch=10,
        learning_rate=0.25,
        steps=steps,
        epochs=epochs,
        patience=3,
        curve=curve,  # type: ignore[arg-type]
        warmup=warmup,
    )
    found = [schedule.rate(epoch, n) for epoch in range(1, epochs + 1) for n in range(steps)]
    assert found == [0.25 * one for one in shares(epochs * steps, curve, warmup)]
