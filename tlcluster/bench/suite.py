"""`suite`: whole trainings, ours and the study's recipe as a plain Keras program."""

from typing import NamedTuple

from tlcluster.bench import program
from tlcluster.bench.context import Context
from tlcluster.bench.datasets import Images
from tlcluster.bench.machine import processor
from tlcluster.bench.measures import Comparison, Part, Timing, ratio
from tlcluster.bench.runs import Run, emptied, run
from tlcluster.weights import FILE_NAME, RANDOM, find_weights

EPOCHS = 55
VIEWS = 8
MORE_EPOCHS = 8
"""By which two runs differ whose times are compared."""
AUGMENTED = ("augmented", "regularized")
SEEDS = (524, 1, 2)
"""Of the trainings whose accuracy is compared: one alone has a point more or less by chance."""

FLOP_PER_IMAGE = 3 * 0.627e9
"""Of training VGG16 at 32×32: forward, and twice that backward; a multiply-add is two."""

PLAIN = {"TF_USE_LEGACY_KERAS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Environment of the plain Keras programs: the Keras that TensorFlow brings, and no chatter."""

SECONDS = "s"
PERCENT = "%"


class Peer(NamedTuple):
    """What a plain Keras program took for one model."""

    start: float
    """Seconds from its start, imports left out, to its first step."""
    epochs: tuple[float, ...]
    """Seconds of each epoch with its validation, the first left out."""

    def run(self, factor: float, epochs: int) -> tuple[float, ...]:
        """Seconds of a whole program of that many epochs with `factor` times the images."""
        return tuple(self.start + epochs * factor * seconds for seconds in self.epochs)


def _peer(context: Context, name: str, commands: list[str], **environment: str) -> Peer:
    arguments = ["--epochs", str(1 + context.repeats)]
    variables = "".join(f"{key}={value} " for key, value in environment.items())
    context.tell(f"suite: {variables}plain Keras, {name}")
    answer = program.ask(
        "peer_keras",
        name,
        context.some_images.folder,
        *_weights(context),
        *arguments,
        environment=PLAIN | environment,
    )
    commands.append(variables + program.shown("peer_keras", name, "FOLDER", *arguments))
    return Peer(answer.said["start_seconds"], tuple(answer.said["epoch_seconds"][1:]))


def _weights(context: Context) -> list[str]:
    """The same file that our runs find, for a peer."""
    if context.weights == RANDOM:
        return []
    file = context.work / FILE_NAME
    if not file.exists():
        _, content = find_weights(context.weights, None)
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(content or b"")
        unfinished.replace(file)
    return ["--weights", str(file)]


def _factor(context: Context) -> float:
    """How many times the images of the timed epochs the whole data set has."""

    def an_epoch(images: Images) -> int:
        return images.rows["train"] + images.rows["valid"]

    return an_epoch(context.all_images) / an_epoch(context.some_images)


def _stretched(context: Context, epochs: int) -> str:
    return (
        f"start + {epochs} × epoch, the epochs timed with {context.some_images.rows['train']:,} "
        f"images a split and taken {_factor(context):g} times"
    )


def _paper(experiments: str, epochs: int, *more: str) -> list[str]:
    """A run that does not stop early, so that every epoch is paid for."""
    patience = ("--set", f"*.patience={epochs}")
    recipe = ("--profile", "paper", "--experiments", experiments, "--epochs", str(epochs))
    return [*recipe, *patience, *more]


def _accuracy(ended: Run, name: str) -> float:
    return 100 * float(ended.experiment(name)["test"]["accuracy"])


def measure_frozen(context: Context) -> Part:
    """`frozen` to the end, and its accuracy."""
    commands: list[str] = []
    peer = _peer(context, "frozen", commands)
    epochs = 2 if context.quick else EPOCHS
    output = context.work / "runs"
    store = context.all_images.store
    ended = [
        run(context, store, emptied(output), "frozen", *_paper("frozen", epochs))
        for _ in range(context.repeats)
    ]
    commands.append(ended[0].command)
    ours = Timing(
        name=f"tlcluster, {epochs} epochs, features computed in it",
        unit=SECONDS,
        values=tuple(one.seconds for one in ended),
    )
    theirs = Timing(
        name=f"plain Keras, {epochs} epochs",
        unit=SECONDS,
        values=peer.run(_factor(context), epochs),
        note=_stretched(context, epochs),
    )
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-frozen",
        about=f"frozen, {rows:,} images a split, {epochs} epochs, validation after each",
        timings=(theirs, ours),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 40),),
        commands=tuple(commands),
    )


