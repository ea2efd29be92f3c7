"""Where a training stands: sums over steps, the best epoch, and the end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.errors import UserError
from tlcluster.training.schedule import Schedule
from tlcluster.training.state import (
    Scores,
    StepSums,
    TrainingState,
    Used,
    after_epoch,
    after_steps,
    is_over,
    progress_of,
)

SCHEDULE = Schedule(
    rank=1,
    workers=2,
    seed=5,
    global_batch=50,
    learning_rate=2e-3,
    steps=4,
    epochs=9,
    patience=3,
    warmup=0.5,
)


def trained(accuracies: list[int]) -> TrainingState:
    """The state after epochs with these right answers of 100; stops like the loop."""
    state = TrainingState()
    for correct in accuracies:
        if is_over(state, SCHEDULE):
            break
        state = after_steps(state, 4, StepSums(230.0, 20, 200, 0), 2.0, waited=0.25)
        scores = Scores(150.0, correct, 100)
        used = Used({"a": 1.5}, 7.0, "RAPL")
        times = {"validation_seconds": 0.5, "sum_seconds": 0.125}
        state = after_epoch(state, scores, SCHEDULE, **times, used=used)
    return state


def test_steps_add_up_in_whatever_calls_they_come() -> None:
    sums = StepSums(2.5, 3, 10, 0)
    state = after_steps(after_steps(TrainingState(), 1, sums, 0.5), 8, sums, 1.5)
    assert state == TrainingState(step=9, loss_sum=5.0, correct=6, rows=20, train_seconds=2.0)
    waited = after_steps(after_steps(state, 1, sums, 0.5, waited=0.25), 1, sums, 0.5, waited=0.5)
    assert (waited.train_seconds, waited.input_seconds) == (3.0, 0.75)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_and_says_where(loss: float) -> None:
    before = TrainingState(epoch=3, step=8)
    with pytest.raises(UserError) as caught:
        after_steps(before, 4, StepSums(loss, 3, 10, 0), 0.5)
    assert str(caught.value) == (
        f"the loss became {loss} in steps 9 to 12 of epoch 3: the training diverged; give it a "
        "smaller learning_rate or clip_norm, --set NAME.learning_rate=1e-4"
    )


def test_an_epoch_record_holds_the_means_of_the_epoch() -> None:
    state = trained([40])
    (record,) = state.history
    assert record.model_dump() == {
        "epoch": 1,
        "loss": 1.15,
        "accuracy": 0.1,
        "val_loss": 1.5,
        "val_accuracy": 0.4,
        "seconds": 2.5,
        "images_per_second": 100.0,
        "learning_rate": 2e-3 * (4 / 18),  # of the last step
        "workers": 2,
        "feature_seconds": {"a": 1.5},
        "input_seconds": 0.25,
        "validation_seconds": 0.375,
        "sum_seconds": 0.125,
        "joules": 7.0,
        "energy_source": "RAPL",
    }
    assert (state.epoch, state.step, state.rows, state.train_seconds) == (2, 0, 0, 0.0)
    assert state.input_seconds == 0.0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_training_stops_at_the_patience_after_the_first_of_the_best_epochs(
    accuracies: list[int],
) -> None:
    state = trained(accuracies)
    seen = accuracies[: len(state.history)]
    best = seen.index(max(seen)) + 1
    assert state.best_epoch == best
    assert state.best_accuracy == max(seen) / 100
    assert state.improved == (best == len(seen))
    assert state.waited == len(seen) - best
    assert state.stopped_early == (state.waited >= 3)
    assert is_over(state, SCHEDULE) == (state.stopped_early or len(seen) == 9)
    assert is_over(state, SCHEDULE) or len(seen) == len(accuracies)


def test_a_loss_in_validation_that_is_no_number_decides_nothing() -> None:
    state = after_steps(TrainingState(), 4, StepSums(230.0, 20, 200, 0), 2.0)
    state = after_epoch(state, Scores(float("nan"), 10, 100), SCHEDULE, validation_seconds=0.5)
    assert state.improved
    assert state.best_accuracy == 0.1


def test_progress_shows_the_rate_of_this_epoch_or_of_the_last() -> None:
    start = progress_of(TrainingState(), SCHEDULE, "training")
    assert (start.images_per_second, start.accuracy, start.best_accuracy) == (0.0, None, None)
    state = trained([40, 30])
    between = progress_of(state, SCHEDULE, "training")
    assert (between.epoch, between.epochs, between.step, between.steps) == (3, 9, 0, 4)
    assert (between.images_per_second, between.accuracy, between.best_accuracy) == (100, 0.3, 0.4)
    state = after_steps(state, 1, StepSums(1.0, 1, 50, 0), 1.0)
    assert progress_of(state, SCHEDULE, "training").images_per_second == pytest.approx(50)
    assert progress_of(trained([40, 30]), SCHEDULE, "testing").epoch == 2
