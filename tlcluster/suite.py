"""The driver: checks everything, admits experiments, keeps their failures apart, ends in a report."""

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple

import filelock
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.tensorflow import TensorflowTrainer
from rich.console import Console

from tlcluster import cli, report
from tlcluster.admission import Admission, admit, longest_first
from tlcluster.cinic10 import CLASSES
from tlcluster.cluster import given_address, ray_cluster
from tlcluster.embedded import embedded_store, fill_with_sample
from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.manifest import (
    continued,
    deciding_settings,
    new_manifest,
    read_manifest,
    utc_now,
    write_manifest,
)
from tlcluster.progress import Board, Display, Progress, Row
from tlcluster.records import RESULT, ExperimentResult, RunManifest
from tlcluster.settings import EMBEDDED, RunSettings, chosen_experiments, worker_range
from tlcluster.shards import check_complete, read_index
from tlcluster.store import ObjectMissing, Store, open_store
from tlcluster.train import Task
from tlcluster.weights import find_weights
from tlcluster.worker import Order, run_worker

GRACE_SECONDS = 1.0
"""After SIGTERM or SIGINT, time for workers to write a checkpoint. `ray job stop` kills
3 seconds after its SIGTERM, and the report must be written by then."""

PREEMPTION_GRACE_SECONDS = 90.0
"""After SIGUSR1, with which Slurm announces the end of an allocation."""

POLL_SECONDS = 0.25


class Outcome(NamedTuple):
    """How the attempts of one experiment ended."""

    error: str | None
    attempts: int


def run_suite(settings: RunSettings, command: str) -> int:
    """Run the chosen experiments to the end and write the report.

    Args:
        settings: what to run.
        command: the command line, for the report.

    Returns:
        An exit status: 0 all finished, 1 some failed, 130 or 143 interrupted.

    Raises:
        UserError: something given cannot be used. Nothing was started or written.
    """
    began = time.monotonic()
    settings = settings.named()
    experiments = chosen_experiments(settings)
    console = Console()
    with contextlib.ExitStack() as stack:
        output = open_store(settings.output, create=True)
        store = stack.enter_context(opened_store(settings))
        index, index_sha256 = read_index(store)
        check_complete(store, index)
        if index.classes != CLASSES:
            raise UserError(
                f"{store.url}: its classes are {', '.join(index.classes)}; the experiments are "
                f"about {', '.join(CLASSES)}: ingest CINIC-10 into another store"
            )
        weights_record, weights = find_weights(settings.weights, store)
        nodes = stack.enter_context(ray_cluster(given_address(settings.address)))
        if settings.store == EMBEDDED and len(nodes) > 1:
            raise UserError(
                f"--store {EMBEDDED}: this cluster has {len(nodes)} nodes, and the embedded store "
                "is on one; fill a store that all nodes reach with jobs/ingest.py and name it"
            )
        admission = admit(
            nodes,
            len(experiments),
            worker_range(settings.workers),
            settings.cpus_per_worker,
            settings.gpus_per_worker,
        )
        manifest = new_manifest(
            settings,
            command=command,
            decided=deciding_settings(settings, experiments, admission.workers),
            experiments=experiments,
            nodes=nodes,
            weights=weights_record,
            index=index,
            index_sha256=index_sha256,
            store_url=settings.store if settings.store == EMBEDDED else store.url,
        )
        run_url = f"{output.url.rstrip('/')}/{settings.run_name}"
        stack.enter_context(claimed(run_url, experiments))
        run = open_store(run_url, create=True)
        old = read_manifest(run)
        if old is not None:
            manifest = continued(old, manifest)
        write_manifest(run, manifest)
        driver = Driver(settings, experiments, admission, manifest, output, run, store, console)
        ended = driver.run(weights)
        return conclude(run, manifest, driver.rows, ended, began, console)


