"""The study's recipe as a plain Keras program, timed with some images; see `peer_keras`."""

from typing import NamedTuple

from tlcluster.bench import program
from tlcluster.bench.context import Context
from tlcluster.bench.datasets import Images
from tlcluster.bench.measures import SECONDS, Timing
from tlcluster.training.weights import RANDOM, find_weights

PLAIN = {"TF_USE_LEGACY_KERAS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Environment of the plain Keras programs: the Keras that TensorFlow installs, few messages."""


class PlainKeras(NamedTuple):
    """Times of a plain Keras program for one model."""

    start: float
    """Seconds from its start to its first step, without imports."""
    epochs: tuple[float, ...]
    """Seconds of each epoch with its validation, without the first epoch."""


def whole_program(context: Context, one: PlainKeras, name: str, epochs: int) -> Timing:
    """Time of the whole program with all images, computed from epochs with some of them."""
    return Timing(
        name=name,
        unit=SECONDS,
        values=tuple(one.start + epochs * _factor(context) * epoch for epoch in one.epochs),
        note=f"start + {epochs} × epoch, {_stretched(context)}",
    )


def one_epoch(context: Context, one: PlainKeras, name: str) -> Timing:
    """Time of an epoch with all images, computed from epochs with some of them."""
    return Timing(
        name=name,
        unit=SECONDS,
        values=tuple(_factor(context) * epoch for epoch in one.epochs),
        note=_stretched(context),
    )


def plain_keras(context: Context, name: str, commands: list[str], **environment: str) -> PlainKeras:
    arguments = ["--epochs", str(1 + context.timed_epochs)]
    variables = "".join(f"{key}={value} " for key, value in environment.items())
    context.say(f"suite: {variables}plain Keras, {name}")
    answer = program.ask(
        "peer_keras",
        name,
        context.some_images.folder,
        *weights(context),
        *arguments,
        environment=PLAIN | environment,
    )
    commands.append(variables + program.shown("peer_keras", name, "FOLDER", *arguments))
    return PlainKeras(answer.said["start_seconds"], tuple(answer.said["epoch_seconds"][1:]))


def weights(context: Context) -> list[str]:
    """Arguments that give a peer the weights file of our runs."""
    if context.weights == RANDOM:
        return []
    named = [context.weights] if context.weights else []
    found = find_weights(["vgg16"], named)["vgg16"]
    file = context.work / f"vgg16-{found.record.sha256}.h5"
    if not file.exists():
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(found.content or b"")
        unfinished.replace(file)
    return ["--weights", str(file)]


def _factor(context: Context) -> float:
    """Images of the whole data set ÷ images of the timed epochs."""

    def an_epoch(images: Images) -> int:
        return images.rows["train"] + images.rows["valid"]

    return an_epoch(context.all_images) / an_epoch(context.some_images)


def _stretched(context: Context) -> str:
    """A note on how a time with all images is computed."""
    return (
        f"timed with {context.some_images.rows['train']:,} images a split and taken "
        f"{_factor(context):g} times"
    )
