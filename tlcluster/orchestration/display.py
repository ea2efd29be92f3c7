"""What a person sees while experiments run: a live table, or one line per epoch."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tlcluster.orchestration.board import Since
from tlcluster.records import Status
from tlcluster.terminal import one_line, printable, redraws, say
from tlcluster.training.progress import Phase, Progress, epochs_finished, seconds_left

FRAME_LINES = 7
"""Lines of a terminal that the live table needs beside its rows: title, frame, heading, caption."""
LEAST_ROWS = 4


class Row(NamedTuple):
    """One replicate in the table."""

    title: str
    status: Status
    progress: Progress | None = None
    passed: tuple[Progress, ...] = ()
    """The last progress of epochs that have passed since the row was shown before."""
    note: str = ""
    """For example why it failed, or that it was finished earlier."""
    began: float | None = None
    """Time, in seconds of `time.monotonic`, when its workers were asked for."""
    ended: float | None = None
    """The same, when they were done."""
    resumed: int = 0
    """Epochs that were finished before."""
    away: Since | None = None
    """Storage does not answer its workers."""
    worker_seconds: float = 0.0
    """Time of its workers, all of them together, under earlier drivers too."""
    money: str = ""
    """What this time costs; empty without a price."""

    @property
    def phase(self) -> Phase:
        """What its workers do, if it is running."""
        if self.away:
            return Phase.WAITING
        return self.progress.phase if self.progress else Phase.STARTING


class Display:
    """A live table on a terminal; elsewhere one line per epoch and per change of state."""

    def __init__(self, console: Console, heading: str) -> None:
        self._console = console
        self._heading = heading
        self._live = (
            Live(console=console, refresh_per_second=4, transient=False)
            if redraws(console)
            else None
        )
        self._said: dict[str, tuple[object, ...]] = {}
        self._away: Since | None = None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, rows: Mapping[str, Row], away: Since | None = None) -> None:
        """Show the present state; call it about twice a second.

        Args:
            rows: key → replicate.
            away: storage does not answer the driver.
        """
        now = time.monotonic()
        if self._live:
            fit = max(LEAST_ROWS, self._console.height - FRAME_LINES)
            self._live.update(table(self._heading, rows, now, away, fit))
            return
        away = min(
            (one for one in (away, *(row.away for row in rows.values())) if one), default=None
        )
        if away and not self._away:
            say(self._console, f"storage away: {away.why}")
        elif self._away and not away:
            say(self._console, f"storage is back after {coarse(now - self._away.time)}")
        self._away = away
        for name, row in rows.items():
            # An epoch that has passed was trained while the experiment was running.
            passed = (row._replace(status="running", progress=p, note="") for p in row.passed)
            for shown in (*passed, row):
                said = (shown.status, epochs_finished(shown.progress), shown.note)
                if self._said.get(name) != said:
                    self._said[name] = said
                    say(self._console, line(name, shown))


def table(
    heading: str,
    rows: Mapping[str, Row],
    now: float,
    away: Since | None = None,
    most: int | None = None,
) -> Table:
    """The live table: one row per replicate, or as many as fit while some are open.

    Args:
        heading: above the table.
        rows: key → replicate.
        now: the present time.
        away: storage does not answer the driver.
        most: rows that fit on the terminal; None: any number.
    """
    result = Table(title=escape(heading), title_justify="left", title_style="bold", expand=False)
    if away:
        result.caption = f"{_away(away, now)}: {escape(one_line(away.why))}"
        result.caption_justify = "left"
    result.add_column("experiment")
    result.add_column("state")
    spent = any(row.worker_seconds for row in rows.values())
    priced = spent and any(row.money for row in rows.values())
    for column in ("epoch", "val. accuracy", "best", "images/s", "elapsed", "left"):
        result.add_column(column, justify="right")
    if spent:
        result.add_column("worker-h", justify="right")
    if priced:
        result.add_column("cost", justify="right")
    shown = fitting(rows, most)
    for name, row in shown.items():
        result.add_row(
            f"[bold]{name}[/] {escape(printable(row.title))}",
            _state(row, now),
            *_numbers(row, now),
            *([worker_hours(row)] if spent else []),
            *([row.money] if priced else []),
        )
    if len(shown) < len(rows):
        hidden = Counter(row.status for name, row in rows.items() if name not in shown)
        words = ", ".join(f"{count} {status}" for status, count in hidden.items())
        result.add_row(f"[dim]and {words}[/]")
    return result


def fitting(rows: Mapping[str, Row], most: int | None) -> Mapping[str, Row]:
    """The rows to show, in their order: those that run, then those that failed, queue, ended.

    All of them once none is open: then the table stands still and can be scrolled.

    Args:
        rows: key → replicate.
        most: rows that fit; None: any number.
    """
    statuses = {row.status for row in rows.values()}
    if most is None or len(rows) <= most or not statuses & {"queued", "running"}:
        return rows
    order = ("running", "failed", "interrupted", "queued", "finished")
    first = set(sorted(rows, key=lambda name: order.index(rows[name].status))[: most - 1])
    return {name: row for name, row in rows.items() if name in first}


def _away(away: Since, now: float) -> str:
    return f"storage away for {coarse(now - away.time)}"


_STYLES: Mapping[str, str] = {
    "queued": "dim",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
}


def _state(row: Row, now: float) -> str:
    words: str = row.phase if row.status == "running" else row.status
    if row.status == "running" and row.away:
        words = _away(row.away, now)
    text = f"[{_STYLES[row.status]}]{words}[/]"
    return f"{text} [dim]{escape(one_line(row.note))}[/]" if row.note else text


def _numbers(row: Row, now: float) -> tuple[str, ...]:
    progress = row.progress
    elapsed = duration((row.ended or now) - row.began) if row.began is not None else ""
    if progress is None:
        return "", "", "", "", elapsed, ""
    part, left = "", None
    if row.status == "running" and progress.phase != Phase.TESTING:
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
    """One line for output that is not a terminal."""
    progress = row.progress
    parts = [f"{name:12s} {row.status}"]
    if progress and progress.accuracy is not None:
        parts.append(f"epoch {epochs_finished(progress)}/{progress.epochs}")
        parts.append(f"val. accuracy {percent(progress.accuracy)}")
        parts.append(f"best {percent(progress.best_accuracy)}")
        parts.append(f"{progress.images_per_second:,.0f} images/s")
    if row.status not in ("queued", "running") and row.worker_seconds:
        parts.append(f"{worker_hours(row)} worker-hours")
        if row.money:
            parts.append(row.money)
    if row.note:
        parts.append(one_line(row.note))
    return "  ".join(parts)


def worker_hours(row: Row) -> str:
    """What a training took so far; empty if it has had no workers."""
    return f"{row.worker_seconds / 3600:.2f}" if row.worker_seconds else ""


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def duration(seconds: float) -> str:
    """`12 s`, `3:05`, `1:02:03`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{second:02d}"
    return f"{minutes}:{second:02d}" if minutes else f"{second} s"


def coarse(seconds: float) -> str:
    """`12 s`, `2 min`."""
    return f"{max(0, round(seconds))} s" if seconds < 59.5 else f"{round(seconds / 60)} min"
