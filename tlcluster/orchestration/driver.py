"""Four trainers at once: start, watch, retry, stop, and write down what did not finish."""

import contextlib
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from tlcluster import cli
from tlcluster.cost import longest_first
from tlcluster.experiments import Experiment
from tlcluster.orchestration.admission import workers_that_fit
from tlcluster.orchestration.board import Board
from tlcluster.orchestration.cluster import nodes
from tlcluster.orchestration.display import Display, Row
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.trainer import LeanTrainer
from tlcluster.orchestration.worker import Order, run_worker
from tlcluster.records import RESULT, ExperimentResult, RunManifest, Status
from tlcluster.settings import worker_range
from tlcluster.storage.protocol import ObjectMissing, Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.training.feature_key import FeatureKey, delete_view
from tlcluster.training.progress import Progress, epochs_finished
from tlcluster.training.task import Task, feature_key
from tlcluster.training.weights import weights_name
from tlcluster.training.work import forward_flops

GRACE_SECONDS = 1.0
"""After SIGTERM or SIGINT, time for workers to write a checkpoint. `ray job stop` kills
3 seconds after its SIGTERM, and the report must be written by then."""

PREEMPTION_GRACE_SECONDS = 90.0
"""After SIGUSR1, with which Slurm announces the end of an allocation."""

LEAVE_SECONDS = 5.0
"""What ends at all ends at once."""

POLL_SECONDS = 0.25

LONGEST_REASON = 500
"""Characters of what is said of a failure."""

EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
"""How a traceback begins the message of its exception."""


class Outcome(NamedTuple):
    """How the attempts of one experiment ended."""

    error: str | None
    attempts: int


