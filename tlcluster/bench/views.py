"""`suite`, on augmented images: a new view every epoch, and a few views in turn."""

from tlcluster.bench.context import Context
from tlcluster.bench.measures import PERCENT, SECONDS, Comparison, Part, Timing, ratio
from tlcluster.bench.plain_keras import PlainKeras, one_epoch, plain_keras, whole_program
from tlcluster.bench.runs import SEEDS, STUDY_EPOCHS, Run, emptied, paper, run

VIEWS = 8
MORE_EPOCHS = 4
"""Difference in epochs of the two runs whose times are compared."""
AUGMENTED = ("augmented", "regularized")


def _both(context: Context, commands: list[str]) -> PlainKeras:
    """`augmented` and `regularized` in plain Keras, one after the other as in a notebook."""
    one, other = (plain_keras(context, name, commands) for name in AUGMENTED)
    pairs = zip(one.epochs, other.epochs, strict=True)
    return PlainKeras(one.start + other.start, tuple(a + b for a, b in pairs))


def measure_fresh(context: Context) -> Part:
    """Both with a new view every epoch."""
    commands: list[str] = []
    peers = _both(context, commands)
    more = 2 if context.quick else MORE_EPOCHS
    store, output = context.all_images.store, context.work / "runs"
    differences = []
    for _ in range(context.repeats):
        # Views are computed ahead of the epochs that use them, so the time of a single epoch
        # says little. The difference between a long and a short run contains all of the work.
        short, long = (
            run(context, store, emptied(output), "fresh", *paper(",".join(AUGMENTED), epochs))
            for epochs in (1, 1 + more)
        )
        differences.append((long.seconds - short.seconds) / more)
    commands += [short.command, long.command]
    ours = Timing(
        name="tlcluster, both at once, an epoch",
        unit=SECONDS,
        values=tuple(differences),
        note=f"what a command with {1 + more} epochs takes longer than one with 1, ÷ {more}",
    )
    theirs = one_epoch(context, peers, "plain Keras, an epoch of each")
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-fresh-views",
        about=f"augmented and regularized, {rows:,} images a split, a fresh view every epoch",
        timings=(theirs, ours),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 5),),
        commands=tuple(commands),
    )


def measure_few(context: Context) -> Part:
    """Both to the end with a few views in turn: their time, and the loss of accuracy."""
    commands: list[str] = []
    peers = _both(context, commands)
    epochs = 2 if context.quick else STUDY_EPOCHS
    output = emptied(context.work / "runs")

    def trained(views: int) -> list[Run]:
        """Run with each seed. All use the same views, which the first run computes."""
        shown = ("--views", str(views), "--view-seed", str(SEEDS[0]))
        return [
            run(
                context,
                context.all_images.store,
                output,
                f"{views}-views-seed-{seed}",
                *paper(",".join(AUGMENTED), epochs, *shown, "--seed", str(seed)),
            )
            for seed in SEEDS
        ]

    few = trained(VIEWS)
    # As many views as epochs are a new view every epoch, and are kept for the next seed.
    fresh = trained(epochs)
    ours = Timing(
        name=f"tlcluster, both at once, {VIEWS} views, {epochs} epochs",
        unit=SECONDS,
        values=(few[0].seconds,),
    )
    theirs = whole_program(context, peers, f"plain Keras, {epochs} epochs of each", epochs)
    accuracies = []
    differences = []
    for name in AUGMENTED:
        of_few, of_fresh = (
            Timing(
                name=f"{name}, test accuracy, {way}",
                unit=PERCENT,
                values=tuple(one.accuracy(name) for one in ended),
            )
            for way, ended in ((f"{VIEWS} views", few), ("fresh views", fresh))
        )
        accuracies += [of_few, of_fresh]
        differences.append(
            Comparison(
                name=f"{name}, {VIEWS} views or fresh ones, difference of medians",
                value=abs(of_few.median - of_fresh.median),
                goal=0.5,
                better="less",
                unit="points",
            )
        )
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-few-views",
        about=f"augmented and regularized, {rows:,} images a split, {VIEWS} views in turn, "
        f"seeds {', '.join(map(str, SEEDS))}",
        timings=(theirs, ours, *accuracies),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 25), *differences),
        commands=(*commands, few[0].command, fresh[0].command),
    )
