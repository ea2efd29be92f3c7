"""What a search may change: for each experiment, fields of its recipe and their possible values.

A search space is a TOML file; `spaces.toml` in this package is the built-in one:

    [every]                                     # all experiments
    learning_rate = { low = 1e-4, high = 1e-2, log = true }
    [experiments.regularized]                   # one of them
    dropout = { low = 0.1, high = 0.6 }
    dense_units = [256, 512, 1024]
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tlcluster.cli import nearest
from tlcluster.errors import UserError
from tlcluster.experiments import RECIPE, Experiment
from tlcluster.recipe_files import changed, check_keys, read_toml, table_at

BUILT_IN = Path(__file__).with_name("spaces.toml")

MOST_CHOICES = 100

NOT_SEARCHED = ("epochs",)
"""Epochs are the budget of a trial, not a choice: more would always look better."""

Value = str | int | float | bool


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Value, ...]

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


class Range(NamedTuple):
    """A number between two others, both included."""

    low: float
    high: float
    log: bool
    """Whether each factor is as likely as another, instead of each difference."""
    whole: bool
    """Whether only whole numbers are meant."""

    def __contains__(self, value: object) -> bool:
        right = isinstance(value, int) if self.whole else isinstance(value, int | float)
        return right and not isinstance(value, bool) and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.low:g} … {self.high:g}{', logarithmic' if self.log else ''}"


Space = Mapping[str, Choice | Range]
"""Field of the recipe → its possible values."""


def load_space(path: str | None, experiment: Experiment, known: Mapping[str, Experiment]) -> Space:
    """The search space of one experiment.

    Args:
        path: a TOML file, or None for the built-in space.
        experiment: whose space.
        known: all experiments; a file may name each of them.

    Raises:
        UserError: the file cannot be read, names what there is not, or has a value that the
            experiment refuses.
    """
    where = path or BUILT_IN.name
    table = read_toml(path or str(BUILT_IN), "--space")
    check_keys(table, ("every", "experiments"), f"{where}: ")
    own = table_at(table, "experiments", f"{where}: ")
    for name in own:
        # The built-in space knows the study's experiments; a recipe may have fewer.
        if name not in known:
            raise UserError(f"{where}: experiments.{name}: {nearest(name, known)}")
    space: dict[str, Choice | Range] = {}
    for at, entries in (
        (f"{where}: every.", table_at(table, "every", f"{where}: ")),
        (
            f"{where}: experiments.{experiment.name}.",
            table_at(own, experiment.name, f"{where}: experiments."),
        ),
    ):
        for field, given in entries.items():
            space[field] = _dimension(field, given, at, experiment)
    if not space:
        raise UserError(
            f"{where}: has no field to search for {experiment.name}; add [experiments."
            f"{experiment.name}] with fields of the recipe"
        )
    return space


def _dimension(field: str, given: Any, at: str, experiment: Experiment) -> Choice | Range:
    if field in NOT_SEARCHED:
        raise UserError(f"{at}{field}: is not searched, it is what a trial costs; use --{field}")
    if field not in RECIPE:
        raise UserError(f"{at}{field}: no such field; {nearest(field, RECIPE)}")
    if isinstance(given, list):
        if not 1 <= len(given) <= MOST_CHOICES:
            raise UserError(f"{at}{field}: give 1 to {MOST_CHOICES} values")
        # As the experiment holds them: 1 is 1.0 where a field is a float.
        values = tuple(
            getattr(changed(experiment, {field: value}, at, strict=True), field) for value in given
        )
        return Choice(tuple(dict.fromkeys(values)))
    if not isinstance(given, dict):
        raise UserError(
            f"{at}{field}: give a list of values, or {{ low = …, high = …, log = true }}"
        )
    for key in given:
        if key not in ("low", "high", "log"):
            raise UserError(f"{at}{field}.{key}: {nearest(key, ('low', 'high', 'log'))}")
    low, high = (_bound(experiment, field, name, given.get(name), at) for name in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{at}{field}: log = {log}: give true or false")
    if not (low < high and math.isfinite(high - low)):
        raise UserError(f"{at}{field}: low = {low} is not below high = {high}")
    if log and low <= 0:
        raise UserError(f"{at}{field}: low = {low}: a logarithmic range begins above 0")
    whole = isinstance(getattr(experiment, field), int)
    return Range(low, high, log, whole)


def _bound(experiment: Experiment, field: str, name: str, value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{at}{field}: {name} = {value}: give a number")
    changed(experiment, {field: value}, at, strict=True)
    return value


def rounded(space: Space, fields: Mapping[str, Value]) -> dict[str, Value]:
    """The values with three digits, which a person can read; none leaves its range."""
    result = dict(fields)
    for field, values in space.items():
        value = fields[field]
        if isinstance(values, Range) and isinstance(value, float):
            result[field] = min(max(float(f"{value:.3g}"), values.low), values.high)
    return result


def as_record(space: Space) -> dict[str, str]:
    """The space in words, field by field; two spaces are the same if their words are."""
    return {field: str(values) for field, values in sorted(space.items())}
