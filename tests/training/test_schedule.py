"""Schedules: what one worker reads in every step, wherever it starts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.training.schedule import Schedule, StepRows, training_rows

SHARDS = np.array([30, 20, 41], np.int64)
STEPS = 10


def steps(epoch: int = 1, step: int = 0, rank: int = 0, workers: int = 1) -> list[StepRows]:
    schedule = Schedule(
        rank=rank,
        workers=workers,
        seed=5,
        global_batch=10,
        learning_rate=1e-3,
        steps=STEPS,
        epochs=3,
        patience=10,
        curve="cosine",
        warmup=0.1,
    )
    rows = training_rows(schedule, SHARDS, epoch=epoch, step=step, view=lambda epoch: 10 * epoch)
    return list(rows)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(0, STEPS))
def test_a_start_in_the_middle_gives_the_rest_of_the_same_steps(epoch: int, step: int) -> None:
    whole = steps()
    rest = steps(epoch, step)
    assert len(whole) == 3 * STEPS
    for found, expected in zip(rest, whole[(epoch - 1) * STEPS + step :], strict=True):
        assert found[:3] == expected[:3]
        np.testing.assert_array_equal(found.rows.sample, expected.rows.sample)


def test_every_epoch_shows_its_view_and_every_sample_once_over_all_workers() -> None:
    parts = [steps(rank=rank, workers=3) for rank in range(3)]
    for epoch in (1, 2, 3):
        samples = [
            sample
            for part in parts
            for step in part
            if step.epoch == epoch
            for sample in step.rows.sample
        ]
        assert sorted(samples) == list(range(91))
    assert {(step.epoch, step.view) for step in parts[0]} == {(1, 10), (2, 20), (3, 30)}
