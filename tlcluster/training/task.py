"""What the driver tells every worker of an experiment; neither Ray nor TensorFlow in it."""

from typing import NamedTuple

from tlcluster.experiments import Experiment
from tlcluster.training.feature_key import FeatureKey


class Task(NamedTuple):
    """All that a worker is told. It can be pickled and holds no credential."""

    experiment: Experiment
    seed: int
    store: str
    index_sha256: str
    run: str
    """Address of the run's folder."""
    features: str | None
    """Address of the folder where features of the frozen base are kept; None computes them
    anew whenever they are needed."""
    weights: str
    """Names the base's weights in the key of features."""
    views: int | None
    """Augmented views that experiments with a frozen base take in turn; None shows a fresh one
    every epoch."""
    view_seed: int
    """Decides what the augmented views show."""
    scale_batch: bool
    checkpoint_seconds: float
    cache: str | None
    cache_bytes: int
    threads: int
    """Threads of one TensorFlow operation on the CPU; 0 lets TensorFlow choose."""
    command_started: float
    """When the command was started that this task is part of, in seconds since 1970."""
    earlier_seconds: float
    """Time that earlier attempts had workers, as far as their drivers lived to tell."""
    attempt: int
    """How often the experiment's workers were started, this time included."""


def feature_key(task: Task) -> FeatureKey:
    """Where the features that a task needs lie."""
    experiment = task.experiment
    preprocess = experiment.base if experiment.preprocess == "base" else "raw"
    return FeatureKey(task.index_sha256, task.weights, preprocess, task.view_seed)
