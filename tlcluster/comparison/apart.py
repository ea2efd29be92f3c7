"""What differs between the settings of runs: of the runs as a whole, and of each experiment."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.comparison.gather import Entry
from tlcluster.experiments import RECIPE
from tlcluster.records import RunManifest
from tlcluster.report.trained import ExperimentRun

Value = str | int | float | bool | None


class Apart(NamedTuple):
    """The settings of some runs, or of one experiment in some runs."""

    experiment: str | None
    """None for the runs as a whole."""
    differ: tuple[str, ...]
    """The settings that are not the same in all of these runs."""
    same: tuple[str, ...]
    values: Mapping[str, Mapping[str, Value]]
    """Run → setting that differs → its value; None if the run does not know it."""


def settings_apart(entries: Sequence[Entry]) -> tuple[Apart, ...]:
    """The settings of the runs first, then those of each experiment that two runs have.

    Names, times, commands and machines are no settings.
    """
    found = [_apart(None, {one.label: _of_run(one.run.manifest) for one in entries})]
    names = dict.fromkeys(name for one in entries for name in one.run.manifest.experiments)
    for name in names:
        recipes = {
            entry.label: recipe
            for entry in entries
            for one in entry.run.experiments
            if one.name == name and (recipe := _of_experiment(one))
        }
        if len(recipes) > 1:
            found.append(_apart(name, recipes))
    return tuple(found)


def _apart(experiment: str | None, of: Mapping[str, Mapping[str, Value]]) -> Apart:
    fields = dict.fromkeys(field for values in of.values() for field in values)
    # As JSON, because to Python 1 and True are equal.
    differ = tuple(
        field
        for field in fields
        if len({json.dumps(values.get(field)) for values in of.values()}) > 1
    )
    return Apart(
        experiment,
        differ,
        tuple(field for field in fields if field not in differ),
        {run: {field: values.get(field) for field in differ} for run, values in of.items()},
    )


def _of_experiment(one: ExperimentRun) -> dict[str, Value]:
    """Its recipe; empty if it has not been started."""
    if one.config is None:
        return {}
    recipe = one.config.experiment
    return {label: getattr(recipe, field) for field, label in RECIPE.items()}


def _of_run(manifest: RunManifest) -> dict[str, Value]:
    own = {
        name: value
        for name, value in manifest.settings.items()
        # The recipes are compared as each experiment recorded them.
        if not name.startswith(tuple(f"{one}." for one in manifest.experiments))
        and name not in ("profile", "seed")
    }
    dataset = manifest.dataset
    return {
        "profile": manifest.profile,
        "recipe file, sha256": manifest.recipe and _sha256(manifest.recipe),
        "experiments": ", ".join(manifest.experiments),
        "seeds": ", ".join(map(str, manifest.all_seeds)),
        "data set": dataset.name,
        "index, sha256": dataset.index_sha256,
        **{f"{split} images": images for split, images in dataset.splits.items()},
        **{
            f"weights of {base}{suffix}": value
            for base, weights in manifest.base_weights.items()
            for suffix, value in (("", weights.kind), (", sha256", weights.sha256))
        },
        **own,
        **{f"{package}, version": version for package, version in manifest.versions.items()},
        "commit": manifest.git_commit,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
