"""`startup`: from the command to the first training step of the last of the four experiments."""

from tlcluster.bench.context import Context
from tlcluster.bench.measures import SECONDS, Comparison, Part, Timing
from tlcluster.bench.runs import emptied, run
from tlcluster.experiments import EXPERIMENTS


def measure(context: Context) -> Part:
    """Start the four as `make run` does, once untimed so that files are in memory."""
    seconds: dict[str, list[float]] = {name: [] for name in EXPERIMENTS}
    for number in range(1 + context.repeats):
        output = emptied(context.work / "runs")
        ended = run(context, None, output, f"startup-{number}", "--epochs", 1)
        if number == 0:
            continue
        for name in EXPERIMENTS:
            seconds[name].append(ended.experiment(name)["startup_seconds"])
    timings = [
        Timing(name=f"{name}, first step", unit=SECONDS, values=tuple(values))
        for name, values in seconds.items()
    ]
    last = Timing(
        name="the last of the four, first step",
        unit=SECONDS,
        values=tuple(max(values) for values in zip(*seconds.values(), strict=True)),
    )
    return Part(
        name="startup",
        about="from the command on: the embedded S3 server is started and filled with the sample, "
        "Ray is started, features are computed; files are in memory",
        timings=(*timings, last),
        comparisons=(
            Comparison(
                name="command → first step of the last of the four",
                value=last.median,
                goal=45,
                better="less",
                unit=SECONDS,
            ),
        ),
        commands=(ended.command,),
    )
