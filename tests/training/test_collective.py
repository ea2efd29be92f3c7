"""Collectives: sums and joins over workers, whatever the part of each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tlcluster.training.collective import joined, joined_lines, local, total


@pytest.fixture(scope="module")
def alone() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.int64])
def test_alone_a_sum_and_a_join_are_the_worker_s_own(
    alone: tf.distribute.Strategy, dtype: tf.DType
) -> None:
    value = tf.cast([[1, 2], [3, 4], [5, 6]], dtype)
    for ours in (total(alone, value), joined(alone, value)):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours.numpy(), value.numpy())
    np.testing.assert_array_equal(joined(alone, value[:0]).numpy(), value[:0].numpy())


def test_a_line_comes_back_as_it_was(alone: tf.distribute.Strategy) -> None:
    line = '{"host": "knoten-ä", "device": "CPU, 1 thread"}'
    assert joined_lines(alone, line) == [line]
    assert joined_lines(alone, "") == [""]


def test_the_local_copy_of_a_variable_is_the_variable(alone: tf.distribute.Strategy) -> None:
    with alone.scope():
        variable = tf.Variable([1.0, 2.0])
    local(alone, variable).assign([3.0, 4.0])
    np.testing.assert_array_equal(local(alone, variable).numpy(), [3, 4])
    np.testing.assert_array_equal(local(alone, tf.constant(7)).numpy(), 7)


@pytest.mark.cluster
def test_real_workers_sum_and_join_parts_of_any_length_by_rank(
    run_wave: Callable[..., list[Any]],
) -> None:
    parts = [[], [1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]
    lines = ["rank 0", "", "rang 2, ä"]
    (answers,) = run_wave(
        [[{"rows": rows, "line": line} for rows, line in zip(parts, lines, strict=True)]]
    )
    assert answers == 3 * [
        {"lines": lines, "joined": [[1, 2], [3, 4], [5, 6]], "total": [6, 3]},
    ]
