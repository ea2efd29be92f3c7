"""What a person sees while experiments run: a live table, or a line an epoch."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tlcluster.records import Status


class Progress(NamedTuple):
    """How far the workers of an experiment are."""

    epoch: int
    """The epoch in progress, counted from 1; the last one while testing."""
    epochs: int
    step: int
    steps: int
    images_per_second: float
    accuracy: float | None
    """Validation accuracy of the last finished epoch."""
    best_accuracy: float | None
    phase: str
    """`training`, `validating` or `testing`."""


POST_SECONDS = 0.1
"""Between two posts of one phase, at least: a few steps of a head take as long as one post."""


def now_and_then(post: Callable[[Progress], bool]) -> Callable[[Progress], bool]:
    """`post`, less often: a new phase at once, what follows in it every `POST_SECONDS` at most.

    What is not posted is answered with False; the next post brings a wish to stop.
    """
    phase, due = "", 0.0

    def progress(now: Progress) -> bool:
        nonlocal phase, due
        if now.phase == phase and time.monotonic() < due:
            return False
        asked_to_stop = post(now)
        phase, due = now.phase, time.monotonic() + POST_SECONDS
        return asked_to_stop

    return progress


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


class Board:
    """Where workers post their progress and hear that they should stop. A Ray actor in a run."""

    def __init__(self) -> None:
        self._progress: dict[str, list[Progress]] = {}
        self._workers: dict[str, list[object]] = {}
        self._controllers: dict[str, list[object]] = {}
        self._reservations: dict[str, list[object]] = {}
        self._failures: dict[str, str] = {}
        self._stopped: set[str] = set()

    def begin(self, experiment: str) -> None:
        """Forget what an earlier attempt left."""
        self._progress.pop(experiment, None)
        self._workers.pop(experiment, None)
        self._controllers.pop(experiment, None)
        self._reservations.pop(experiment, None)

    def hello(self, experiment: str, worker: object) -> None:
        """A worker has started; `worker` is its actor handle."""
        self._workers.setdefault(experiment, []).append(worker)

    def workers(self, experiment: str) -> list[object]:
        return self._workers.get(experiment, [])

    def controlled(self, experiment: str, controller: object) -> None:
        """Somebody looks after its workers; `controller` is the actor's handle."""
        self._controllers.setdefault(experiment, []).append(controller)

    def controllers(self) -> list[object]:
        """Those of all experiments that have begun, whether they are still alive or not."""
        return [one for controllers in self._controllers.values() for one in controllers]

    def reserved(self, experiment: str, group: object) -> None:
        """Its workers have places; `group` is their placement group."""
        self._reservations.setdefault(experiment, []).append(group)

    def reservations(self, experiment: str) -> list[object]:
        return self._reservations.get(experiment, [])

    def post(self, experiment: str, progress: Progress) -> bool:
        """Note the progress; True if the experiment should stop."""
        posts = self._progress.setdefault(experiment, [])
        if posts and epochs_finished(posts[-1]) == epochs_finished(progress):
            posts.pop()
        posts.append(progress)
        return experiment in self._stopped

    def fail(self, experiment: str, why: str) -> None:
        """A worker met an error that no new attempt can mend."""
        self._failures.setdefault(experiment, why)

    def stop(self, experiment: str) -> None:
        self._stopped.add(experiment)

    def verdict(self, experiment: str) -> tuple[str | None, bool]:
        """Why no new attempt can mend it, if so; and whether it was asked to stop."""
        return self._failures.get(experiment), experiment in self._stopped

    def read(self) -> dict[str, tuple[Progress, ...]]:
        """The last progress of each experiment; before it, the last ones of the epochs that have
        passed since this was read before."""
        unread = {experiment: tuple(posts) for experiment, posts in self._progress.items()}
        for posts in self._progress.values():
            del posts[:-1]
        return unread


class Display:
    """A live table on a terminal; elsewhere a line an epoch and one for each change of state."""

    def __init__(self, console: Console, heading: str) -> None:
        self._console = console
        self._heading = heading
        self._live = (
            Live(console=console, refresh_per_second=4, transient=False)
            if console.is_terminal
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
    result = Table(title=heading, title_justify="left", title_style="bold", expand=False)
    result.add_column("experiment")
    result.add_column("state")
    for column in ("epoch", "val. accuracy", "best", "images/s", "elapsed", "left"):
        result.add_column(column, justify="right")
    for name, row in rows.items():
        result.add_row(f"[bold]{name}[/] {row.title}", _state(row), *_numbers(row, now))
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
    return f"{text} [dim]{escape(row.note)}[/]" if row.note else text


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
        parts.append(row.note)
    return "  ".join(parts)


def epochs_finished(progress: Progress | None) -> int:
    """Epochs that have been validated, those before an interruption included."""
    if progress is None:
        return 0
    return progress.epoch if progress.phase == "testing" else progress.epoch - 1


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