def conclude(
    run: Store,
    manifest: RunManifest,
    rows: dict[str, Row],
    ended: signal.Signals | None,
    began: float,
    console: Console,
) -> int:
    """Write the manifest's last state and the report; returns the exit status."""
    failed = any(row.status == "failed" for row in rows.values())
    write_manifest(
        run,
        manifest.model_copy(
            update={
                "status": "interrupted" if ended else "failed" if failed else "finished",
                "finished": utc_now(),
                "wall_seconds": manifest.wall_seconds + time.monotonic() - began,
            }
        ),
    )
    key = report.write_report(run)
    console.print(f"{run.url}/{key}", highlight=False, soft_wrap=True, markup=False)
    if ended:
        return cli.TERMINATED if ended == signal.SIGTERM else cli.INTERRUPTED
    return cli.FAILED if failed else cli.OK


@contextlib.contextmanager
def opened_store(settings: RunSettings) -> Iterator[Store]:
    """The store of the run. The embedded one is started, filled, and stopped at the end."""
    if settings.store != EMBEDDED:
        yield open_store(settings.store)
        return
    if "://" in settings.output:
        raise UserError(
            f"--output {settings.output}: with the embedded store the output is a directory, since "
            "both would ask one endpoint; name a directory, or a store in S3 as well"
        )
    with embedded_store() as embedded:
        os.environ.update(embedded.environment)
        store = open_store(embedded.url)
        fill_with_sample(store)
        yield store


@contextlib.contextmanager
def claimed(run_url: str, experiments: Sequence[Experiment]) -> Iterator[None]:
    """Hold the experiments of a run, so that no second driver trains them at the same time.

    The lock is the file system's: it ends with the process, however that ends.
    S3 has no such thing; there, two drivers with one run name are the user's to avoid.
    """
    if "://" in run_url:
        yield
        return
    with contextlib.ExitStack() as stack:
        for experiment in experiments:
            folder = os.path.join(run_url, experiment.name)
            os.makedirs(folder, exist_ok=True)
            lock = filelock.FileLock(os.path.join(folder, ".lock"))
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except filelock.Timeout:
                raise UserError(
                    f"{run_url}: another process is training {experiment.name} in this run; wait "
                    "for it, stop it, or use another --run-name"
                ) from None
        yield


