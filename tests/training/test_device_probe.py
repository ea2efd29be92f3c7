"""A matrix product on the device: right, or said to be wrong."""

import pytest
import tensorflow as tf

from tlcluster.training.device_probe import wrong_product


def test_the_cpu_multiplies_right() -> None:
    assert wrong_product("CPU:0") == ""


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda product: product * float("nan"), "has values that are not finite"),
        (lambda product: product + 1, "is wrong"),
    ],
)
def test_a_device_that_multiplies_wrong_is_found_out(
    broken: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tf.linalg.matmul
    monkeypatch.setattr(tf.linalg, "matmul", lambda a, b: broken(right(a, b)))  # type: ignore[operator]
    assert wrong_product("CPU:0") == said


def test_a_device_in_whose_place_tensorflow_takes_the_cpu_is_found_out() -> None:
    assert wrong_product("GPU:7") == "is computed on CPU:0 instead of GPU:7"
