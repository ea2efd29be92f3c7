"""Trains the replicates of a run at once: reads the board, decides, acts.

What happens when is decided in `tlcluster.orchestration.decide`.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from tlcluster.checkup.versions import versions
from tlcluster.errors import StoreUnavailable
from tlcluster.money import money
from tlcluster.orchestration import decide
from tlcluster.orchestration.attempt import Attempt, reason
from tlcluster.orchestration.board import Board, Seen, Since
from tlcluster.orchestration.display import Display, Row
from tlcluster.orchestration.errands import (
    Errands,
    add_hang,
    conclude_result,
    read_result,
    write_result,
)
from tlcluster.orchestration.first_state import first_state
from tlcluster.orchestration.hang import explanation, still
from tlcluster.orchestration.passed_views import PassedViews, View, sharing
from tlcluster.orchestration.questions import Questions
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.replicates import Replicate
from tlcluster.orchestration.state import Look, Standing, observed, recorded
from tlcluster.orchestration.stopping import StopRequests
from tlcluster.orchestration.trainer import new_task, trainer_for, workers_now
from tlcluster.orchestration.worker import Order
from tlcluster.records import ExperimentResult, HangRecord, RankRecord, RunManifest, Status
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.terminal import say
from tlcluster.training.devices import possible_precisions
from tlcluster.training.feature_key import FeatureKey, delete_view
from tlcluster.training.task import Task, feature_key

LEAVE_SECONDS = 5.0
"""Seconds to wait for Ray and for trainer threads on exit. If Ray is gone, it does not answer."""

LAST_SECONDS = 5.0
"""Seconds to wait for the last results to be written."""

POLL_SECONDS = 0.25

BOARD_SECONDS = 1.0
"""Seconds to wait for the board. Without it, a stop request is heard all the same."""


class Driver:
    """Trains every replicate that is not finished, until all have ended or it is asked to stop."""

    def __init__(
        self,
        ready: Ready,
        manifest: RunManifest,
        output: Store,
        run: Store,
        console: Console,
        started: float,
    ) -> None:
        """
        Args:
            ready: what to run, where.
            manifest: of the run.
            output: the folder of all runs, where features are kept too.
            run: the run's own folder.
            console: where progress is shown.
            started: when the command was started, in seconds since 1970.
        """
        self._ready, self._manifest, self._console = ready, manifest, console
        self._started = started
        self._replicates = {one.key: one for one in ready.replicates}
        self._errands = Errands()
        self._output, self._run = self._errands.patient(output), self._errands.patient(run)
        self._earlier = {key: read_result(run, key) for key in self._replicates}
        self._state = first_state(ready, self._earlier)
        self._views = PassedViews(self._users_of_views())
        self._attempts: dict[str, Attempt] = {}
        self._records: dict[str, Future[ExperimentResult]] = {}
        self._others: list[Future[Any]] = []
        """Errands of which only an error is of interest."""
        self._board: Any = None
        self._seen: Mapping[str, Seen] = {}
        self._reading: Any = None
        """A reference to what the board is about to answer."""
        self._questions = Questions()
        self._ranks: Mapping[str, tuple[RankRecord, ...]] = {}
        """Where workers stand that do not move."""
        self._leaving = threading.Event()
        self.stopping = StopRequests()

    @property
    def away(self) -> Since | None:
        """Since when storage does not answer."""
        return self._errands.away

    @property
    def statuses(self) -> Mapping[str, Status]:
        """Key of a replicate → how it ended, after `run`."""
        return {one.name: one.status for one in self._state.experiments}

    @property
    def gave_up(self) -> bool:
        """Whether it was asked to stop, spent its budget, or lost Ray or storage."""
        return bool(
            self.stopping.first or self._state.lost or self._state.away or self.budget_spent
        )

    @property
    def budget_spent(self) -> str | None:
        """The budget that has ended what was not finished, as it was given; None if none has."""
        # Nothing else interrupts a training without a stop request.
        ended = not self.stopping.first and "interrupted" in self.statuses.values()
        return self._ready.settings.budget if ended else None

    def run(self) -> None:
        """Run until all experiments have ended, or their time has.

        Raises:
            UserError: storage refuses to write.
        """
        # On the driver's node: if the board were on a node that is lost, every experiment would
        # lose it, not only the one that trains there.
        here = ray.get_runtime_context().get_node_id()
        board = ray.remote(Board).options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        self._board = board.remote()
        self._weights = {
            base: ray.put(found.content) for base, found in self._ready.weights.items()
        }
        settings = self._ready.settings
        heading = f"{settings.run_name}, {settings.profile} profile"
        scratch = scratch_folder("ray-train", Path(tempfile.gettempdir()))
        with scratch as self._scratch, Display(self._console, heading) as display:
            while self._step():
                display.show(self._rows(), self._state.away)
                time.sleep(POLL_SECONDS)
            display.show(self._rows())

    def leave(self) -> None:
        """End what still trains. To be called before Ray is left: a thread that waits for a
        trainer would find Ray gone, and Ray ends a process that asks it something then."""
        self._leaving.set()
        if self._board is None:
            return
        # A cluster that was lost has nothing left to end.
        until = time.monotonic() + LEAVE_SECONDS
        with contextlib.suppress(ray.exceptions.RayError):
            for one in ray.get(self._board.everyone.remote(), timeout=LEAVE_SECONDS):
                ray.kill(one)
        for attempt in self._attempts.values():
            attempt.join(max(0.0, until - time.monotonic()))

    def _step(self) -> bool:
        """Look, decide, act. False when all is over."""
        now = time.monotonic()
        try:
            self._look(now)
            for action in decide.decide(self._state, now):
                self._state = decide.after(self._state, action, now)
                if isinstance(action, decide.Leave):
                    self._write_the_last()
                    return False
                self._act(action, now)
        except ray.exceptions.RayError as failure:
            self._state = replace(self._state, lost=Since(now, reason(failure)))
        return True

    def _look(self, now: float) -> None:
        """Bring the state up to date."""
        self._state = replace(self._state, stop=self.stopping.first or self._state.stop)
        outcomes = {
            name: attempt.outcome
            for name, attempt in self._attempts.items()
            if attempt.outcome is not None
        }
        self._ranks = self._questions.answers(now)
        looks = {name: Look(explanation(of), still(of)) for name, of in self._ranks.items()}
        away = self._errands.away
        self._state = observed(self._state, self._read(), outcomes, away, looks, now)
        for name in [name for name, future in self._records.items() if future.done()]:
            status = self._records.pop(name).result().status
            self._state = recorded(self._state, name, status, now)
        views, self._views = self._views.passed(self._state)
        self._others += [self._errands.do(partial(self._delete, view)) for view in views]
        for future in [future for future in self._others if future.done()]:
            self._others.remove(future)
            future.result()

    def _read(self) -> Mapping[str, Seen]:
        """What the board holds; what it held before if it takes long to answer."""
        self._seen = {
            name: seen._replace(posts=seen.posts[-1:]) for name, seen in self._seen.items()
        }
        if self._state.lost is None:
            self._reading = self._reading or self._board.read.remote()
            if ray.wait([self._reading], timeout=BOARD_SECONDS)[0]:
                self._seen, self._reading = ray.get(self._reading), None
        return self._seen

    def _act(self, action: decide.Action, now: float) -> None:
        match action:
            case decide.Start(name) | decide.PlaceAgain(name):
                self._attempts[name] = self._new_attempt(self._state[name], now)
                self._attempts[name].start()
            case decide.AskToStop(name):
                self._board.stop.remote(name)
            case decide.EndWorkers(name):
                for worker in ray.get(self._board.workers.remote(name)):
                    ray.kill(worker)
            case decide.Explain(name):
                diaries = ray.get(self._board.diaries.remote(name))
                self._questions.ask(name, diaries, now)
            case decide.RecordHang(name):
                hang = self._hang(self._state[name], now)
                say(self._console, f"{name} hangs: {hang.why}")
                self._others.append(self._errands.do(partial(add_hang, self._run, name, hang)))
            case decide.Record(name, status, error):
                result = self._result(self._state[name], status, error, now)
                errand = partial(conclude_result, self._run, name, result)
                self._records[name] = self._errands.do(errand)
            case decide.Probe():
                name = next(iter(self._replicates))
                self._others.append(self._errands.do(partial(read_result, self._run, name)))

    def _write_the_last(self) -> None:
        """Wait for the errands that are left. A result that is not written counts as decided."""
        state, now = self._state, time.monotonic()
        hurry = self.stopping.first or state.lost or state.away
        until = now + (LAST_SECONDS if hurry else state.limits.storage_wait)
        while not self._errands.close(POLL_SECONDS) and time.monotonic() < until:
            if self.stopping.first:
                until = min(until, self.stopping.first.asked + LAST_SECONDS)
        for name, future in self._records.items():
            status = self._state[name].recording or "failed"
            with contextlib.suppress(StoreUnavailable):
                status = future.result().status if future.done() else status
            self._state = recorded(self._state, name, status, time.monotonic())

    def _new_attempt(self, one: Standing, now: float) -> Attempt:
        replicate = self._replicates[one.name]
        order = Order(
            self._task(replicate, one, now),
            [self._weights[replicate.experiment.base]],
            self._board,
            versions(),
        )
        running = self._result(one, "running", None, now)
        others = sum(other.busy for other in self._state.experiments) - 1
        return Attempt(
            one.name,
            self._board,
            # If this driver is killed, the next one counts on from here.
            prepare=self._errands.do(lambda: write_result(self._run, one.name, running)).result,
            trainer=lambda: trainer_for(
                order,
                run_name=str(self._ready.settings.run_name),
                workers=workers_now(self._ready, others),
                admission=self._ready.admission,
                scratch=self._scratch,
            ),
            finished=lambda: (
                self._errands.do(lambda: read_result(self._run, one.name)).result().status
                == "finished"
            ),
            leaving=self._leaving,
        )

    def _task(self, replicate: Replicate, one: Standing, now: float) -> Task:
        return new_task(
            self._ready,
            self._manifest.dataset.index_sha256,
            replicate,
            output=self._output.url,
            run=self._run.url,
            started=self._started,
            earlier_seconds=self._seconds(one, now),
            attempt=one.attempts,
        )

    def _users_of_views(self) -> Mapping[FeatureKey, tuple[str, ...]]:
        settings = self._ready.settings
        if not settings.feature_cache or settings.views is not None:
            return {}

        def key(replicate: Replicate) -> FeatureKey:
            task = self._task(replicate, self._state[replicate.key], 0.0)
            return feature_key(task, self._ready.index.image_shape)

        return sharing(self._ready.replicates, key)

    def _rows(self) -> Mapping[str, Row]:
        """In the order of the report."""
        return {
            key: shown(one, self._state[key], self._paid(self._state[key]))
            for key, one in self._replicates.items()
        }

    def _paid(self, one: Standing) -> str:
        """What its workers cost so far, in words; empty without a price."""
        if (price := self._manifest.price) is None:
            return ""
        cost = money(price, one.all_seconds, self._gpu_seconds(one)) or 0.0
        return f"{cost:,.2f} {price.currency}"

    def _delete(self, view: View) -> None:
        precisions = possible_precisions(self._ready.admission.gpus_per_worker)
        delete_view(self._output, view.key, "train", view.number, precisions)

    def _result(
        self, one: Standing, status: Status, error: str | None, now: float
    ) -> ExperimentResult:
        return ExperimentResult(
            status=status,
            error=error,
            attempts=one.attempts,
            wall_seconds=self._seconds(one, now),
            worker_seconds=one.all_seconds,
            gpu_seconds=self._gpu_seconds(one),
        )

    def _gpu_seconds(self, one: Standing) -> float:
        """Time of the GPUs that its workers have reserved, all drivers together."""
        this = one.worker_seconds * self._ready.admission.gpus_per_worker
        return (self._earlier[one.name].gpu_seconds or 0.0) + this

    def _hang(self, one: Standing, now: float) -> HangRecord:
        return HangRecord(
            attempt=one.attempts,
            seconds=now - one.sign_of_life,
            why=one.hang,
            ranks=self._ranks[one.name],
        )

    def _seconds(self, one: Standing, now: float) -> float:
        """For how long a replicate has had workers, or waited for them, all drivers together."""
        this = 0.0 if one.began is None else now - one.began
        return self._earlier[one.name].wall_seconds + this


def shown(replicate: Replicate, one: Standing, paid: str) -> Row:
    """A replicate as a row of the table."""
    return Row(
        replicate.title,
        one.status,
        one.progress,
        one.passed,
        "" if one.open else one.note,
        one.began,
        one.ended,
        one.resumed,
        one.away if one.open else None,
        one.all_seconds,
        paid,
    )
