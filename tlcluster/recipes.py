"""The experiments of a run: those of its profile, changed by flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlcluster.cli import nearest
from tlcluster.errors import UserError
from tlcluster.experiments import RECIPE, Experiment
from tlcluster.recipe_files import changed, load_profile, profile_name

EVERY = "*"
"""In `--set`: the change holds for every experiment."""

Experiments = Mapping[str, Experiment]


@dataclass(frozen=True)
class Recipe:
    """The experiments after all changes."""

    profile: str
    """Name of the profile, or one made of the file's name."""
    experiments: tuple[Experiment, ...]
    """All of them, in the order of the report."""
    chosen: tuple[Experiment, ...]
    """Those to train, in the same order."""
    text: str | None
    """Content of the recipe file; None for a built-in profile."""
    view_seed: int | None = None
    """Seed of the augmented views; None: each seed of the run has its own."""


def resolve(
    profile: str,
    changes: Sequence[str],
    epochs: int | None,
    chosen: str | None,
    view_seed: int | None = None,
) -> Recipe:
    """The experiments that a profile and the flags of a command give.

    Args:
        profile: name of a built-in profile, or path of a recipe file.
        changes: `EXPERIMENT.FIELD=VALUE` each; `*` is every experiment. Later ones win.
        epochs: most epochs of every experiment; wins over everything else.
        chosen: names of the experiments to train, separated by commas; None chooses all.
        view_seed: seed of the augmented views; None takes the profile's.

    Raises:
        UserError: a name, key or value is not allowed, or the file cannot be read.
    """
    loaded = load_profile(profile)
    experiments: Experiments = loaded.experiments
    for change in changes:
        experiments = _set(experiments, change)
    if epochs is not None:
        experiments = {
            name: changed(experiment, {"epochs": epochs}, "--", strict=False)
            for name, experiment in experiments.items()
        }
    names = _chosen(chosen, experiments)
    return Recipe(
        profile=profile_name(profile),
        experiments=tuple(experiments.values()),
        chosen=tuple(one for name, one in experiments.items() if name in names),
        text=loaded.text,
        view_seed=loaded.view_seed if view_seed is None else view_seed,
    )


def _chosen(chosen: str | None, experiments: Experiments) -> list[str]:
    if chosen is None:
        return list(experiments)
    names = [name.strip() for name in chosen.split(",")]
    for name in names:
        if name not in experiments:
            raise UserError(f"no experiment {name!r}; {nearest(name, experiments)}")
        if names.count(name) > 1:
            raise UserError(f"--experiments {chosen}: has {name} twice; name each once")
    return names


def _set(experiments: Experiments, change: str) -> dict[str, Experiment]:
    at = f"--set {change}"
    target, equals, value = change.partition("=")
    name, dot, field = target.partition(".")
    if not (equals and dot):
        raise UserError(f"{at}: give EXPERIMENT.FIELD=VALUE")
    if name != EVERY and name not in experiments:
        raise UserError(f"{at}: no experiment {name!r}; {nearest(name, experiments)}")
    if field not in RECIPE:
        raise UserError(f"{at}: no field {field!r}; {nearest(field, RECIPE)}")
    return {
        one: changed(experiment, {field: value}, f"--set {name}.", strict=False)
        if name in (EVERY, one)
        else experiment
        for one, experiment in experiments.items()
    }
