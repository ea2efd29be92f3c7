"""`concurrency`: the four experiments at the same time, compared with one after the other."""

from tlcluster.bench.context import Context
from tlcluster.bench.measures import SECONDS, Comparison, Part, Timing
from tlcluster.bench.runs import emptied, run
from tlcluster.experiments import EXPERIMENTS


def measure(context: Context) -> Part:
    """Time the whole commands. Experiments that run alone share features, as in a user's runs."""
    images = context.some_images
    recipe = ("--profile", "paper", "--epochs", "1" if context.quick else "3")
    at_once: list[float] = []
    alone: dict[str, list[float]] = {name: [] for name in EXPERIMENTS}
    for _ in range(context.repeats):
        output = emptied(context.work / "runs")
        together = run(context, images.store, output, "at-once", *recipe)
        at_once.append(together.seconds)
        output = emptied(context.work / "runs")
        for name in EXPERIMENTS:
            single = run(context, images.store, output, name, *recipe, "--experiments", name)
            alone[name].append(single.seconds)
    together_timing = Timing(name="four at once", unit=SECONDS, values=tuple(at_once))
    timings = [
        Timing(name=f"{name} alone", unit=SECONDS, values=tuple(values))
        for name, values in alone.items()
    ]
    in_turn = sum(timing.median for timing in timings)
    return Part(
        name="concurrency",
        about=f"whole commands, {images.rows['train']:,} images a split, {recipe[-1]} epochs",
        timings=(together_timing, *timings),
        comparisons=(
            Comparison(
                name="four at once ÷ the sum of each alone",
                value=together_timing.median / in_turn,
                goal=0.95,
                better="less",
            ),
        ),
        commands=(together.command, single.command.replace("finetuned", "NAME")),
    )
