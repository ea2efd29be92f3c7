"""The command `check`: could a run start on every node that it would use?"""

import contextlib
import time
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tlcluster import cli
from tlcluster.checkup.finding import Nodes, faults, notes, rows
from tlcluster.checkup.stores import exercise, new_mark
from tlcluster.orchestration.inspection import Show, inspected, used_places
from tlcluster.orchestration.plan import count
from tlcluster.orchestration.ready import made_ready
from tlcluster.orchestration.suite import opened_output
from tlcluster.settings import RunSettings
from tlcluster.terminal import one_line, printable, redraws, say

LINE_SECONDS = 10.0
"""Time between two lines about progress if the output is not a terminal."""


def run_check(settings: RunSettings, seconds: float) -> int:
    """Check all nodes that a run of these settings would use, and print what was found.

    Args:
        settings: of the run.
        seconds: for the nodes' answers together.

    Returns:
        An exit status: 0 if a run can start, else 2.

    Raises:
        UserError: something given cannot be used.
        StoreUnavailable: storage does not answer the driver.
    """
    console = Console()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(opened_output(settings.output))
        with progress("looking at storage and connecting to Ray"):
            exercise(output, new_mark().key)
            ready = made_ready(settings, stack, download=False)
        used = used_places(ready)
        with progress(f"checking {count(len(used), 'node')}") as shown:
            found = inspected(ready, output, used, shown, seconds)
    # After the block: Ray prints something when it ends.
    return show(console, found)


def show(console: Console, found: Nodes) -> int:
    """Print the table, the notes and the faults; returns the exit status."""
    table = Table("node", "check", "", "found", box=SIMPLE_HEAD, pad_edge=False)
    for node, check, mark, text in rows(found):
        style = "red" if mark == "FAULT" else "green"
        table.add_row(*(escape(printable(one)) for one in (node, check)), f"[{style}]{mark}[/]",
                      escape(printable(text)))  # fmt: skip
    console.print(table)
    for line in notes(found):
        say(console, f"note: {one_line(line)}")
    wrong = faults(found)
    for line in wrong:
        say(console, f"error: {one_line(line)}")
    if wrong:
        return cli.USAGE
    say(console, f"A run can start on {count(len(found), 'node')}.")
    return cli.OK


@contextlib.contextmanager
def progress(step: str) -> Iterator[Show]:
    """Show on standard error how many answers have come; yields what to call with the numbers."""
    console = Console(stderr=True)
    if redraws(console):
        with console.status(step) as status:
            yield lambda done, total: status.update(f"{step}: {done} of {total} answers")
        return
    said = time.monotonic()
    console.print(step, highlight=False, soft_wrap=True)

    def line(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            console.print(f"{step}: {done} of {total} answers", highlight=False, soft_wrap=True)

    yield line
