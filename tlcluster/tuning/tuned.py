"""The recipe file that a search leaves: the best recipes, with how they were found as comments."""

from collections.abc import Mapping
from typing import NamedTuple

from tlcluster.experiments import RECIPE, Experiment
from tlcluster.recipe_files import DEFAULT_LIKE, DEFAULT_PROFILE, changed, is_file
from tlcluster.tuning.records import TrialRecord, TuningManifest
from tlcluster.tuning.space import Value
from tlcluster.tuning.trials import RECIPE_TRIAL, Score, scores, searched


class Winner(NamedTuple):
    """The best recipe of an experiment."""

    experiment: Experiment
    fields: Mapping[str, Value]
    """What the recipe file says of it."""
    score: Score
    own: Score | None
    """The profile's own recipe with the same seeds."""
    trials: int
    worker_hours: float


def winner(
    experiment: Experiment, trials: dict[int, TrialRecord], base: Mapping[str, Experiment]
) -> Winner | None:
    """The recipe with the best mean of several seeds; None if no finalist finished."""
    found = scores(trials)
    if not found:
        return None
    best = found[0]
    return Winner(
        experiment,
        fields_beyond(base, changed(experiment, trials[best.candidate].fields, "", strict=True)),
        best,
        next((score for score in found if score.candidate == RECIPE_TRIAL), None),
        searched(trials),
        sum(one.worker_seconds for one in trials.values()) / 3600,
    )


def base_profile(profile: str) -> str:
    """The built-in profile that the recipe file builds on; a file cannot build on another one."""
    return DEFAULT_PROFILE if is_file(profile) else profile


def fields_beyond(base: Mapping[str, Experiment], experiment: Experiment) -> dict[str, Value]:
    """What a recipe file has to say to get an experiment from those of a profile."""
    start = base.get(experiment.name)
    about: dict[str, Value] = {}
    if start is None:
        start = base[DEFAULT_LIKE]
        about = {
            "like": DEFAULT_LIKE, "title": experiment.title, "summary": experiment.summary,
        }  # fmt: skip
    different = {
        field: value
        for field in RECIPE
        if (value := getattr(experiment, field)) != getattr(start, field)
    }
    return {field: value for field, value in {**about, **different}.items() if value != ""}


def tuned_toml(manifest: TuningManifest, profile: str, winners: list[Winner]) -> str:
    """The text of the recipe file.

    Args:
        manifest: of the search.
        profile: built-in profile that the file builds on.
        winners: one for each experiment.
    """
    rows = f"{manifest.rows['train']:,} images to train, {manifest.rows['valid']:,} to validate"
    lines = [
        f"# Found by: {_comment(manifest.command)}",
        f"# {manifest.dataset}: {rows}; seed {manifest.seed}. No test image was read.",
        f'profile = "{profile}"',
    ]
    for winner in winners:
        score, own = winner.score, winner.own
        lines += [
            "",
            f"[experiments.{winner.experiment.name}]",
            f"# validation accuracy {_accuracy(score)}"
            + (f"; the profile's own recipe {_accuracy(own)}" if own else ""),
            f"# {winner.trials} trials, {winner.worker_hours:.3g} worker-hours",
        ]
        lines += [f"{field} = {_value(value)}" for field, value in winner.fields.items()]
        if not winner.fields:
            lines.append("# no recipe was better than the profile's own")
    return "\n".join(lines) + "\n"


def _accuracy(score: Score) -> str:
    seeds = len(score.accuracies)
    return f"{100 * score.mean:.2f} % ± {100 * score.spread:.2f} ({seeds} seed{'s'[: seeds - 1]})"


def _comment(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else "?" for c in text).split())


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
