"""The page's table of what experiments cost: its columns."""

from collections.abc import Callable
from typing import NamedTuple

from tlcluster.machine import WATTS
from tlcluster.report.cost import Cost, hours, kilowatt_hours
from tlcluster.report.formats import number
from tlcluster.report.trained import Run

SMALL = 360_000.0
"""Joules (0.1 kWh) below which a table of energy is in Wh: three digits of kWh would show zeros."""


class CostColumn(NamedTuple):
    """One column of the table."""

    heading: str
    text: Callable[[Cost], str]


def cost_columns(run: Run) -> list[CostColumn]:
    """The columns, from left to right, without those that no experiment has a number for."""
    costs = [one.cost for one in run.experiments if one.cost]
    columns = [CostColumn("Worker-hours", lambda of: in_hours(of.worker_seconds))]
    if any(of.feature_seconds or of.computed_seconds for of in costs):
        columns += [
            CostColumn("of them features", lambda of: in_hours(of.feature_seconds)),
            CostColumn("Features computed", lambda of: in_hours(of.computed_seconds)),
        ]
    if any(of.gpu_seconds for of in costs):
        columns.append(CostColumn("GPU-hours", lambda of: in_hours(of.gpu_seconds)))
    if price := run.manifest.price:
        heading = f"Cost, {price.currency}"
        columns.append(CostColumn(heading, lambda of: number(of.money, 2)))
    if most := max((of.joules or 0.0 for of in costs), default=0.0):
        columns.append(_energy(small=most < SMALL))
    return columns


def in_hours(seconds: float | None) -> str:
    """Hours with three digits at least; empty if they are not known."""
    of = hours(seconds)
    return number(of, 3 if of is not None and of < 1 else 2)


def _energy(small: bool) -> CostColumn:
    """Energy in Wh if all of it is small, else in kWh; an estimate is marked."""

    unit, of_a_kwh, digits = ("Wh", 1000, 2) if small else ("kWh", 1, 3)

    def text(of: Cost) -> str:
        mark = "≈ " if of.joules and "estimate" in of.energy_source else ""
        amount = kilowatt_hours(of.joules)
        return mark + number(amount and amount * of_a_kwh, digits)

    return CostColumn(f"Energy, {unit}", text)


def energy_note(run: Run) -> str:
    """What the energy is of, and how it was found; empty if it is not known."""
    costs = [one.cost for one in run.experiments if one.cost and one.cost.joules]
    if not costs:
        return ""
    sources = " ".join(of.energy_source for of in costs)
    measured = [
        words
        for name, words in (("NVML", "GPUs by NVML"), ("RAPL", "processors by RAPL"))
        if name in sources
    ]
    said = [f"{' and '.join(measured)} were measured"] if measured else []
    if "estimate" in sources:
        said.append(f"≈ is an estimate, with {WATTS:g} W for each busy core")
    return f"Energy: {'; '.join(said)}."
