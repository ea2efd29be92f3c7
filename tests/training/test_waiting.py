"""How long steps waited for their input, against a queue that is played step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.training.waiting import waited


def played(came: list[float], began: float, step: float) -> tuple[float, float]:
    """When the last step ends, and how long all of them waited, if a step takes `step`."""
    now, waiting = began, 0.0
    for at in came:
        waiting += max(0.0, at - now)
        now = max(now, at) + step
    return now, waiting


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=8),
    st.floats(0, 10),
    st.floats(0.01, 5),
)
def test_waiting_is_what_a_queue_of_equal_steps_waits(
    gaps: list[float], began: float, step: float
) -> None:
    came = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    ended, waiting = played(came, began, step)
    assert waited(came, began, ended) == pytest.approx(waiting, abs=1e-9)


def test_batches_that_were_there_are_not_waited_for() -> None:
    assert waited([1.0, 2.0, 3.0], 4.0, 7.0) == 0.0


def test_a_single_step_waits_until_its_batch_comes() -> None:
    assert waited([6.0], 4.0, 7.0) == 2.0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8).map(sorted), st.floats(0, 20))
def test_waiting_is_never_less_than_nothing_nor_more_than_the_call(
    came: list[float], longer: float
) -> None:
    began, ended = 0.0, came[-1] + longer
    assert -1e-9 <= waited(came, began, ended) <= ended - began
