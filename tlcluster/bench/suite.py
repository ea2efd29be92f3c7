"""`suite`: whole trainings, ours and the study's recipe as a plain Keras program."""

import statistics

from tlcluster.bench import program
from tlcluster.bench.context import Context
from tlcluster.bench.machine import processor
from tlcluster.bench.measures import PERCENT, SECONDS, Comparison, Part, Timing, ratio
from tlcluster.bench.plain_keras import PLAIN, plain_keras, weights, whole_program
from tlcluster.bench.runs import SEEDS, STUDY_EPOCHS, emptied, paper, run
from tlcluster.cinic10 import CLASSES, IMAGE_SHAPE
from tlcluster.experiments import EXPERIMENTS
from tlcluster.training.work import ask_work

HEAD_SEEDS = (*SEEDS, 3, 4, 5, 6, 7)
"""Seeds of the trainings of `frozen` whose mean accuracy must agree within half a point.

The standard deviation of one training is 0.7 points (measured with 18), of a mean of eight 0.25."""


def measure_frozen(context: Context) -> Part:
    """Train `frozen` to the end."""
    commands: list[str] = []
    peer = plain_keras(context, "frozen", commands)
    epochs = 2 if context.quick else STUDY_EPOCHS
    output = context.work / "runs"
    store = context.all_images.store
    ended = [
        run(context, store, emptied(output), "frozen", *paper("frozen", epochs))
        for _ in range(context.repeats)
    ]
    commands.append(ended[0].command)
    ours = Timing(
        name=f"tlcluster, {epochs} epochs, features computed in it",
        unit=SECONDS,
        values=tuple(one.seconds for one in ended),
    )
    theirs = whole_program(context, peer, f"plain Keras, {epochs} epochs", epochs)
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-frozen",
        about=f"frozen, {rows:,} images a split, {epochs} epochs, validation after each",
        timings=(theirs, ours),
        comparisons=(ratio("plain Keras ÷ tlcluster", theirs, ours, 40),),
        commands=tuple(commands),
    )


def measure_accuracy(context: Context) -> Part:
    """Compare the test accuracy of `frozen` with plain Keras, with several seeds."""
    epochs = 2 if context.quick else STUDY_EPOCHS
    seeds = SEEDS if context.quick else HEAD_SEEDS
    # Features of `suite-frozen` are found here; otherwise the first run computes them.
    output = context.work / "runs"
    output.mkdir(parents=True, exist_ok=True)
    ended = [
        run(
            context,
            context.all_images.store,
            output,
            f"seed-{seed}",
            *paper("frozen", epochs, "--seed", str(seed)),
        )
        for seed in seeds
    ]
    ours = Timing(
        name="tlcluster, the best epoch",
        unit=PERCENT,
        values=tuple(one.accuracy("frozen") for one in ended),
    )
    arguments = ["--epochs", str(epochs), "--seeds", *map(str, seeds)]
    context.say("suite: the head of frozen in plain Keras")
    answer = program.ask(
        "peer_head",
        context.all_images.folder,
        *weights(context),
        *arguments,
        environment=PLAIN,
    )
    theirs = Timing(
        name="plain Keras, the best epoch",
        unit=PERCENT,
        values=tuple(answer.said["accuracy"]),
        note="its head on features made once; the whole program would take hours",
    )
    difference = Comparison(
        name="difference of means",
        value=abs(statistics.fmean(ours.values) - statistics.fmean(theirs.values)),
        goal=0.5,
        better="less",
        unit="points",
    )
    rows = context.all_images.rows["train"]
    return Part(
        name="suite-accuracy",
        about=f"frozen, test accuracy, {rows:,} images a split, {epochs} epochs, "
        f"seeds {', '.join(map(str, seeds))}",
        timings=(theirs, ours),
        comparisons=(difference,),
        commands=(ended[0].command, program.shown("peer_head", "FOLDER", *arguments)),
    )


def _products() -> list[float]:
    """Rates of float32 matrix products, in GFLOP/s."""
    answer = program.ask("matmul", environment={"TF_ENABLE_ONEDNN_OPTS": "1"})
    return [rate / 1e9 for rate in answer.said["flop_per_second"]]


def measure_finetuned(context: Context) -> Part:
    """Time an epoch of `finetuned`, and the part of the machine's rate that it uses."""
    commands: list[str] = []
    states = {"default settings": {}, "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"}}
    if "Intel" in processor():
        # TensorFlow turns oneDNN on by default there; elsewhere off is the default.
        states["oneDNN off"] = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    peers = {
        state: plain_keras(context, "finetuned", commands, **variables)
        for state, variables in states.items()
    }
    # Before and after, so that the fastest product is not measured only while the machine is slow.
    products = _products()
    options = paper("finetuned", 1 + context.timed_epochs)
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
    (work,) = ask_work([EXPERIMENTS["finetuned"]], image_shape=IMAGE_SHAPE, classes=len(CLASSES))
    # A backward pass takes twice as many operations as a forward pass.
    per_image = 3 * work.forward_flop
    use = Comparison(
        name="floating-point rate of training ÷ fastest matrix product",
        value=rate.median * per_image / 1e9 / max(machine.values),
        goal=0.8,
    )
    return Part(
        name="suite-finetuned",
        about=f"finetuned, {context.some_images.rows['train']:,} images a split",
        timings=(*theirs.values(), ours, rate, machine),
        comparisons=(*rows, use),
        commands=tuple(commands),
    )