def measure_accuracy(context: Context) -> Part:
    """What `frozen` reaches on both ways, with some seeds."""
    epochs = 2 if context.quick else EPOCHS
    output = emptied(context.work / "runs")
    # The first computes the features, the others find them.
    ended = [
        run(
            context,
            context.all_images.store,
            output,
            f"seed-{seed}",
            *_paper("frozen", epochs, "--seed", str(seed)),
        )
        for seed in SEEDS
    ]
    ours = Timing(
        name="tlcluster, the best epoch",
        unit=PERCENT,
        values=tuple(_accuracy(one, "frozen") for one in ended),
    )
    arguments = ["--epochs", str(epochs), "--seeds", *map(str, SEEDS)]
    context.tell("suite: the head of frozen in plain Keras")
    answer = program.ask(
        "peer_head",
        context.all_images.folder,
        *_weights(context),
        *arguments,
        environment=PLAIN,
    )
    theirs = Timing(
        name="plain Keras, the last epoch",
        unit=PERCENT,
        values=tuple(answer.said["accuracy"]),
        note="its head on features made once; the whole program would take hours",
    )
    difference = Comparison(
        name="difference of medians",
        value=abs(ours.median - theirs.median),
        goal=0.5,
        better="less",
        unit="points",
    )
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-accuracy",
        about=f"frozen, test accuracy, {rows:,} images a split, {epochs} epochs, "
        f"seeds {', '.join(map(str, SEEDS))}",
        timings=(theirs, ours),
        comparisons=(difference,),
        commands=(ended[0].command, program.shown("peer_head", "FOLDER", *arguments)),
    )


def _both(context: Context, commands: list[str]) -> tuple[float, tuple[float, ...]]:
    """`augmented` and `regularized` in plain Keras, one after the other, as a notebook runs them.

    Returns:
        Seconds of their starts, and of an epoch of each.
    """
    one, other = (_peer(context, name, commands) for name in AUGMENTED)
    pairs = zip(one.epochs, other.epochs, strict=True)
    return one.start + other.start, tuple(a + b for a, b in pairs)


def measure_fresh_views(context: Context) -> Part:
    """`augmented` and `regularized` with a fresh view an epoch."""
    commands: list[str] = []
    _, seconds = _both(context, commands)
    more = 2 if context.quick else MORE_EPOCHS
    store, output = context.some_images.store, context.work / "runs"
    differences = []
    for _ in range(context.repeats):
        # Views are computed ahead of the epochs that show them, so an epoch's own time says
        # little; what a longer run takes longer has all of the work in it.
        short, long = (
            run(context, store, emptied(output), "fresh", *_paper(",".join(AUGMENTED), epochs))
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
    theirs = Timing(name="plain Keras, an epoch of each", unit=SECONDS, values=seconds)
    rows = context.some_images.rows["train"]
    return Part(
        name="suite-fresh-views",
        about=f"augmented and regularized, {rows:,} images a split, a fresh view every epoch",
        timings=(theirs, ours),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 5),),
        commands=tuple(commands),
    )


def measure_few_views(context: Context) -> Part:
    """The same two to the end with a few views in turn."""
    commands: list[str] = []
    start, seconds = _both(context, commands)
    epochs = 2 if context.quick else EPOCHS
    options = _paper(",".join(AUGMENTED), epochs, "--views", str(VIEWS))
    output = emptied(context.work / "runs")
    ended = run(context, context.all_images.store, output, "few", *options)
    commands.append(ended.command)
    accuracies = ", ".join(f"{name} {_accuracy(ended, name):.1f} %" for name in AUGMENTED)
    ours = Timing(
        name=f"tlcluster, both at once, {VIEWS} views, {epochs} epochs",
        unit=SECONDS,
        values=(ended.seconds,),
        note=f"test accuracy: {accuracies}",
    )
    factor = _factor(context)
    theirs = Timing(
        name=f"plain Keras, {epochs} epochs of each",
        unit=SECONDS,
        values=tuple(start + epochs * factor * both for both in seconds),
        note=_stretched(context, epochs),
    )
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-few-views",
        about=f"augmented and regularized, {rows:,} images a split, {VIEWS} views in turn",
        timings=(theirs, ours),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 25),),
        commands=tuple(commands),
    )


