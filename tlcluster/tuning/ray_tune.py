"""Trials in Ray Tune: processes that train one after another, ASHA, and Optuna's suggestions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from tlcluster.errors import UserError
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.environment import replaced
from tlcluster.tuning.records import Planned
from tlcluster.tuning.space import Choice, Range, Space, Value
from tlcluster.tuning.workers import Group, Order, TrialWorker

METRIC = "best_accuracy"
"""Best validation accuracy so far."""
EPOCH = "epoch"
REFUSED = "refused"
"""Why a trial cannot be trained, if a person would have to change something."""

REDUCTION = 3
"""ASHA lets the best third go on at each of its looks."""

QUIET = {
    # Trials leave records of ours; Tune's own files would be written and never read.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_THRESHOLD_S": "60",
    # Ctrl-C is ours to answer.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Variables for Tune."""


class TrialProcess(tune.Trainable):
    """Trains trials, one epoch a step. Tune gives one process trial after trial."""

    def setup(self, config: dict[str, Any], *, order: Order) -> None:
        reserved = ray.util.get_current_placement_group()
        alone = reserved is None or reserved.bundle_count == 1
        self._workers = TrialWorker(order) if alone else Group(order, reserved)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # `step` begins it. Of an exception in there, Tune keeps the exception, not a long text.
        self._next: Planned | None = Planned(**new_config)
        self._last: dict[str, Any] = {METRIC: 0.0}
        return True

    def step(self) -> dict[str, Any]:
        try:
            self._last = self._epoch()
        except UserError as error:
            # To Tune, an exception is something to try again; this one would come again.
            return {**self._last, REFUSED: str(error), "done": True}
        return self._last

    def _epoch(self) -> dict[str, Any]:
        if self._next is not None:
            self._workers.begin(self._next)
            self._next = None
        look = self._workers.epoch()
        accuracies = [record.val_accuracy for record in look.history]
        return {
            EPOCH: len(accuracies),
            METRIC: max(accuracies),
            "val_accuracy": accuracies,
            "best_epoch": look.best_epoch,
            "seconds": look.seconds,
            "over": look.over,
            "done": look.over,
        }

    def cleanup(self) -> None:
        self._workers.leave()


class NotSaved:
    """Tune pickles what it is given, to restore it after an interruption. Our records do that."""

    def __getstate__(self) -> dict[str, object]:
        return {}


class Suggestions(NotSaved, Searcher):
    """First the trials that are planned already, then what Optuna suggests, up to a number."""

    def __init__(
        self,
        planned: Sequence[Planned],
        more: "Callable[[dict[str, Value]], Planned | None]",
        inner: Searcher | None,
    ) -> None:
        """
        Args:
            planned: trials to start first.
            more: plans a trial with these fields; None if there are enough.
            inner: suggests fields; None: only the planned trials are trained.
        """
        super().__init__(metric=METRIC, mode="max")
        self._planned, self._more, self._inner = list(planned), more, inner
        self._theirs: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if self._planned:
            return self._planned.pop(0)._asdict()
        if self._inner is None:
            return Searcher.FINISHED
        fields = self._inner.suggest(trial_id)
        planned = self._more(fields) if fields is not None else None
        if planned is None:
            return Searcher.FINISHED
        self._theirs.add(trial_id)
        return planned._asdict()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self._inner and trial_id in self._theirs:
            self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if self._inner and trial_id in self._theirs:
            self._inner.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing; see `NotSaved`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see `NotSaved`."""


def optuna_search(
    space: Space, seed: int, known: Sequence[tuple[Mapping[str, Value], float | None]]
) -> Searcher:
    """Optuna's tree-structured Parzen estimator over a space.

    Args:
        space: what it may suggest.
        seed: of its random numbers.
        known: points of the space that were tried before, with the best validation accuracy;
            None for a trial that failed.
    """
    # The processes that train import this module too, and need no Optuna.
    import optuna  # noqa: PLC0415
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = OptunaSearch(
        space=distributions(space),
        metric=METRIC,
        mode="max",
        # Trials run at the same time: those under way count as bad ones, so that their neighbours
        # are not tried as well. `multivariate` looks at fields together.
        sampler=optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=10
        ),
    )
    for fields, value in known:
        search.add_evaluated_point(dict(fields), value or 0.0, error=value is None)
    return search


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna takes it."""
    return {field: _distribution(values) for field, values in space.items()}


def _distribution(values: Choice | Range) -> Any:
    from optuna import distributions as kinds  # noqa: PLC0415

    if isinstance(values, Choice):
        return kinds.CategoricalDistribution(values.values)
    if values.whole:
        return kinds.IntDistribution(int(values.low), int(values.high), log=values.log)
    return kinds.FloatDistribution(values.low, values.high, log=values.log)


def reservation(admission: Admission) -> tune.PlacementGroupFactory:
    """What a trial reserves: one bundle for each worker.

    The process that Tune starts is the only worker, or it reserves nothing and waits for the
    workers that it starts.
    """
    bundle = {"CPU": admission.cpus_per_worker, "GPU": admission.gpus_per_worker}
    bundles = [bundle] * admission.workers
    return tune.PlacementGroupFactory(bundles if len(bundles) == 1 else [{}, *bundles])


def train_trials(
    order: Order,
    suggestions: Suggestions,
    *,
    admission: Admission,
    halving: bool,
    retries: int,
    watch: tune.Callback,
    stop: tune.Stopper,
    scratch: Path,
) -> None:
    """Train trials until the suggestions end or `stop` says so.

    Args:
        order: for the processes.
        suggestions: which trials.
        admission: what each trial reserves, and how many are trained at once.
        halving: whether ASHA stops the worse ones early.
        retries: restarts of a trial whose process died.
        watch: is told of results and ends.
        stop: ends everything, when a budget is spent.
        scratch: a folder for what Tune itself writes.
    """
    process = tune.with_resources(
        tune.with_parameters(TrialProcess, order=order), reservation(admission)
    )
    epochs = order.experiment.epochs
    with replaced(QUIET):
        tune.Tuner(
            process,
            tune_config=tune.TuneConfig(
                search_alg=suggestions,
                scheduler=ASHAScheduler(
                    time_attr=EPOCH,
                    metric=METRIC,
                    mode="max",
                    max_t=epochs,
                    # Looks after a ninth and a third of the epochs; before, a rate that warms
                    # up would lose to one that does not.
                    grace_period=max(1, round(epochs / REDUCTION**2)),
                    reduction_factor=REDUCTION,
                )
                if halving
                else FIFOScheduler(),
                num_samples=-1,
                # One more than fit: Tune keeps a process only if a trial waits for one. Without
                # it, the next trial would start TensorFlow again.
                max_concurrent_trials=admission.at_once + 1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                callbacks=[watch],
                stop=stop,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
                # Trials keep checkpoints of their own in the output.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