class Driver:
    """Four trainers at once, or as many as fit; the others wait."""

    def __init__(
        self, ready: Ready, manifest: RunManifest, output: Store, run: Store, console: Console
    ) -> None:
        """
        Args:
            ready: what to run, where.
            manifest: of the run.
            output: the folder of all runs, where features are kept too.
            run: the run's own folder.
            console: where progress is shown.
        """
        self.ready, self.manifest, self.console = ready, manifest, console
        self.settings, self.admission = ready.settings, ready.admission
        self.experiments = ready.experiments
        self.output, self.run_store = output, run
        self.rows: dict[str, Row] = {}
        self.results: dict[str, ExperimentResult] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.signs_of_life: dict[str, float] = {}
        self.stopping: signal.Signals | None = None
        self.asked = 0.0
        self.over = False
        """Whether Ray is about to be left; then the threads that wait for trainers end unheard."""
        self.threads: list[threading.Thread] = []
        self.view_users: dict[FeatureKey, list[Experiment]] = {}
        """Experiments that share fresh views."""
        self.next_view: dict[FeatureKey, int] = {}
        """The first view that is not deleted yet."""

    def run(self) -> None:
        """Run every experiment that is not finished, until all have ended or a signal asks to stop.

        `rows` tells how each ended, `stopping` whether a signal did it.
        """
        for experiment in self.experiments:
            earlier = read_result(self.run_store, experiment.name)
            self.results[experiment.name] = earlier
            done = earlier.status == "finished"
            self.rows[experiment.name] = Row(
                experiment.title,
                "finished" if done else "queued",
                note="earlier" if done else "",
            )
            if (
                experiment.augment
                and not experiment.base_trainable
                and self.settings.feature_cache
                and self.settings.views is None
            ):
                key = feature_key(self.task(experiment, 0), self.ready.index.image_shape)
                self.view_users.setdefault(key, []).append(experiment)
        forward = forward_flops(self.experiments, self.ready.index.image_shape)
        ordered = longest_first(self.experiments, forward)
        waiting = [e for e in ordered if self.status(e) == "queued"]
        # It comes back if its process dies; what it forgets, workers post again. On the driver's
        # node, or a lost node that trains one experiment would take the word from all of them.
        here = ray.get_runtime_context().get_node_id()
        board = ray.remote(Board).options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        self.board = board.remote()
        self.weights = {base: ray.put(found.content) for base, found in self.ready.weights.items()}
        heading = f"{self.settings.run_name}, {self.settings.profile} profile"
        scratch = scratch_folder("ray-train", Path(tempfile.gettempdir()))
        lost = None
        with scratch as self.scratch, Display(self.console, heading) as display:
            try:
                while (waiting and not self.stopping) or self.running():
                    while waiting and self.may_start():
                        self.start(waiting.pop(0))
                    self.watch()
                    self.delete_passed_views()
                    display.show(self.rows)
                    if self.stopping and self.wound_down():
                        break
                    time.sleep(POLL_SECONDS)
            except ray.exceptions.RayError as failure:
                # Batch systems end Ray and this process at once, in any order.
                time.sleep(GRACE_SECONDS)
                lost = f"the Ray cluster was lost: {reason(failure)}"
            self.finish(lost)
            display.show(self.rows)

    def may_start(self) -> bool:
        return not self.stopping and len(self.running()) < self.admission.at_once

    def status(self, experiment: Experiment) -> str:
        return self.rows[experiment.name].status

    def running(self) -> list[Experiment]:
        return [e for e in self.experiments if self.status(e) == "running"]

    def set_row(self, experiment: Experiment, **changes: object) -> None:
        self.rows[experiment.name] = self.rows[experiment.name]._replace(**changes)  # type: ignore[arg-type]

    # One experiment

    def start(self, experiment: Experiment) -> None:
        """Let a thread see the experiment through its attempts."""
        now = time.monotonic()
        self.set_row(experiment, status="running", began=now)
        self.signs_of_life[experiment.name] = now
        # A daemon: one that Ray never gives its workers must not keep the driver alive.
        thread = threading.Thread(target=self.attempt, args=(experiment,), daemon=True)
        thread.start()
        self.threads.append(thread)

    def attempt(self, experiment: Experiment) -> None:
        """Train with fresh workers until it ends well, cannot, or the retries are spent."""
        attempts = self.results[experiment.name].attempts
        error: str | None = "the driver failed; its error is printed above"
        try:
            for _ in range(1 + self.settings.retries):
                attempts += 1
                # What a driver that is killed leaves: the next one counts on from here.
                self.write(experiment, "running", None, attempts)
                error = self.fit(experiment, attempts)
                if self.over:
                    break
                fatal, stopped = ray.get(self.board.verdict.remote(experiment.name))
                error = fatal or error
                if error is None or fatal or stopped or self.left_finished(experiment):
                    break
        except ray.exceptions.RayError as failure:
            error = reason(failure)
        finally:
            self.outcomes[experiment.name] = Outcome(error, attempts)

    def fit(self, experiment: Experiment, attempt: int) -> str | None:
        """One attempt; returns what went wrong."""
        ray.get(self.board.begin.remote(experiment.name))
        while True:
            try:
                self.trainer(experiment, attempt).fit()
            except (TrainingFailedError, ray.exceptions.RayError) as failure:
                if self.over:
                    return None
                # A controller that died has left its workers' places taken.
                for group in ray.get(self.board.reservations.remote(experiment.name)):
                    ray.util.remove_placement_group(group)
                _, stopped = ray.get(self.board.verdict.remote(experiment.name))
                if stopped or not never_placed(failure):
                    return reason(failure)
                # Where a node was lost, they are too many for the nodes left, which are counted
                # again, or wait for the end of another experiment; what waits for none, stalls.
                if self.others_train(experiment):
                    self.signs_of_life[experiment.name] = time.monotonic()
            else:
                return None

    def others_train(self, experiment: Experiment) -> bool:
        """Whether another experiment has workers, so that it makes room one day."""
        others = [e.name for e in self.running() if e != experiment]
        return any(ray.get([self.board.workers.remote(name) for name in others]))

    def task(self, experiment: Experiment, attempt: int) -> Task:
        settings = self.settings
        return Task(
            experiment=experiment,
            seed=settings.seed,
            store=self.ready.store.url,
            index_sha256=self.manifest.dataset.index_sha256,
            run=self.run_store.url,
            features=self.output.url if settings.feature_cache else None,
            weights=weights_name(
                experiment.base, self.ready.weights[experiment.base].record, settings.seed
            ),
            views=settings.views,
            view_seed=settings.seed_of_views,
            scale_batch=settings.scale_batch,
            checkpoint_seconds=settings.checkpoint_seconds,
            cache=settings.cache,
            cache_bytes=int(settings.cache_gib * 2**30),
            threads=self.admission.threads,
            command_started=cli.STARTED,
            earlier_seconds=self.seconds(experiment),
            attempt=attempt,
        )

    def trainer(self, experiment: Experiment, attempt: int) -> LeanTrainer:
        settings, admission = self.settings, self.admission
        resources = {"CPU": admission.cpus_per_worker}
        if admission.gpus_per_worker:
            resources["GPU"] = admission.gpus_per_worker
        return LeanTrainer(
            run_worker,
            board=self.board,
            experiment=experiment.name,
            train_loop_config={
                "order": Order(
                    self.task(experiment, attempt), [self.weights[experiment.base]], self.board
                )
            },
            scaling_config=ScalingConfig(
                num_workers=self.workers(),
                use_gpu=admission.gpus_per_worker > 0,
                resources_per_worker=resources,
                # GPUs add up gradients fastest inside a node. On CPUs, the experiment that is left
                # at the end has the cores of every node that it is on.
                placement_strategy="PACK" if admission.gpus_per_worker else "SPREAD",
            ),
            run_config=RunConfig(
                name=f"{settings.run_name}-{experiment.name}",
                # Checkpoints and records go to the output by `train`; Ray itself keeps nothing.
                storage_path=str(self.scratch),
                # The driver retries: it knows which errors a new try cannot mend.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )

    def workers(self) -> int:
        """Workers of an attempt: as admitted, or fewer where nodes were lost since.

        Never fewer than were asked for at least, and never fewer where the batch grows with them.
        """
        admission = self.admission
        if self.settings.scale_batch:
            return admission.workers
        fit = workers_that_fit(nodes(), admission.cpus_per_worker, admission.gpus_per_worker)
        free = fit - admission.workers * (len(self.running()) - 1)
        least, _ = worker_range(self.settings.workers)
        return max(least, min(admission.workers, free))

    # All of them

    def watch(self) -> None:
        """Bring the rows up to date; end what runs past its deadline or shows no sign of life."""
        now = time.monotonic()
        progress: dict[str, tuple[Progress, ...]] = ray.get(self.board.read.remote())
        for experiment in self.experiments:
            self.set_row(experiment, passed=progress.get(experiment.name, ())[:-1])
        for experiment in self.running():
            name = experiment.name
            posts = progress.get(name, ())
            if posts and posts[-1] != self.rows[name].progress:
                self.signs_of_life[name] = now
                if self.rows[name].progress is None:
                    self.set_row(experiment, resumed=epochs_finished(posts[0]))
                self.set_row(experiment, progress=posts[-1])
            began = self.rows[name].began or now
            if name in self.outcomes:
                self.settle(experiment, self.outcomes[name])
            elif self.settings.deadline and now - began > 60 * self.settings.deadline:
                why = f"not finished after {self.settings.deadline:g} min (--deadline)"
                self.end(experiment, why)
            elif now - self.signs_of_life[name] > 60 * self.settings.stall:
                self.end(
                    experiment,
                    f"no progress for {self.settings.stall:g} min (--stall): its workers hang or "
                    "were never given their resources",
                )

    def settle(self, experiment: Experiment, outcome: Outcome) -> None:
        """An experiment's attempts are over: finished, interrupted or failed."""
        if self.stopping:
            self.record(experiment, "interrupted", None, outcome.attempts)
        else:
            error = outcome.error or "its workers ended without a result"
            self.record(experiment, "failed", error, outcome.attempts)

    def end(self, experiment: Experiment, why: str) -> None:
        """Give an experiment up and end its workers."""
        self.stop(experiment)
        for worker in ray.get(self.board.workers.remote(experiment.name)):
            ray.kill(worker)
        self.record(experiment, "failed", why, self.results[experiment.name].attempts + 1)

    def delete_passed_views(self) -> None:
        """Remove the views that every experiment has passed; fresh ones are shown once.

        At full size a view takes 180 MB, and there is one an epoch.
        """
        for key, users in self.view_users.items():
            reached = min(self.reached(experiment) for experiment in users)
            for view in range(self.next_view.get(key, 1), reached):
                delete_view(self.output, key, "train", view)
                self.next_view[key] = view + 1

    def reached(self, experiment: Experiment) -> int:
        """The epoch that an experiment is in; one past the last where it needs no more."""
        row = self.rows[experiment.name]
        if row.status not in ("queued", "running"):
            return experiment.epochs + 1
        return row.progress.epoch if row.progress else 1

    def stop(self, experiment: Experiment) -> None:
        ray.get(self.board.stop.remote(experiment.name))

    def record(
        self, experiment: Experiment, status: Status, error: str | None, attempts: int
    ) -> None:
        """Write the result of an experiment that ended, unless its workers have finished it.

        They write that last of all; what befalls them afterwards changes nothing.
        """
        ended = time.monotonic()
        if self.left_finished(experiment):
            self.set_row(experiment, status="finished", ended=ended)
            return
        self.write(experiment, status, error, attempts)
        self.set_row(experiment, status=status, note=error or "", ended=ended)

    def left_finished(self, experiment: Experiment) -> bool:
        return read_result(self.run_store, experiment.name).status == "finished"

    def write(
        self, experiment: Experiment, status: Status, error: str | None, attempts: int
    ) -> None:
        result = ExperimentResult(
            status=status,
            error=error,
            attempts=attempts,
            wall_seconds=self.seconds(experiment),
        )
        self.run_store.put(
            f"{experiment.name}/{RESULT}", result.model_dump_json(indent=1).encode() + b"\n"
        )

    def seconds(self, experiment: Experiment) -> float:
        """For how long an experiment has had workers, or waited for them, all drivers together."""
        began = self.rows[experiment.name].began
        now = 0.0 if began is None else time.monotonic() - began
        return self.results[experiment.name].wall_seconds + now

    # The end before the end

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGUSR1 ask to stop. Ctrl-C once more ends the process at once.

        Batch systems may send more than one SIGTERM and mean nothing else by the second.
        """

        def ask(number: int, _: FrameType | None) -> None:
            if not self.stopping:
                self.stopping, self.asked = signal.Signals(number), time.monotonic()
            elif number == signal.SIGINT:
                os._exit(128 + number)

        kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = {kind: signal.signal(kind, ask) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def wound_down(self) -> bool:
        """Ask the workers to checkpoint and end; True when they have, or their time is over."""
        running = self.running()
        for experiment in running:
            self.stop(experiment)
        patience = PREEMPTION_GRACE_SECONDS if self.stopping == signal.SIGUSR1 else GRACE_SECONDS
        return not running or time.monotonic() - self.asked > patience

    def finish(self, lost: str | None) -> None:
        """What still runs or waits was interrupted, or else failed with the cluster."""
        status: Status = "failed" if lost and not self.stopping else "interrupted"
        for experiment in self.experiments:
            if self.status(experiment) in ("running", "queued"):
                attempts = self.results[experiment.name].attempts
                attempts += self.status(experiment) == "running"
                self.record(experiment, status, lost if status == "failed" else None, attempts)

    def leave(self) -> None:
        """End what still trains. To be called before Ray is left: a thread that waits for a
        trainer then would find Ray gone, and Ray ends a process that asks it something."""
        self.over = True
        # A cluster that was lost has nothing left to end.
        with contextlib.suppress(ray.exceptions.RayError):
            for controller in ray.get(self.board.controllers.remote()):
                ray.kill(controller)
        until = time.monotonic() + LEAVE_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))


def read_result(run: Store, experiment: str) -> ExperimentResult:
    """The result an experiment has left, `queued` if none."""
    try:
        return ExperimentResult.model_validate_json(run.get(f"{experiment}/{RESULT}"))
    except (ObjectMissing, ValueError):
        return ExperimentResult(status="queued")


def never_placed(failure: Exception) -> bool:
    """Whether Ray gave an attempt's workers no place in the time that Ray Train waits for it."""
    cause = getattr(failure, "controller_failure", None)
    return isinstance(cause, WorkerGroupStartupTimeoutError)


def reason(failure: Exception) -> str:
    """What went wrong, in one line.

    Args:
        failure: of an attempt; Ray Train adds `worker_failures`, rank → exception, where workers
            failed, whose text ends with that of the exception in the worker.
    """
    failures = getattr(failure, "worker_failures", None) or {0: failure}
    for rank, error in sorted(failures.items()):
        # The others' errors only tell that they lost this one.
        if isinstance(getattr(error, "health_check_failure", error), ray.exceptions.RayActorError):
            return (
                f"the process of worker {rank} died: it was killed, ran out of memory or crashed, "
                "or its node was lost; Ray's logs tell more"
            )
    lines = str(failures[min(failures)]).splitlines()
    # A message may have many lines, of which the first begins with the exception's name.
    begin = max((n for n, line in enumerate(lines) if EXCEPTION.match(line)), default=0)
    text = " ".join(" ".join(lines[begin:]).split()) or type(failure).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
