"""`scaling`: training on two workers of one core compared with one worker of two cores."""

from tlcluster.bench.context import Context
from tlcluster.bench.measures import Part, Timing, ratio
from tlcluster.bench.runs import emptied, run

WAYS = {
    "one worker of two cores": ("--workers", "1", "--cpus-per-worker", "2"),
    "two workers of one core": ("--workers", "2", "--cpus-per-worker", "1"),
}


def measure(context: Context) -> Part:
    """Train `finetuned` both ways; the first epoch traces the graph and is left out."""
    images = context.some_images
    timings, commands = [], []
    for number, (way, flags) in enumerate(WAYS.items()):
        ended = run(
            context,
            images.store,
            emptied(context.work / "runs"),
            f"scaling-{number}",
            *("--profile", "paper", "--experiments", "finetuned"),
            *("--epochs", 1 + context.timed_epochs),
            *flags,
        )
        values = tuple(record.images_per_second for record in ended.epochs("finetuned")[1:])
        timings.append(Timing(name=way, unit="images/s", values=values))
        commands.append(ended.command)
    one, two = timings
    return Part(
        name="scaling",
        about=f"finetuned, {images.rows['train']:,} images an epoch, batches of 128",
        timings=tuple(timings),
        comparisons=(ratio("two workers ÷ one", two, one, 0.9),),
        commands=tuple(commands),
    )
