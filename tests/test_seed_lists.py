"""`--seeds`: how often, or which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.cli import parse
from tlcluster.errors import UserError
from tlcluster.seeds import MOST_SEEDS, SEED_LIMIT, first_of, in_words, parse_seeds
from tlcluster.settings import CheckSettings, OneSettings, RunSettings, TuneSettings


def told(*arguments: str) -> RunSettings:
    return parse(RunSettings, "jobs/run_all.py", "", arguments)


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        told(*arguments)
    return str(caught.value)


@given(st.integers(0, SEED_LIMIT - 1 - MOST_SEEDS), st.integers(1, MOST_SEEDS))
def test_a_number_means_so_many_seeds_from_the_first_on(first: int, count: int) -> None:
    assert parse_seeds(str(count), first) == tuple(range(first, first + count))


@given(st.lists(st.integers(0, SEED_LIMIT - 1), min_size=2, max_size=20, unique=True))
def test_a_list_names_the_seeds_in_its_order_and_its_first_is_the_runs(seeds: list[int]) -> None:
    text = ", ".join(map(str, seeds))
    assert parse_seeds(text, seeds[0]) == tuple(seeds)
    assert first_of(text) == seeds[0]
    settings = told("--seeds", text)
    assert (settings.seed, settings.all_seeds) == (seeds[0], tuple(seeds))


def test_a_run_has_one_seed_unless_it_is_told_more() -> None:
    assert told().all_seeds == (524,)
    assert told("--seed", "7").all_seeds == (7,)
    assert told("--seed", "7", "--seeds", "3").all_seeds == (7, 8, 9)
    assert told("--seed", "7", "--seeds", "7,1").all_seeds == (7, 1)


REFUSED = {
    "--seeds 0": "a run has 1 to 1,000 seeds",
    "--seeds -1": "a run has 1 to 1,000 seeds",
    "--seeds 1001": "a run has 1 to 1,000 seeds",
    "--seeds " + ",".join(map(str, range(1001))): "a run has at most 1,000 seeds",
    "--seeds three": "give how many seeds, or a list such as 524,530,7",
    "--seeds 1.5": "give how many seeds, or a list such as 524,530,7",
    "--seeds 1,": "give how many seeds, or a list such as 524,530,7",
    "--seeds 1,2,1": "has 1 twice; name each once",
    "--seeds 1,2147483648": "2147483648 is no seed; seeds are 0 to 2147483647",
    "--seeds 1,-2": "-2 is no seed; seeds are 0 to 2147483647",
    "--only-seed 7": "is not among the run's seed 524; see --seeds",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda text: text[:20])
def test_seeds_that_a_run_may_not_have_are_refused_in_one_line(arguments: str) -> None:
    assert refusal(*arguments.split()) == f"{arguments}: {REFUSED[arguments]}"


def test_seeds_and_seed_may_not_contradict_each_other() -> None:
    assert refusal("--seed", "9", "--seeds", "7,9") == (
        "--seeds 7,9: its first seed is 7, and --seed is 9; leave --seed out, or begin the list "
        "with it"
    )
    assert refusal("--seed", "2147483647", "--seeds", "2") == (
        "--seeds 2: 2147483648 is no seed; seeds are 0 to 2147483647"
    )
    assert refusal("--seed", "-1", "--seeds", "2").startswith("--seed -1: ")


def test_one_of_the_seeds_may_be_trained_by_itself() -> None:
    settings = told("--seeds", "3", "--only-seed", "526")
    assert (settings.all_seeds, settings.only_seed) == ((524, 525, 526), 526)
    assert refusal("--seeds", "2", "--only-seed", "526") == (
        "--only-seed 526: is not among the run's seeds 524, 525; see --seeds"
    )


def test_run_one_and_check_hand_the_seeds_on() -> None:
    flags = ("--seeds", "7,9", "--only-seed", "9")
    one = parse(OneSettings, "jobs/run_one.py", "", ("frozen", *flags)).suite()
    assert one == told("--experiments", "frozen", *flags)
    assert parse(CheckSettings, "jobs/check.py", "", flags).suite() == told(*flags)


def test_a_search_has_a_number_of_seeds_of_its_own() -> None:
    settings = parse(TuneSettings, "jobs/tune.py", "", ("frozen", "--seeds", "5"))
    assert settings.seeds == 5
    assert settings.suite().all_seeds == (524,)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((524,), "seed 524"),
        ((524, 7), "seeds 524, 7"),
        (tuple(range(1, 41)), "40 seeds, 1 to 40"),
        ((9, *range(1, 12)), "12 seeds, 9, 1, 2, 3, 4, …"),
    ],
)
def test_seeds_are_one_short_phrase(seeds: tuple[int, ...], words: str) -> None:
    assert in_words(seeds) == words
