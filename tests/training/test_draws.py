"""Draws: uniform, independent, and a function of their key alone."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.training import draws

WORD = 2**32 - 1


def drawn(
    seed: int, stream: int, view: int | list[int], samples: list[int], count: int = 3
) -> np.ndarray:
    return draws.uniform(
        seed, stream, tf.constant(view, tf.int64), tf.constant(samples, tf.int64), count
    ).numpy()


def mixed(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


def in_whole_numbers(seed: int, stream: int, view: int, sample: int, count: int) -> list[float]:
    """The same hash in Python's integers, which never wrap."""
    key = mixed((seed ^ stream * 0x9E3779B9) & WORD)
    key = mixed(key ^ view & WORD)
    key = mixed(key ^ sample & WORD)
    key = mixed(key ^ sample >> 32)
    return [
        (mixed(key + number * 0x9E3779B9 & WORD) >> 8) / 2**24 for number in range(1, count + 1)
    ]


def test_draws_are_uniform_and_independent() -> None:
    unit = drawn(524, 1, 0, list(range(20_000)), 7)
    assert unit.dtype == np.float32
    assert unit.min() >= 0
    assert unit.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in unit.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(1)
    assert (chi_square < 43.8).all()  # 99.9 % of 19 degrees of freedom
    assert np.abs(np.corrcoef(unit.T) - np.eye(7)).max() < 0.03
    assert np.abs(np.corrcoef(unit[:-1, 0], unit[1:, 0])[0, 1]) < 0.03


def test_every_part_of_the_key_gives_draws_of_its_own() -> None:
    samples = list(range(5000))
    first = drawn(524, 1, 3, samples)[:, 0]
    others = {
        "seed": drawn(525, 1, 3, samples),
        "stream": drawn(524, 2, 3, samples),
        "view": drawn(524, 1, 4, samples),
        "sample": drawn(524, 1, 3, [sample + 5000 for sample in samples]),
        "sample beyond 32 bits": drawn(524, 1, 3, [sample + 2**32 for sample in samples]),
    }
    for part, other in others.items():
        assert np.abs(np.corrcoef(first, other[:, 0])[0, 1]) < 0.06, part


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    stream=st.integers(1, 9),
    view=st.integers(0, 2**31),
    samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
)
def test_draws_are_those_of_exact_arithmetic(
    seed: int, stream: int, view: int, samples: list[int]
) -> None:
    exact = [in_whole_numbers(seed, stream, view, sample, 3) for sample in samples]
    assert drawn(seed, stream, view, samples).tolist() == exact
    # One view for all or one for each, alone or in company: the draws are those of the key.
    assert drawn(seed, stream, [view] * len(samples), samples).tolist() == exact
    assert drawn(seed, stream, view, samples[-1:]).tolist() == exact[-1:]


def test_the_draws_never_change_silently() -> None:
    assert drawn(524, 1, 3, [0, 1, 2**33 + 5], 2).tolist() == [
        [0.4481472969055176, 0.6684548854827881],
        [0.04440665245056152, 0.49289339780807495],
        [0.16598373651504517, 0.631822943687439],
    ]
