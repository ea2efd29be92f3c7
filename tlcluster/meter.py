"""Progress of a long step: a bar on a terminal, a line from time to time elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tlcluster.terminal import redraws

LINE_SECONDS = 10.0
"""Time between two lines if the output is not a terminal."""

Advance = Callable[[int], None]


@contextlib.contextmanager
def meter(
    step: str, total: int, unit: Literal["images", "bytes", "pairs"], show: bool
) -> Iterator[Advance]:
    """Show the progress of a block on standard error, unless `show` is false.

    Yields a function: call it with the amount that was done since the last call.
    """
    console = Console(stderr=True, quiet=not show)
    started = time.monotonic()
    done = 0

    def text() -> str:
        rate = done / max(time.monotonic() - started, 1e-9)
        if unit == "bytes":
            return f"{decimal(done)} of {decimal(total)}, {decimal(int(rate))}/s"
        return f"{done:,} of {total:,} {unit}, {rate:,.0f}/s"

    if redraws(console):
        columns = (
            TextColumn("{task.description:<11}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(step, total=total, text="")

            def advance_bar(amount: int) -> None:
                nonlocal done
                done += amount
                progress.update(task, completed=done, text=text())

            yield advance_bar
        return

    line = started

    def advance_lines(amount: int) -> None:
        nonlocal done, line
        done += amount
        if time.monotonic() - line >= LINE_SECONDS:
            line = time.monotonic()
            console.print(f"{step}: {text()}", highlight=False, soft_wrap=True)

    yield advance_lines
