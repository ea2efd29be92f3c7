"""Tables of a benchmark's findings, on a terminal or in a file."""

from rich.console import Console
from rich.table import Table

from tlcluster.bench.measures import Comparison, Machine, Part, Timing
from tlcluster.terminal import say


def show_machine(console: Console, machine: Machine, data: str) -> None:
    """Print the machine, the versions and the data, before the first table."""
    say(
        console,
        f"machine    {machine.processor}, {machine.cores} cores, "
        f"{machine.memory_gib:.0f} GiB, {machine.system}",
    )
    say(console, f"versions   {', '.join(f'{k} {v}' for k, v in machine.versions.items())}")
    say(console, f"data       {data}")


def show_part(console: Console, part: Part) -> None:
    """Print the tables of a part: timings, then comparisons, then the commands."""
    console.print()
    say(console, f"{part.name}: {part.about}")
    console.print(_timings(part.timings))
    if part.comparisons:
        console.print(_comparisons(part.comparisons))
    for timing in part.timings:
        if timing.note:
            say(console, f"  {timing.name}: {timing.note}")
    for command in part.commands:
        say(console, f"  $ {command}")


def _timings(timings: tuple[Timing, ...]) -> Table:
    table = Table()
    table.add_column("measured", no_wrap=True)
    for column in ("median", "", "least", "most", "times"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for timing in timings:
        table.add_row(
            timing.name,
            number(timing.median),
            timing.unit,
            number(min(timing.values)),
            number(max(timing.values)),
            str(len(timing.values)),
        )
    return table


def _comparisons(comparisons: tuple[Comparison, ...]) -> Table:
    table = Table()
    table.add_column("compared", no_wrap=True)
    for column in ("value", "goal", "reached"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in comparisons:
        sign = "≥" if row.better == "more" else "≤"
        goal = "" if row.goal is None else f"{sign} {row.goal:g} {row.unit}"
        reached = {True: "yes", False: "no", None: ""}[row.reached]
        table.add_row(row.name, f"{number(row.value)} {row.unit}", goal, reached)
    return table


def number(value: float) -> str:
    """Three significant digits, with separators for thousands: `184,000`, `12.3`, `0.914`."""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
