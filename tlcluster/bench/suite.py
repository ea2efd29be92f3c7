"""`suite`: whole trainings, ours and the study's recipe as a plain Keras program."""

from collections.abc import Mapping, Sequence
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
SEEDS = (524, 1, 2)
"""Of the trainings whose accuracy is compared: one alone has a point more or less by chance."""

FLOP_PER_IMAGE = 3 * 0.627e9
"""Of training VGG16 at 32×32: forward, and twice that backward; a multiply-add is two."""

SECONDS = "s"
POINTS = "%"


class Peer(NamedTuple):
    """What a plain Keras program took for one model."""

    start: float
    """Seconds from its start to its first step."""
    epochs: tuple[float, ...]
    """Seconds of each epoch with its validation, the first left out."""

    def of_images(self, factor: float) -> tuple[float, ...]:
        """The same epochs with `factor` times the images."""
        return tuple(factor * seconds for seconds in self.epochs)

    def run(self, factor: float, epochs: int) -> tuple[float, ...]:
        """Seconds of whole programs of that many epochs."""
        return tuple(self.start + epochs * seconds for seconds in self.of_images(factor))


def measure(context: Context) -> Part:
    """Time both, compare times and accuracies."""
    context.tell("suite: the plain Keras programs")
    names = ("frozen", "augmented", "regularized", "finetuned")
    commands: list[str] = []
    peers = {name: _peer(context, name, commands) for name in names}
    onednn = {"on": _peer(context, "finetuned", commands, TF_ENABLE_ONEDNN_OPTS="1")}
    if "Intel" in processor():
        onednn["off"] = _peer(context, "finetuned", commands, TF_ENABLE_ONEDNN_OPTS="0")
    parts = (
        _frozen(context, peers["frozen"], commands),
        _fresh_views(context, peers, commands),
        _few_views(context, peers, commands),
        _finetuned(context, peers["finetuned"], onednn, commands),
    )
    some, every = context.some_images.rows, context.all_images.rows
    return Part(
        name="suite",
        about=f"profile paper, batches of 128; {every['train']:,} images a split for whole runs, "
        f"{some['train']:,} for times an epoch; the plain Keras program ÷ ours",
        timings=tuple(timing for timings, _ in parts for timing in timings),
        comparisons=tuple(row for _, rows in parts for row in rows),
        commands=tuple(dict.fromkeys(commands)),
    )


Found = tuple[Sequence[Timing], Sequence[Comparison]]


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
        environment={"TF_CPP_MIN_LOG_LEVEL": "3", **environment},
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


