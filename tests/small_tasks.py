"""Tasks for real workers on a small data set, without Ray."""

import time
from pathlib import Path
from typing import Any

from tlcluster.dataset.shards import read_index
from tlcluster.experiments import Experiment
from tlcluster.storage.protocol import Store
from tlcluster.training.task import Task


def small_task(experiment: Experiment, store: Store, place: Path, **changes: Any) -> Task:
    """One thread a worker, no checkpoint on the way, and everything in one folder.

    Args:
        experiment: to train.
        store: holds the data set.
        place: folder for the run, its features and its cache.
        changes: fields of the task that are to be others.
    """
    task = Task(
        experiment=experiment,
        folder=experiment.name,
        seed=5,
        base_seed=5,
        store=store.url,
        index_sha256=read_index(store)[1],
        run=str(place / "run"),
        features=str(place / "features"),
        weights="random",
        views=None,
        view_seed=5,
        scale_batch=False,
        checkpoint_seconds=1e9,
        cache=str(place / "cache"),
        cache_bytes=2**30,
        threads=1,
        command_started=time.time(),
        earlier_seconds=0.0,
        attempt=1,
    )
    return task._replace(**changes)
