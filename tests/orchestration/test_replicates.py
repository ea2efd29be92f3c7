"""An experiment with a seed: its key, its title, and when it starts."""

from hypothesis import given
from hypothesis import strategies as st

from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.orchestration.replicates import flat, replicates, seed_by_seed

ALL = tuple(EXPERIMENTS.values())
FROZEN, AUGMENTED = EXPERIMENTS["frozen"], EXPERIMENTS["augmented"]


def test_with_one_seed_a_replicate_is_called_as_its_experiment() -> None:
    (one,) = replicates([FROZEN], [7])
    assert (one.experiment, one.seed, one.key, one.title) == (FROZEN, 7, "frozen", "Model 1")


def test_with_several_seeds_the_first_keeps_its_key_and_all_titles_have_the_seed() -> None:
    found = replicates([FROZEN, AUGMENTED], [7, 1])
    assert [(one.key, one.title) for one in found] == [
        ("frozen", "Model 1, seed 7"),
        ("frozen/seeds/1", "Model 1, seed 1"),
        ("augmented", "Model 2, seed 7"),
        ("augmented/seeds/1", "Model 2, seed 1"),
    ]
    assert replicates([FROZEN, AUGMENTED], [7, 1], only=1) == (found[1], found[3])
    assert flat("frozen/seeds/1") == "frozen.seeds.1"


def test_an_experiment_may_have_fewer_seeds_than_others() -> None:
    found = replicates([FROZEN, AUGMENTED], [7, 1, 2], counts={"frozen": 1})
    assert [one.key for one in found] == [
        "frozen",
        *("augmented", "augmented/seeds/1", "augmented/seeds/2"),
    ]
    assert found[0].title == "Model 1, seed 7"


@given(st.permutations(ALL), st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))
def test_every_experiment_has_its_first_seed_before_one_has_its_second(
    order: list[Experiment], seeds: list[int]
) -> None:
    started = seed_by_seed(replicates(ALL, seeds), order)
    assert [(one.seed, one.experiment.name) for one in started] == [
        (seed, one.name) for seed in seeds for one in order
    ]