class Driver:
    """Four trainers at once, or as many as fit; the others wait."""

    def __init__(
        self,
        settings: RunSettings,
        experiments: Sequence[Experiment],
        admission: Admission,
        manifest: RunManifest,
        output: Store,
        run: Store,
        store: Store,
        console: Console,
    ) -> None:
        self.settings, self.experiments, self.admission = settings, experiments, admission
        self.manifest, self.console = manifest, console
        self.output, self.run_store, self.store = output, run, store
        self.rows: dict[str, Row] = {}
        self.results: dict[str, ExperimentResult] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.signs_of_life: dict[str, float] = {}
        self.stopping: signal.Signals | None = None

    def run(self, weights: bytes | None) -> signal.Signals | None:
        """Run every experiment that is not finished; returns the signal that ended it, if any."""
        for experiment in self.experiments:
            earlier = read_result(self.run_store, experiment.name)
            self.results[experiment.name] = earlier
            done = earlier.status == "finished"
            self.rows[experiment.name] = Row(
                experiment.title,
                "finished" if done else "queued",
                note="finished before" if done else "",
            )
        waiting = [e for e in longest_first(self.experiments) if self.status(e) == "queued"]
        if not waiting:
            return None
        self.board = ray.remote(Board).options(num_cpus=0).remote()
        self.weights = ray.put(weights)
        heading = f"{self.settings.run_name}: {self.admission.workers} worker(s) an experiment"
        with self.signals(), Display(self.console, heading) as display:
            while waiting or self.running():
                while waiting and len(self.running()) < self.admission.at_once:
                    if self.stopping:
                        break
                    self.start(waiting.pop(0))
                self.watch()
                display.show(self.rows)
                if self.stopping and self.wound_down():
                    break
                time.sleep(POLL_SECONDS)
            self.finish()
            display.show(self.rows)
        return self.stopping

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
        threading.Thread(target=self.attempt, args=(experiment,), daemon=True).start()

    def attempt(self, experiment: Experiment) -> None:
        """Train with fresh workers until it ends well, cannot, or the retries are spent."""
        earlier = self.results[experiment.name].attempts
        for attempt in range(1, self.settings.retries + 2):
            ray.get(self.board.begin.remote(experiment.name))
            try:
                self.trainer(experiment, earlier + attempt).fit()
                error = None
            except (TrainingFailedError, ray.exceptions.RayError) as failure:
                error = reason(failure)
            fatal = ray.get(self.board.failure.remote(experiment.name))
            stopped = ray.get(self.board.stopped.remote(experiment.name))
            if error is None or fatal or stopped:
                break
        self.outcomes[experiment.name] = Outcome(fatal or error, earlier + attempt)

    def task(self, experiment: Experiment, attempt: int) -> Task:
        settings = self.settings
        return Task(
            experiment=experiment,
            seed=settings.seed,
            store=self.store.url,
            index_sha256=self.manifest.dataset.index_sha256,
            run=self.run_store.url,
            features=self.output.url if settings.feature_cache else None,
            weights=self.manifest.weights.sha256 or f"random-{settings.seed}",
            views=settings.views,
            scale_batch=settings.scale_batch,
            checkpoint_seconds=settings.checkpoint_seconds,
            cache=settings.cache,
            cache_bytes=int(settings.cache_gib * 2**30),
            threads=self.admission.threads,
            attempt=attempt,
        )

    def trainer(self, experiment: Experiment, attempt: int) -> TensorflowTrainer:
        settings, admission = self.settings, self.admission
        resources = {"CPU": admission.cpus_per_worker}
        if admission.gpus_per_worker:
            resources["GPU"] = admission.gpus_per_worker
        return TensorflowTrainer(
            run_worker,
            train_loop_config={"order": Order(self.task(experiment, attempt), [self.weights], self.board)},
            scaling_config=ScalingConfig(
                num_workers=admission.workers,
                use_gpu=admission.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=f"{settings.run_name}-{experiment.name}",
                # Checkpoints and records go to the output by `train`; Ray itself keeps nothing.
                storage_path=tempfile.gettempdir() + "/tlcluster-ray-train",
                # The driver retries: it knows which errors a new try cannot mend.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )

    # All of them

    def watch(self) -> None:
        """Bring the rows up to date; end what runs past its deadline or shows no sign of life."""
        now = time.monotonic()
        progress: dict[str, Progress] = ray.get(self.board.read.remote())
        for experiment in self.running():
            name = experiment.name
            latest = progress.get(name)
            if latest is not None and latest != self.rows[name].progress:
                self.signs_of_life[name] = now
                self.set_row(experiment, progress=latest)
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
        written = read_result(self.run_store, experiment.name)
        if outcome.error is None and written.status == "finished":
            self.set_row(experiment, status="finished")
        elif self.stopping:
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

    def stop(self, experiment: Experiment) -> None:
        ray.get(self.board.stop.remote(experiment.name))

    def record(
        self, experiment: Experiment, status: str, error: str | None, attempts: int
    ) -> None:
        """Write the result of an experiment that did not finish."""
        result = ExperimentResult(status=status, error=error, attempts=attempts)  # type: ignore[arg-type]
        self.run_store.put(
            f"{experiment.name}/{RESULT}", result.model_dump_json(indent=1).encode() + b"\n"
        )
        self.set_row(experiment, status=status, note=error or "")

    # The end before the end

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGUSR1 ask to stop; a second one ends the process at once."""

        def ask(number: int, _: FrameType | None) -> None:
            if self.stopping:
                os._exit(128 + number)
            self.stopping = signal.Signals(number)
            self.asked = time.monotonic()

        kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before: dict[signal.Signals, Callable[..., object] | int | None] = {
            kind: signal.signal(kind, ask) for kind in kinds
        }
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

    def finish(self) -> None:
        """What still runs or waits was interrupted."""
        for experiment in self.experiments:
            if self.status(experiment) in ("running", "queued"):
                self.record(
                    experiment, "interrupted", None, self.results[experiment.name].attempts + 1
                )


def read_result(run: Store, experiment: str) -> ExperimentResult:
    """The result an experiment has left, `queued` if none."""
    try:
        return ExperimentResult.model_validate_json(run.get(f"{experiment}/{RESULT}"))
    except (ObjectMissing, ValueError):
        return ExperimentResult(status="queued")


def reason(failure: Exception) -> str:
    """The last line that says something, of the first worker that failed."""
    failures = getattr(failure, "worker_failures", None) or {0: failure}
    first = failures[min(failures)]
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(first).__name__