def _frozen(context: Context, peer: Peer, commands: list[str]) -> Found:
    epochs = 2 if context.quick else EPOCHS
    output = context.work / "runs"
    store = context.all_images.store
    ended = [
        run(context, store, emptied(output), "frozen", *_paper("frozen", epochs))
        for _ in range(context.repeats)
    ]
    commands.append(ended[0].command)
    ours = Timing(
        name=f"tlcluster, frozen, {epochs} epochs, features computed in it",
        unit=SECONDS,
        values=tuple(one.seconds for one in ended),
    )
    theirs = Timing(
        name=f"plain Keras, frozen, {epochs} epochs",
        unit=SECONDS,
        values=peer.run(_factor(context), epochs),
        note=_stretched(context, epochs),
    )
    # Other seeds find the features that the last run left.
    accuracies = [_accuracy(ended[-1], "frozen")]
    for seed in SEEDS[1:]:
        more = _paper("frozen", epochs, "--seed", str(seed))
        accuracies.append(_accuracy(run(context, store, output, f"seed-{seed}", *more), "frozen"))
    arguments = ["--epochs", str(epochs), "--seeds", *map(str, SEEDS)]
    answer = program.ask(
        "peer_head",
        context.all_images.folder,
        *_weights(context),
        *arguments,
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    commands.append(program.shown("peer_head", "FOLDER", *arguments))
    our_accuracy = Timing(
        name="tlcluster, frozen, test accuracy", unit=POINTS, values=tuple(accuracies)
    )
    their_accuracy = Timing(
        name="plain Keras, frozen, test accuracy",
        unit=POINTS,
        values=tuple(answer.said["accuracy"]),
        note=f"its head trained for {epochs} epochs on features made once, seeds "
        f"{', '.join(map(str, SEEDS))}; ours keeps the best epoch, plain Keras the last",
    )
    return (
        (theirs, ours, their_accuracy, our_accuracy),
        (
            ratio(f"frozen, {epochs} epochs", theirs, ours, 40),
            Comparison(
                name="frozen, difference of median accuracy",
                value=abs(our_accuracy.median - their_accuracy.median),
                goal=0.5,
                better="less",
                unit="points",
            ),
        ),
    )


def _both(peers: Mapping[str, Peer], factor: float) -> tuple[float, ...]:
    """`augmented` and `regularized` one after the other, as a notebook runs them: an epoch each."""
    pairs = zip(peers["augmented"].epochs, peers["regularized"].epochs, strict=True)
    return tuple(factor * (a + b) for a, b in pairs)


def _fresh_views(context: Context, peers: Mapping[str, Peer], commands: list[str]) -> Found:
    # Views are computed ahead: the first epoch has more of that work in it, the last has less.
    options = _paper("augmented,regularized", 2 + context.repeats)
    output = emptied(context.work / "runs")
    ended = run(context, context.some_images.store, output, "fresh", *options)
    commands.append(ended.command)
    pairs = zip(ended.epochs("augmented"), ended.epochs("regularized"), strict=True)
    seconds = [max(a.seconds, b.seconds) for a, b in pairs][1:-1]
    ours = Timing(
        name="tlcluster, augmented + regularized at once, an epoch of both",
        unit=SECONDS,
        values=tuple(seconds),
    )
    theirs = Timing(
        name="plain Keras, augmented + regularized, an epoch of each",
        unit=SECONDS,
        values=_both(peers, 1),
    )
    goal = ratio("augmented + regularized, fresh views, an epoch", theirs, ours, 5)
    return (theirs, ours), (goal,)


def _few_views(context: Context, peers: Mapping[str, Peer], commands: list[str]) -> Found:
    epochs = 2 if context.quick else EPOCHS
    options = _paper("augmented,regularized", epochs, "--views", str(VIEWS))
    output = emptied(context.work / "runs")
    ended = run(context, context.all_images.store, output, "few", *options)
    commands.append(ended.command)
    names = ("augmented", "regularized")
    accuracies = ", ".join(f"{name} {_accuracy(ended, name):.1f} %" for name in names)
    ours = Timing(
        name=f"tlcluster, augmented + regularized at once, {VIEWS} views, {epochs} epochs",
        unit=SECONDS,
        values=(ended.seconds,),
        note=f"test accuracy: {accuracies}",
    )
    start = sum(peers[name].start for name in names)
    theirs = Timing(
        name=f"plain Keras, augmented + regularized, {epochs} epochs",
        unit=SECONDS,
        values=tuple(start + epochs * seconds for seconds in _both(peers, _factor(context))),
        note=_stretched(context, epochs),
    )
    goal = ratio(f"augmented + regularized, {VIEWS} views, {epochs} epochs", theirs, ours, 25)
    return (theirs, ours), (goal,)


def _finetuned(
    context: Context, default: Peer, onednn: Mapping[str, Peer], commands: list[str]
) -> Found:
    ended = run(
        context,
        context.some_images.store,
        emptied(context.work / "runs"),
        "finetuned",
        *_paper("finetuned", 1 + context.repeats),
    )
    commands.append(ended.command)
    records = ended.epochs("finetuned")[1:]
    ours = Timing(
        name="tlcluster, finetuned, an epoch with validation",
        unit=SECONDS,
        values=tuple(record.seconds for record in records),
    )
    rate = Timing(
        name="tlcluster, finetuned, training",
        unit="images/s",
        values=tuple(record.images_per_second for record in records),
    )
    product = program.ask("matmul", environment={"TF_ENABLE_ONEDNN_OPTS": "1"})
    commands.append(program.shown("matmul"))
    machine = Timing(
        name="float32 matrix product, 2048³",
        unit="GFLOP/s",
        values=tuple(value / 1e9 for value in product.said["flop_per_second"]),
    )
    name = "plain Keras, finetuned, an epoch with validation"
    ways = {"default settings": default} | {f"oneDNN {s}": peer for s, peer in onednn.items()}
    theirs = [
        Timing(name=f"{name}, {way}", unit=SECONDS, values=peer.epochs)
        for way, peer in ways.items()
    ]
    rows = [
        ratio("finetuned, an epoch, default settings", theirs[0], ours, 3.5),
        ratio("finetuned, an epoch, oneDNN on", theirs[1], ours, 1.3),
    ]
    if "off" in onednn:
        label = "finetuned, an epoch, oneDNN off (TensorFlow's default on AMD)"
        rows.append(ratio(label, theirs[2], ours, 3.5))
    rows.append(
        Comparison(
            name="finetuned, floating-point rate ÷ fastest matrix product",
            value=rate.median * FLOP_PER_IMAGE / 1e9 / max(machine.values),
            goal=0.8,
        )
    )
    return (*theirs, ours, rate, machine), rows
