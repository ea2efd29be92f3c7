"""What the driver tells each worker of an experiment. It imports neither Ray nor TensorFlow."""

from typing import NamedTuple

from tlcluster.backbones import LAST
from tlcluster.experiments import Experiment
from tlcluster.training.devices import FLOAT32
from tlcluster.training.feature_key import PLAIN, FeatureKey, view_of


class Task(NamedTuple):
    """Everything that a worker is told. It can be pickled and holds no credential."""

    experiment: Experiment
    folder: str
    """Of this training in the run's folder; it names the training among all of the run."""
    seed: int
    base_seed: int
    """Of the random weights of a base that is frozen, or of which a part is: the same for all seeds
    of a run, so that they share its features."""
    store: str
    index_sha256: str
    run: str
    """Address of the run's folder."""
    features: str | None
    """Address of the folder where features of the frozen base, or of the frozen part of it, are
    kept; None computes them each time they are needed."""
    weights: str
    """Names the base's weights in the key of features."""
    views: int | None
    """Augmented views that experiments with a frozen base, or a frozen part of it, use in turn;
    None uses a new view in every epoch."""
    view_seed: int
    """Decides what the augmented views show."""
    scale_batch: bool
    """Whether batch and learning rate grow with the number of workers."""
    checkpoint_seconds: float
    """Time between two checkpoints."""
    cache: str | None
    cache_bytes: int
    threads: int
    """Threads of one TensorFlow operation on the CPU; 0 lets TensorFlow choose."""
    command_started: float
    """Start of the command that this task is part of, in seconds since 1970."""
    earlier_seconds: float
    """Time with workers running in earlier attempts, as far as their drivers recorded it."""
    attempt: int
    """How often the experiment's workers were started, this time included."""
    storage_wait: float = 1800.0
    """Seconds to wait for storage that does not answer."""
    weights_found: str = "given"
    """Where the base's weights were found, for messages."""
    gpus: float = 0.0
    """GPUs that each worker reserves: 0, 1 or a part of one. A worker that reserves none uses
    none."""


def seed_of_base(task: Task) -> int:
    """The seed of the base's random weights. A base that is trained as a whole has the training's
    own: nothing of it is shared."""
    return task.base_seed if task.experiment.feature_end else task.seed


def feature_key(
    task: Task, image_shape: tuple[int, int, int], precision: str = FLOAT32
) -> FeatureKey:
    """The key of the features that a task needs, of an experiment with a `feature_end`.

    Args:
        image_shape: of the images in the store, (height, width, channels).
        precision: in which the worker computes; see `tlcluster.training.devices`.
    """
    experiment = task.experiment
    return FeatureKey(
        index_sha256=task.index_sha256,
        weights=task.weights,
        preprocess=experiment.base if experiment.preprocess == "base" else "raw",
        seed=task.view_seed,
        base=experiment.base,
        image_shape=image_shape,
        upsampled=f"{experiment.input_size} {experiment.upsampling}"
        if experiment.input_size
        else "",
        taps=experiment.feature_taps,
        augmentation=experiment.augmentation,
        precision=precision,
        end=experiment.feature_end or LAST,
    )


def kept_views(task: Task) -> list[tuple[str, int]]:
    """Splits and views whose features are there at the same time in training; of fresh views one
    after another, the first."""
    views = min(task.views or 1, task.experiment.epochs)
    shown = range(1, views + 1) if task.experiment.augment else [PLAIN]
    return [*(("train", view) for view in shown), ("valid", PLAIN)]


def shown_view(task: Task, epoch: int) -> int:
    """The view of the training images that an epoch shows. It does not depend on whether features
    are kept, so that they only save time."""
    experiment = task.experiment
    if not experiment.augment:
        return PLAIN
    return view_of(epoch, task.views if experiment.feature_end else None)
