"""More seeds for what is not decided. That its error rate holds is in `test_seeds_simulated.py`."""

import numpy as np
import pytest

from tlcluster.report.seeds.moments import Right
from tlcluster.report.seeds.proportions import SIGNIFICANT
from tlcluster.report.seeds.resolve import Standing, looks, resolve

P = {"good": 0.8, "equal": 0.6, "like it": 0.6}


def trained(seeds: int, **more: int) -> dict[str, Right]:
    """(seeds, images) of three experiments. The first seeds do not depend on how many there are."""
    return {
        name: np.stack(
            [
                np.random.default_rng([place, seed]).random(1000) < p
                for seed in range(more.get(name, seeds))
            ]
        )
        for place, (name, p) in enumerate(P.items())
    }


@pytest.mark.parametrize(
    ("first", "most", "sizes"),
    [(3, 10, (3, 6, 10)), (5, 20, (5, 10, 20)), (3, 3, (3,)), (4, 5, (4, 5))],
)
def test_seeds_double_from_look_to_look(first: int, most: int, sizes: tuple[int, ...]) -> None:
    assert looks(first, most) == sizes


@pytest.mark.parametrize(("first", "most"), [(2, 10), (6, 5)])
def test_a_look_at_two_seeds_and_a_most_below_the_first_are_refused(first: int, most: int) -> None:
    with pytest.raises(ValueError, match="3 ≤ first ≤ most"):
        looks(first, most)


def test_before_the_first_look_all_seeds_are_wanted_that_are_missing() -> None:
    found = resolve(trained(2, equal=3), 3, 10)
    assert found.wanted == {"good": 3, "like it": 3}
    assert all(pair[2:] == (None, 0, None, None, None) for pair in found.pairs)


def test_only_pairs_that_are_not_decided_get_more_seeds() -> None:
    found = resolve(trained(3), 3, 10)
    assert [pair.better for pair in found.pairs] == ["good", "good", None]
    assert found.wanted == {"equal": 6, "like it": 6}


def test_looks_at_more_seeds_leave_what_was_decided() -> None:
    before = resolve(trained(3), 3, 10)
    after = resolve(trained(6, good=3), 3, 10)
    assert after.pairs[:2] == before.pairs[:2]
    assert after.pairs[2].seeds == 6
    assert after.wanted == {"equal": 10, "like it": 10}


def test_the_looks_of_the_past_do_not_depend_on_seeds_that_came_later() -> None:
    assert resolve(trained(10), 3, 10).pairs[:2] == resolve(trained(3), 3, 10).pairs[:2]


def test_at_the_most_seeds_what_is_not_decided_stays_so() -> None:
    found = resolve(trained(10, good=3), 3, 10)
    assert found.pairs[2].better is None
    assert found.wanted == {}


def test_if_all_is_decided_no_seed_is_wanted() -> None:
    experiments = {name: right for name, right in trained(3).items() if name != "like it"}
    found = resolve(experiments, 3, 10)
    assert found.wanted == {}
    assert found.pairs[0].better == "good"


def test_each_look_has_its_part_of_the_5_percent_and_an_interval_as_wide() -> None:
    (one,), (many,) = (
        resolve(
            {name: right for name, right in trained(3).items() if name != "good"}, 3, most
        ).pairs
        for most in (3, 10)
    )
    assert resolve(trained(3), 3, 10).level == SIGNIFICANT / 3
    assert one.p_holm == many.p_holm
    assert width(many) > width(one)


def width(pair: Standing) -> float:
    assert pair.interval is not None
    return pair.interval.high - pair.interval.low


def test_one_experiment_has_nothing_to_be_decided() -> None:
    assert resolve({"a": trained(1)["good"]}, 3, 10)[1:] == ((), {})
