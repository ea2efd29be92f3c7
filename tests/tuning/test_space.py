"""Search spaces: what a file may say, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, RECIPE
from tlcluster.tuning.ray_tune import distributions
from tlcluster.tuning.space import Choice, Range, Space, as_record, load_space, rounded

FROZEN = EXPERIMENTS["frozen"]


def loaded(tmp_path: Path, text: str, name: str = "frozen") -> Space:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return load_space(str(path), EXPERIMENTS[name], EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_built_in_space_is_one_for_every_experiment_of_the_study(name: str) -> None:
    space = load_space(None, EXPERIMENTS[name], EXPERIMENTS)
    assert set(space) <= set(RECIPE)
    assert "learning_rate" in space
    assert set(distributions(space)) == set(space)


def test_an_experiments_own_values_win_over_those_of_every(tmp_path: Path) -> None:
    text = """
        [every]
        learning_rate = { low = 1e-4, high = 1e-2, log = true }
        dense_units = [16, 32]
        [experiments.frozen]
        dense_units = { low = 8, high = 64 }
        [experiments.augmented]
        dropout = [0.5]
    """
    assert loaded(tmp_path, text) == {
        "learning_rate": Range(1e-4, 1e-2, log=True, whole=False),
        "dense_units": Range(8, 64, log=False, whole=True),
    }


def test_values_are_as_the_experiment_holds_them(tmp_path: Path) -> None:
    space = loaded(tmp_path, "[every]\ndropout = [0, 0.5, 0.0]")
    assert space == {"dropout": Choice((0.0, 0.5))}
    (dropout,) = space.values()
    assert isinstance(dropout, Choice)
    assert [type(value) for value in dropout.values] == [float, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ever]\na = [1]", "space.toml: ever: no such key; did you mean every?"),
        ("[experiments.frosen]\ndropout=[0.1]", "experiments.frosen: did you mean frozen?"),
        ("[every]\ndense_unit = [1]", "every.dense_unit: no such field; did you mean dense_units"),
        ("[every]\nepochs = [1]", "every.epochs: is not searched, it is what a trial costs"),
        ("[every]\ndropout = [0.1, 1.5]", "every.dropout = 1.5: "),
        ("[every]\ndropout = ['a']", 'every.dropout = "a": '),
        ("[every]\ndropout = []", "every.dropout: give 1 to 100 values"),
        ("[every]\ndropout = 0.1", "every.dropout: give a list of values, or { low = "),
        ("[every]\ndropout = { low = 0.1 }", "every.dropout: high = None: give a number"),
        ("[every]\ndropout = { low = 0.5, high = 0.1 }", "low = 0.5 is not below high = 0.1"),
        ("[every]\ndropout = { low = 0, high = 0.1, log = true }", "begins above 0"),
        ("[every]\ndropout = { low = 0, high = 0.1, log = 1 }", "log = 1: give true or false"),
        ("[every]\ndropout = { low = 0, high = 0.1, step = 1 }", "dropout.step: allowed: low"),
        ("[every]\ndropout = { low = 0, high = nan }", "every.dropout = nan: "),
        ("[experiments]\nfrozen = 1", "experiments.frozen = 1: give a table"),
        ("", "has no field to search for frozen; add [experiments.frozen]"),
        ("x", "space.toml: line 1, column 2: "),
    ],
)
def test_a_wrong_space_is_refused_in_one_line_that_names_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError) as refused:
        loaded(tmp_path, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"--space no/such\.toml: no such file"):
        load_space("no/such.toml", FROZEN, EXPERIMENTS)


@given(
    low=st.floats(1e-6, 1.0),
    factor=st.floats(1.001, 100.0),
    log=st.booleans(),
    position=st.floats(0, 1),
)
def test_what_optuna_may_suggest_lies_in_the_range(
    low: float, factor: float, log: bool, position: float
) -> None:
    values = Range(low, low * factor, log=log, whole=False)
    made = distributions({"learning_rate": values})["learning_rate"]
    assert (made.low, made.high, made.log) == (values.low, values.high, log)
    assert values.low + position * (values.high - values.low) in values
    assert values.low / 2 not in values
    suggested = {"learning_rate": values.low + position * (values.high - values.low)}
    assert rounded({"learning_rate": values}, suggested)["learning_rate"] in values


def test_two_spaces_are_the_same_if_their_words_are(tmp_path: Path) -> None:
    first = as_record(loaded(tmp_path, "[every]\ndropout=[0.1]\npatience=[3]"))
    second = as_record(loaded(tmp_path, "[every]\npatience=[3]\ndropout=[0.1]"))
    assert first == second == {"dropout": "0.1", "patience": "3"}
