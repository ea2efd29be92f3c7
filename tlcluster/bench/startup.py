"""`startup`: from the command to the first training step of the last of the four experiments."""

import datetime
import time

from tlcluster.bench.context import Context
from tlcluster.bench.measures import Comparison, Part, Timing
from tlcluster.bench.runs import emptied, run
from tlcluster.experiments import EXPERIMENTS


def measure(context: Context) -> Part:
    """Start the four; once before the clock counts, so that files are in memory."""
    images = context.some_images
    recipe = ("--profile", "paper", "--epochs", "1")
    seconds: dict[str, list[float]] = {name: [] for name in EXPERIMENTS}
    for number in range(1 + context.repeats):
        output = emptied(context.work / "runs")
        began = time.time()
        ended = run(context, images.store, output, f"startup-{number}", *recipe)
        started = datetime.datetime.fromisoformat(ended.results["run"]["started"]).timestamp()
        if number == 0:
            continue
        for name in EXPERIMENTS:
            # What the run tells begins with its driver; the command began before.
            own = ended.experiment(name)["startup_seconds"]
            seconds[name].append(started - began + own)
    timings = [
        Timing(name=f"{name}, first step", unit="s", values=tuple(values))
        for name, values in seconds.items()
    ]
    last = Timing(
        name="the last of the four, first step",
        unit="s",
        values=tuple(max(values) for values in zip(*seconds.values(), strict=True)),
    )
    return Part(
        name="startup",
        about="from the command on, four experiments at once, files in memory",
        timings=(*timings, last),
        comparisons=(
            Comparison(
                name="command → first step of the last of the four",
                value=last.median,
                goal=45,
                better="less",
                unit="s",
            ),
        ),
        commands=(ended.command,),
    )
