"""What a search has yet to train and which recipe wins."""

import tomllib
from pathlib import Path

import pytest

from tlcluster.experiments import EXPERIMENTS
from tlcluster.recipe_files import load_profile
from tlcluster.records import NodeRecord
from tlcluster.tuning.importance import LEAST_TRIALS, importances
from tlcluster.tuning.records import (
    Planned,
    Role,
    SearchRecord,
    TrialRecord,
    TrialStatus,
    TuningManifest,
)
from tlcluster.tuning.space import Range
from tlcluster.tuning.trials import (
    best_candidates,
    finalists,
    scores,
    searched,
    tried,
    unfinished,
)
from tlcluster.tuning.tuned import Winner, base_profile, tuned_toml, winner


def trial(
    number: int,
    *accuracies: float,
    role: Role = "search",
    status: TrialStatus = "finished",
    candidate: int | None = None,
    seed: int = 1,
    **fields: float,
) -> TrialRecord:
    return TrialRecord(
        number=number,
        role=role,
        candidate=number if candidate is None else candidate,
        seed=seed,
        fields=fields,
        status=status,
        val_accuracy=accuracies,
        worker_seconds=10.0,
    )


def numbered(*trials: TrialRecord) -> dict[int, TrialRecord]:
    return {one.number: one for one in trials}


SEARCH = numbered(
    trial(0, 0.5, role="recipe"),
    trial(1, 0.4, 0.7, 0.6, dropout=0.1),
    trial(2, 0.3, status="stopped", dropout=0.2),
    trial(3, 0.65, dropout=0.3),
    trial(4, status="failed", dropout=0.4),
    trial(5, 0.2, status="running", dropout=0.5),
)


def test_what_was_under_way_is_started_again_with_its_own_fields() -> None:
    assert unfinished(SEARCH) == [Planned(5, "search", 5, 1, {"dropout": 0.5})]


def test_optuna_is_told_what_was_tried_failures_included_and_no_finalist() -> None:
    more = numbered(*SEARCH.values(), trial(6, 0.9, role="finalist", candidate=1, dropout=0.1))
    assert tried(more) == [
        ({"dropout": 0.1}, 0.7),
        ({"dropout": 0.2}, 0.3),
        ({"dropout": 0.3}, 0.65),
        ({"dropout": 0.4}, None),
    ]
    assert searched(more) == 6


def test_the_best_and_the_profiles_own_recipe_are_trained_again() -> None:
    assert best_candidates(SEARCH, 2) == [1, 3, 0]
    assert best_candidates(SEARCH, 10) == [1, 3, 0, 2, 5]
    assert best_candidates({}, 3) == []


def test_every_candidate_gets_every_seed_once_also_after_an_interruption() -> None:
    planned = finalists(SEARCH, [1, 0], [7, 8])
    assert [(one.candidate, one.seed) for one in planned] == [(1, 7), (0, 7), (1, 8), (0, 8)]
    assert [one.number for one in planned] == [6, 7, 8, 9]
    assert planned[0].fields == {"dropout": 0.1}
    done = trial(6, 0.6, role="finalist", candidate=1, seed=7, dropout=0.1)
    again = finalists(numbered(*SEARCH.values(), done), [1, 0], [7, 8])
    assert [(one.candidate, one.seed) for one in again] == [(0, 7), (1, 8), (0, 8)]
    assert again[0].number == 7


def final(number: int, candidate: int, seed: int, accuracy: float) -> TrialRecord:
    return trial(number, accuracy, role="finalist", candidate=candidate, seed=seed)


def test_the_winner_has_the_best_mean_not_the_best_seed() -> None:
    found = scores(
        numbered(final(6, 1, 7, 0.9), final(7, 1, 8, 0.5), final(8, 0, 7, 0.8), final(9, 0, 8, 0.7))
    )
    assert [score.candidate for score in found] == [0, 1]
    assert found[0].mean == pytest.approx(0.75)
    assert found[0].spread == pytest.approx(0.0707, abs=1e-4)


def test_a_recipe_with_fewer_seeds_than_others_cannot_win() -> None:
    found = scores(numbered(final(6, 1, 7, 0.99), final(7, 0, 7, 0.6), final(8, 0, 8, 0.6)))
    assert [score.candidate for score in found] == [0]
    assert scores({}) == []


MANIFEST = TuningManifest(
    name="a",
    command="tlcluster tune frozen --space 'a\nb = 1'",
    profile="quick",
    seed=1,
    trials=6,
    budget_hours=None,
    finalists=1,
    seeds=2,
    workers=1,
    searches=(SearchRecord(experiment=EXPERIMENTS["frozen"], space={"dropout": "0.1, 0.2"}),),
    index_sha256="0" * 64,
    dataset="cinic-10",
    rows={"train": 1000, "valid": 1000},
    weights={"vgg16": "shipped"},
    versions={"python": "3.11"},
    hardware=(NodeRecord(host="<node>", cpus=2, gpus=0, memory_bytes=1),),
    started="2026-01-01T00:00:00Z",
)


def test_the_recipe_file_is_toml_whatever_the_command_and_the_values_are() -> None:
    score = scores(numbered(final(6, 1, 7, 0.9), final(7, 1, 8, 0.8)))[0]
    fields = {"preprocess": "base", "batch_norm": True, "learning_rate": 1e-4, "dense_units": 8}
    winner_of = Winner(EXPERIMENTS["frozen"], fields, score, None, 6, 0.5)
    text = tuned_toml(MANIFEST, "quick", [winner_of])
    assert tomllib.loads(text) == {"profile": "quick", "experiments": {"frozen": fields}}
    assert "# validation accuracy 85.00 % ± 7.07 (2 seeds)" in text
    assert "No test image was read" in text
    assert text.splitlines()[0] == "# Found by: tlcluster tune frozen --space 'a?b = 1'"


@pytest.mark.parametrize("name", ["frozen", "wide"])
def test_the_recipe_file_gives_the_experiment_that_won(name: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked.toml"
    asked.write_text(
        'profile = "quick"\n[every]\nepochs = 7\n[experiments.wide]\ndense_units = 2048\n'
    )
    known = load_profile(str(asked)).experiments
    trials = numbered(
        trial(1, 0.7, dropout=0.25, learning_rate=3e-4), final(6, 1, 7, 0.9), final(7, 1, 8, 0.8)
    )
    base = base_profile(str(asked))
    start = load_profile(base).experiments
    found = winner(known[name], trials, start)
    assert found is not None
    tuned = tmp_path / "tuned.toml"
    tuned.write_text(tuned_toml(MANIFEST, base, [found]))
    loaded = load_profile(str(tuned)).experiments
    assert loaded[name] == known[name].model_copy(update={"dropout": 0.25, "learning_rate": 3e-4})


def test_the_field_that_decides_has_the_largest_share() -> None:
    space = {
        "dropout": Range(0.0, 0.9, log=False, whole=False),
        "learning_rate": Range(1e-4, 1e-2, log=True, whole=False),
    }
    many = numbered(
        *(
            trial(
                n, 0.3 + 0.05 * (n % 7), dropout=0.1 * (n % 7), learning_rate=1e-3 + 1e-4 * (n % 3)
            )
            for n in range(1, 30)
        )
    )
    found = importances(space, many)
    assert list(found) == ["dropout", "learning_rate"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["dropout"] > 0.8
    few = {number: many[number] for number in range(1, LEAST_TRIALS)}
    assert importances(space, few) == {}