def measure_view_accuracy(context: Context) -> Part:
    """What the same two reach with a few views in turn, and with a fresh one every epoch."""
    epochs = 2 if context.quick else EPOCHS
    ways = {f"{VIEWS} views in turn": ("--views", str(VIEWS)), "a fresh view every epoch": ()}
    ended = [
        run(
            context,
            context.all_images.store,
            emptied(context.work / "runs"),
            f"views-{number}",
            *_paper(",".join(AUGMENTED), epochs, *options),
        )
        for number, options in enumerate(ways.values())
    ]
    timings = [
        Timing(name=f"{name}, {way}", unit=PERCENT, values=(_accuracy(one, name),))
        for name in AUGMENTED
        for way, one in zip(ways, ended, strict=True)
    ]
    differences = [
        Comparison(
            name=f"{name}, difference",
            value=abs(_accuracy(ended[0], name) - _accuracy(ended[1], name)),
            goal=0.5,
            better="less",
            unit="points",
        )
        for name in AUGMENTED
    ]
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-view-accuracy",
        about=f"augmented and regularized, test accuracy, {rows:,} images a split, {epochs} epochs",
        timings=tuple(timings),
        comparisons=tuple(differences),
        commands=tuple(one.command for one in ended),
    )


def _products() -> list[float]:
    """Rates of float32 matrix products, in GFLOP/s."""
    answer = program.ask("matmul", environment={"TF_ENABLE_ONEDNN_OPTS": "1"})
    return [rate / 1e9 for rate in answer.said["flop_per_second"]]


def measure_finetuned(context: Context) -> Part:
    """`finetuned`: an epoch of it, and how much of the machine it uses."""
    commands: list[str] = []
    states = {"default settings": {}, "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"}}
    if "Intel" in processor():
        # There TensorFlow turns it on by itself; elsewhere the default is this.
        states["oneDNN off"] = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    peers = {
        state: _peer(context, "finetuned", commands, **variables)
        for state, variables in states.items()
    }
    # Before and after, so that the fastest is not of a moment in which the machine was slow.
    products = _products()
    options = _paper("finetuned", 1 + context.repeats)
    output = emptied(context.work / "runs")
    ended = run(context, context.some_images.store, output, "finetuned", *options)
    commands.append(ended.command)
    records = ended.epochs("finetuned")[1:]
    ours = Timing(
        name="tlcluster, an epoch with validation",
        unit=SECONDS,
        values=tuple(record.seconds for record in records),
    )
    rate = Timing(
        name="tlcluster, training",
        unit="images/s",
        values=tuple(record.images_per_second for record in records),
    )
    products += _products()
    commands.append(program.shown("matmul"))
    machine = Timing(
        name="float32 matrix product, 2048³",
        unit="GFLOP/s",
        values=tuple(products),
    )
    theirs = {
        state: Timing(
            name=f"plain Keras, an epoch with validation, {state}",
            unit=SECONDS,
            values=peer.epochs,
        )
        for state, peer in peers.items()
    }
    goals = {"default settings": 3.5, "oneDNN on": 1.3, "oneDNN off": 3.5}
    rows = [
        ratio(f"plain Keras ÷ tlcluster, {state}", timing, ours, goals[state])
        for state, timing in theirs.items()
    ]
    use = Comparison(
        name="floating-point rate of training ÷ fastest matrix product",
        value=rate.median * FLOP_PER_IMAGE / 1e9 / max(machine.values),
        goal=0.8,
    )
    return Part(
        name="suite-finetuned",
        about=f"finetuned, {context.some_images.rows['train']:,} images a split",
        timings=(*theirs.values(), ours, rate, machine),
        comparisons=(*rows, use),
        commands=tuple(commands),
    )
