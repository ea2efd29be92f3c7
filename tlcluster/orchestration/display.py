"""What a person sees while experiments run: a live table, or one line per epoch."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tlcluster.records import Status
from tlcluster.terminal import one_line, printable, redraws
from tlcluster.training.progress import Progress, epochs_finished


class Row(NamedTuple):
    """One experiment in the table."""

    title: str
    status: Status
    progress: Progress | None = None
    passed: tuple[Progress, ...] = ()
    """Those of epochs that have passed since the row was shown before."""
    note: str = ""
    """For example why it failed, or that it was finished earlier."""
    began: float | None = None
    """Time, in seconds of `time.monotonic`, when its workers were asked for."""
    ended: float | None = None
    """The same, when they were done."""
    resumed: int = 0
    """Epochs that were finished before."""


class Display:
    """A live table on a terminal; elsewhere a line an epoch and one for each change of state."""

    def __init__(self, console: Console, heading: str) -> None:
        self._console = console
        self._heading = heading
        self._live = (
            Live(console=console, refresh_per_second=4, transient=False)
            if redraws(console)
            else None
        )
        self._said: dict[str, tuple[object, ...]] = {}

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, rows: Mapping[str, Row]) -> None:
        """Show the present state; call it about twice a second."""
        if self._live:
            self._live.update(table(self._heading, rows, time.monotonic()))
            return
        for name, row in rows.items():
            for progress in (*row.passed, row.progress):
                said = (row.status, epochs_finished(progress), row.note)
                if self._said.get(name) != said:
                    self._said[name] = said
                    text = line(name, row._replace(progress=progress))
                    self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def table(heading: str, rows: Mapping[str, Row], now: float) -> Table:
    """The live table: one row an experiment."""
    result = Table(title=escape(heading), title_justify="left", title_style="bold", expand=False)
    result.add_column("experiment")
    result.add_column("state")
    for column in ("epoch", "val. accuracy", "best", "images/s", "elapsed", "left"):
        result.add_column(column, justify="right")
    for name, row in rows.items():
        result.add_row(
            f"[bold]{name}[/] {escape(printable(row.title))}", _state(row), *_numbers(row, now)
        )
    return result


_STYLES: Mapping[str, str] = {
    "queued": "dim",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
}


def _state(row: Row) -> str:
    words = row.progress.phase if row.progress and row.status == "running" else row.status
    if row.status == "running" and not row.progress:
        words = "starting"
    text = f"[{_STYLES[row.status]}]{words}[/]"
    return f"{text} [dim]{escape(one_line(row.note))}[/]" if row.note else text


def _numbers(row: Row, now: float) -> tuple[str, ...]:
    progress = row.progress
    elapsed = duration((row.ended or now) - row.began) if row.began is not None else ""
    if progress is None:
        return "", "", "", "", elapsed, ""
    part, left = "", None
    if row.status == "running" and progress.phase != "testing":
        part = f" {100 * progress.step // max(progress.steps, 1):3d} %"
        left = seconds_left(progress, now - (row.began or now), row.resumed)
    return (
        f"{progress.epoch}/{progress.epochs}{part}",
        percent(progress.accuracy),
        percent(progress.best_accuracy),
        f"{progress.images_per_second:,.0f}",
        elapsed,
        f"≤ {duration(left)}" if left is not None else "",
    )


def line(name: str, row: Row) -> str:
    """One line where there is no terminal."""
    progress = row.progress
    parts = [f"{name:12s} {row.status}"]
    if progress and progress.accuracy is not None:
        parts.append(f"epoch {epochs_finished(progress)}/{progress.epochs}")
        parts.append(f"val. accuracy {percent(progress.accuracy)}")
        parts.append(f"best {percent(progress.best_accuracy)}")
        parts.append(f"{progress.images_per_second:,.0f} images/s")
    if row.note:
        parts.append(one_line(row.note))
    return "  ".join(parts)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def seconds_left(progress: Progress, elapsed: float, resumed: int) -> float | None:
    """At the present pace, until the last epoch; early stopping may end it sooner.

    Args:
        progress: how far the workers are.
        elapsed: seconds that they took for it.
        resumed: epochs that were finished before.

    Returns:
        Seconds; None while it is too early to say.
    """
    done = progress.epoch - 1 + progress.step / max(progress.steps, 1)
    if done - resumed < 0.05:
        return None
    return elapsed / (done - resumed) * (progress.epochs - done)


def duration(seconds: float) -> str:
    """`12 s`, `3:05`, `1:02:03`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{second:02d}"
    return f"{minutes}:{second:02d}" if minutes else f"{second} s"
