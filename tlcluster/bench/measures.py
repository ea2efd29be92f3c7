"""The findings of a benchmark: timings, comparisons between them, and their goals."""

import statistics
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

SECONDS = "s"
PERCENT = "%"


class Finding(BaseModel):
    """A frozen value that is written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(Finding):
    """One thing, measured a number of times."""

    name: str
    unit: str
    values: tuple[float, ...] = Field(min_length=1)
    note: str = ""
    """What a reader must know to judge it; empty if the name says everything."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """(largest - smallest) ÷ median; 0 for one value."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def scaled(self, factor: float, name: str, unit: str, note: str = "") -> "Timing":
        """Every value times `factor`, under another name."""
        values = tuple(value * factor for value in self.values)
        return Timing(name=name, unit=unit, values=values, note=note)


class Comparison(Finding):
    """One number that compares two timings."""

    name: str
    value: float
    goal: float | None = None
    """The value to reach; None if there is none."""
    better: Literal["more", "less"] = "more"
    unit: str = "×"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "more" else self.value <= self.goal


class Part(Finding):
    """One table."""

    name: str
    about: str
    """What was measured and on how much data, in one or two sentences."""
    timings: tuple[Timing, ...]
    comparisons: tuple[Comparison, ...]
    commands: tuple[str, ...]
    """The commands, each once."""


class Machine(Finding):
    """The machine and the versions of the packages."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    versions: dict[str, str]


class Report(Finding):
    """What `--json` writes."""

    command: str
    started: str
    """UTC, ISO 8601."""
    machine: Machine
    data: str
    """Which images, in words."""
    parts: tuple[Part, ...]


def ratio(name: str, above: Timing, below: Timing, goal: float | None = None) -> Comparison:
    """Median ÷ median; more is better."""
    return Comparison(name=name, value=above.median / below.median, goal=goal)


def fastest(timings: list[Timing]) -> Timing:
    """The timing with the highest median rate."""
    return max(timings, key=lambda timing: timing.median)
