"""What an attempt is started with: the task of its workers and Ray's trainer for them."""

from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig

from tlcluster.orchestration.admission import Admission, workers_that_fit
from tlcluster.orchestration.cluster import nodes
from tlcluster.orchestration.ray_internals import new_trainer
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.replicates import Replicate, flat
from tlcluster.orchestration.worker import Order, run_worker
from tlcluster.settings import worker_range
from tlcluster.training.task import Task
from tlcluster.training.weights import weights_name


def new_task(
    ready: Ready,
    index_sha256: str,
    replicate: Replicate,
    *,
    output: str,
    run: str,
    started: float,
    earlier_seconds: float,
    attempt: int,
) -> Task:
    """The task of every worker of an attempt.

    Args:
        ready: what to run, where.
        index_sha256: of the data set.
        replicate: what to train.
        output: address of the folder of all runs, where features are kept too.
        run: address of the run's own folder.
        started: when the command was started, in seconds since 1970.
        earlier_seconds: for how long earlier attempts had workers.
        attempt: its number, counted from 1.
    """
    settings, experiment = ready.settings, replicate.experiment
    weights, view_seed = ready.weights[experiment.base].record, ready.recipe.view_seed
    return Task(
        experiment=experiment,
        folder=replicate.key,
        seed=replicate.seed,
        base_seed=settings.seed,
        store=ready.store.url,
        index_sha256=index_sha256,
        run=run,
        features=output if settings.feature_cache else None,
        weights=weights_name(experiment.base, weights, settings.seed),
        weights_found=weights.found,
        views=settings.views,
        view_seed=replicate.seed if view_seed is None else view_seed,
        scale_batch=settings.scale_batch,
        checkpoint_seconds=settings.checkpoint_seconds,
        storage_wait=60 * settings.storage_wait,
        gpus=ready.admission.gpus_per_worker,
        cache=settings.cache,
        cache_bytes=int(settings.cache_gib * 2**30),
        threads=ready.admission.threads,
        command_started=started,
        earlier_seconds=earlier_seconds,
        attempt=attempt,
    )


def trainer_for(
    order: Order, *, run_name: str, workers: int, admission: Admission, scratch: Path
) -> Any:
    """The trainer of an attempt; its `fit` trains until the workers return or one fails.

    Args:
        order: for the workers.
        run_name: names the run to Ray.
        workers: how many.
        admission: what each of them reserves.
        scratch: a folder for what Ray itself writes.
    """
    name = order.task.folder
    resources = {"CPU": admission.cpus_per_worker}
    if admission.gpus_per_worker:
        resources["GPU"] = admission.gpus_per_worker
    return new_trainer(
        order.board,
        name,
        run_worker,
        train_loop_config={"order": order},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=admission.gpus_per_worker > 0,
            resources_per_worker=resources,
            # GPUs add up gradients fastest inside a node. On CPUs, the experiment that is left
            # at the end has the cores of every node that it is on.
            placement_strategy="PACK" if admission.gpus_per_worker else "SPREAD",
        ),
        run_config=RunConfig(
            name=f"{run_name}-{flat(name)}",
            # Checkpoints and records go to the output by `train`; Ray itself keeps nothing.
            storage_path=str(scratch),
            # The driver retries: it knows which errors a new attempt cannot avoid.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def workers_now(ready: Ready, others: int) -> int:
    """Workers of an attempt: as admitted, or fewer if nodes were lost since.

    Never fewer than the settings allow, and never fewer if the batch grows with them.

    Args:
        ready: what was admitted.
        others: experiments that have workers beside this one.
    """
    admission, settings = ready.admission, ready.settings
    if settings.scale_batch:
        return admission.workers
    fit = workers_that_fit(nodes(), admission.cpus_per_worker, admission.gpus_per_worker)
    free = fit - admission.workers * others
    least, _ = worker_range(settings.workers)
    return max(least, min(admission.workers, free))
