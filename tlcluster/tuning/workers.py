"""The workers of a trial: this process alone, or a group of processes that train together."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tlcluster.experiments import Experiment
from tlcluster.orchestration.attempt import died
from tlcluster.orchestration.worker import refuse_other_versions
from tlcluster.recipe_files import changed
from tlcluster.training.task import Task
from tlcluster.tuning.records import Planned

if TYPE_CHECKING:  # It imports TensorFlow.
    from tlcluster.tuning.trial import Look

OTHERS_SECONDS = 2.0
"""Seconds to wait for the errors of the other workers after the first one. If a process dies, the
others often say that a connection broke before Ray says that it died."""


class WorkerDied(Exception):
    """The process of a worker is gone. Ray Tune starts the trial again."""


class Order(NamedTuple):
    """What every process that trains trials of an experiment is given."""

    experiment: Experiment
    task: Task
    """Of the experiment as the profile has it."""
    weights: "list[ray.ObjectRef]"
    """One reference to the bytes of the base's weights, or to None."""
    trials: str
    """Address of the folder where trials keep checkpoints."""
    versions: Mapping[str, str]
    """Those of the driver, which every worker must have."""

    def task_of(self, planned: Planned) -> Task:
        """The task of one trial. Features do not depend on its seed, so all trials share them."""
        experiment = changed(self.experiment, planned.fields, "", strict=True)
        name = f"{self.experiment.name}-{planned.number:05d}"
        return self.task._replace(
            experiment=experiment.model_copy(update={"name": name}),
            folder=name,
            run=self.trials,
            seed=planned.seed,
        )


class TrialWorker:
    """One worker, in the process that it is made in. It trains trial after trial.

    The workers of a group call `begin` and `epoch` together.
    """

    def __init__(self, order: Order, rank: int = 0, workers: int = 1) -> None:
        """
        Args:
            order: what to train.
            rank: of this worker.
            workers: how many train each trial.
        """
        self._order, self._rank, self._workers = order, rank, workers
        self._trials: Any = None

    def start(self) -> str:
        """Import TensorFlow; returns a free address for its server, as `host:port`.

        Raises:
            UserError: libraries of this node have other versions than those of the driver.
        """
        self._import_tensorflow()
        return free_address(ray.util.get_node_ip_address())

    def _import_tensorflow(self) -> None:
        refuse_other_versions(self._order.versions)
        # The driver imports this module too, and needs no TensorFlow.
        from tlcluster.tuning.trial import Trials  # noqa: PLC0415

        self._trials = Trials(self._rank, self._workers)

    def meet(self, addresses: Sequence[str]) -> None:
        """Say where the workers are, by rank, in TF_CONFIG."""
        task = {"type": "worker", "index": self._rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})

    def begin(self, planned: Planned) -> None:
        """Leave the trial at hand, and get ready for another, from its newest checkpoint."""
        if self._trials is None:
            # The only worker of its trials has no server, so it needs no address.
            self._import_tensorflow()
        self._trials.begin(self._order.task_of(planned), ray.get(self._order.weights[0]))

    def epoch(self) -> "Look":
        """Train and validate one more epoch."""
        look: Look = self._trials.epoch()
        return look

    def leave(self) -> None:
        """Free what the trial at hand holds."""
        if self._trials is not None:
            self._trials.leave()


class Group:
    """Workers that train the same trial together, each in a process of its own.

    If one of them fails, all end: the others would wait for it in a sum over the workers. `begin`
    then starts new ones.
    """

    def __init__(self, order: Order, reserved: PlacementGroup) -> None:
        """
        Args:
            order: what to train.
            reserved: the resources of the workers, one bundle each.
        """
        self._order, self._reserved = order, reserved
        self._workers: list[Any] = []

    def begin(self, planned: Planned) -> None:
        """See `TrialWorker.begin`.

        Raises:
            WorkerDied, UserError, StoreUnavailable: a worker cannot begin.
        """
        if not self._workers:
            self._workers = self._started()
            addresses = self._all("start")
            # The server of each takes its port in `begin`, right after.
            self._all("meet", addresses)
        self._all("begin", planned)

    def epoch(self) -> "Look":
        """See `TrialWorker.epoch`.

        Raises:
            WorkerDied, UserError, StoreUnavailable: a worker failed.
        """
        look: Look = self._all("epoch")[0]
        return look

    def leave(self) -> None:
        """End the workers."""
        for worker in self._workers:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(worker)
        self._workers = []

    def _started(self) -> list[Any]:
        bundles = self._reserved.bundle_specs
        return [
            ray.remote(TrialWorker)
            .options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._reserved, rank),
            )
            .remote(self._order, rank, len(bundles))
            for rank, bundle in enumerate(bundles)
        ]

    def _all(self, method: str, *arguments: object) -> list[Any]:
        """Call a method of all workers at the same time; what they return, by rank."""
        answers = [getattr(worker, method).remote(*arguments) for worker in self._workers]
        waiting = answers
        try:
            while waiting:
                (ready,), waiting = ray.wait(waiting)
                ray.get(ready)
            return ray.get(answers)
        except ray.exceptions.RayError as first:
            ray.wait(answers, num_returns=len(answers), timeout=OTHERS_SECONDS)
            failure = cause(answers, first)
            self.leave()
        raise failure


def cause(answers: Sequence["ray.ObjectRef"], first: Exception) -> Exception:
    """Why a group failed: the death of a process if one died, else the first error.

    Args:
        answers: what the workers answered so far, by rank.
        first: the error that was seen first.
    """
    for rank, answer in enumerate(answers):
        try:
            ray.get(answer, timeout=0)
        except ray.exceptions.RayActorError:
            return WorkerDied(died(rank))
        except ray.exceptions.RayError:
            continue
    return getattr(first, "cause", None) or first


def free_address(host: str) -> str:
    """`host:port` of a free port, as TF_CONFIG takes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
