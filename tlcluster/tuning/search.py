"""The search for one experiment: which trials are trained, in which order, until when."""

from collections.abc import Callable
from pathlib import Path

from tlcluster.orchestration.admission import Admission
from tlcluster.settings import TuneSettings
from tlcluster.tuning.ray_tune import Suggestions, optuna_search, train_trials
from tlcluster.tuning.records import Planned, TrialRecord
from tlcluster.tuning.space import Space, Value, rounded
from tlcluster.tuning.trials import (
    RECIPE_TRIAL,
    best_candidates,
    finalists,
    searched,
    tried,
    unfinished,
)
from tlcluster.tuning.watch import Spent, Watch
from tlcluster.tuning.workers import Order


def search(
    settings: TuneSettings,
    admission: Admission,
    order: Order,
    space: Space,
    trials: dict[int, TrialRecord],
    *,
    write: Callable[[TrialRecord], None],
    changed: Callable[[TrialRecord | None], None],
    scratch: Path,
) -> None:
    """Train the trials of one experiment, then the best of them with several seeds.

    Args:
        settings: how many of each.
        admission: what a trial reserves, and how many run at once.
        order: for the processes that train.
        space: what may be changed.
        trials: what earlier commands have left, by number; kept up to date.
        write: stores a record.
        changed: is told of every change, and called with None now and then.
        scratch: a folder for what Ray Tune itself writes.
    """
    watch = Watch(
        trials,
        write,
        changed,
        workers=admission.workers,
        gpus=admission.gpus_per_worker,
    )
    seconds = None if settings.budget is None else 3600 * settings.budget
    spent = Spent(
        seconds,
        lambda: sum(one.worker_seconds for one in trials.values() if one.role != "finalist"),
    )

    def more(fields: dict[str, Value]) -> Planned | None:
        if searched(trials) >= settings.trials or spent.stop_all():
            return None
        return watch.more(rounded(space, fields), settings.seed)

    def train(planned: list[Planned], *, suggests: bool) -> None:
        for one in planned:
            # Numbers are given away before Optuna's first suggestion asks for one.
            watch.begin(one)
        # A search that goes on must not suggest again what it began with.
        seed = settings.seed + searched(trials)
        inner = optuna_search(space, seed, tried(trials)) if suggests else None
        train_trials(
            order,
            Suggestions(planned, more, inner),
            admission=admission,
            halving=suggests,
            retries=settings.retries,
            watch=watch,
            stop=spent if suggests else Spent(None, lambda: 0.0),
            scratch=scratch,
        )
        # Tune calls no one when a budget ends its trials.
        watch.stop_running()

    left = unfinished(trials)
    if not trials:
        left = [Planned(RECIPE_TRIAL, "recipe", RECIPE_TRIAL, settings.seed, {})]
    early = [one for one in left if one.role != "finalist"]
    if early or (searched(trials) < settings.trials and not spent.stop_all()):
        train(early, suggests=True)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    late = [one for one in left if one.role == "finalist"]
    late += finalists(trials, best_candidates(trials, settings.finalists), seeds)
    if late:
        train(late, suggests=False)
