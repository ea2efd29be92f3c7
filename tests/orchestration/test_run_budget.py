"""A budget: what it allows, and what still runs when it runs out."""

from types import SimpleNamespace

import pytest

from tlcluster.cost import Forward
from tlcluster.orchestration import first_state
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.board import Seen
from tlcluster.orchestration.budget import allowed_seconds, given_up, is_closing, is_over
from tlcluster.orchestration.decide import (
    PREEMPTION_GRACE_SECONDS,
    Action,
    AskToStop,
    Leave,
    Record,
    SpendNoMore,
    Start,
    after,
    decide,
)
from tlcluster.orchestration.replicates import replicates
from tlcluster.orchestration.state import Limits, Outcome, Standing, State, observed
from tlcluster.records import ExperimentResult
from tlcluster.settings import RunSettings
from tlcluster.training.progress import Phase, Progress


def at(epoch: int, epochs: int, phase: Phase = Phase.TRAINING) -> Progress:
    return Progress(epoch, epochs, 20, 40, 1.0, None, None, phase)


class Run:
    """Three trainings, of which two run at once with two workers each."""

    def __init__(self, budget: float, *, earlier: float = 0.0) -> None:
        names = ("a", "b", "c")
        standings = tuple(Standing(name, 10, earlier_seconds=earlier) for name in names)
        self.state = State(standings, Limits(2, 0, 1e6, None, 300.0, budget))
        self.now = 1000.0
        self.seen = {name: Seen((), 2) for name in names}
        self.outcomes: dict[str, Outcome] = {}

    def step(self, seconds: float) -> tuple[Action, ...]:
        self.now += seconds
        self.state = observed(self.state, self.seen, self.outcomes, None, {}, self.now)
        actions = decide(self.state, self.now)
        for action in actions:
            self.state = after(self.state, action, self.now)
        return actions

    def progress(self, name: str, progress: Progress) -> None:
        self.seen[name] = Seen((progress,), 2)


def started(budget: float, *names: str) -> Run:
    """Two trainings run and cost 4 worker-seconds a second; those named have made progress."""
    run = Run(budget)
    assert run.step(0) == (Start("a"), Start("b"))
    for name in names:
        run.progress(name, at(1, 10))
    assert run.step(0.25) == ()
    return run


def test_what_is_closest_to_its_end_gets_the_last_tenth() -> None:
    run = started(1000.0, "a", "b")
    run.progress("a", at(9, 10))
    run.progress("b", at(2, 10))
    assert run.step(220) == ()  # 880 of 1000
    # 1.5 epochs of `a` take 80 worker-seconds. What is left then is too little for `b`.
    assert run.step(6) == (AskToStop("b"),)
    assert run.step(1) == ()
    run.outcomes["b"] = Outcome(None)
    assert run.step(0) == (Record("b", "interrupted", None),)
    # Nothing new starts, although there is room.
    assert run.step(0) == ()
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step(0) == (Record("a", "finished", None),)


def test_all_go_on_for_which_the_rest_is_enough() -> None:
    run = started(1000.0, "a", "b")
    run.progress("a", at(10, 10))
    run.progress("b", at(10, 10, Phase.TESTING))
    assert run.step(226) == ()
    assert is_closing(run.state)
    assert given_up(run.state, run.now) == ()


def test_what_has_made_no_progress_is_the_furthest_from_its_end() -> None:
    run = started(1000.0, "b")
    assert run.step(226) == (AskToStop("a"),)


def test_a_budget_that_is_spent_stops_all_and_leaves_them_time_for_a_checkpoint() -> None:
    run = started(1000.0, "a", "b")
    assert run.step(250) == (SpendNoMore(),)
    assert run.step(0) == (AskToStop("a"), AskToStop("b"))
    assert run.step(PREEMPTION_GRACE_SECONDS - 1) == ()
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step(0) == (Record("a", "finished", None),)
    assert run.step(2) == (
        Record("b", "interrupted", None),
        Record("c", "interrupted", None),
        Leave(),
    )


def test_a_run_whose_budget_earlier_commands_have_spent_ends_at_once() -> None:
    run = Run(1000.0, earlier=310.0)
    assert is_over(run.state)
    assert run.step(0) == (SpendNoMore(),)
    interrupted = tuple(Record(name, "interrupted", None) for name in ("a", "b", "c"))
    assert run.step(0) == (*interrupted, Leave())


def test_a_run_without_a_budget_goes_on() -> None:
    run = started(1000.0)
    limits = run.state.limits._replace(budget=None)
    state = State(run.state.experiments, limits)
    assert (is_over(state), is_closing(state), given_up(state, 1e9)) == (False, False, ())


@pytest.mark.parametrize(
    ("flags", "gpus", "seconds"),
    [
        ({}, 1.0, None),
        ({"budget": "2"}, 0.25, 7200.0),
        ({"budget": "30USD", "price": "2.50USD"}, 1.0, 12 * 3600.0),
        ({"budget": "30USD", "price": "2.50USD"}, 0.5, 24 * 3600.0),
        ({"budget": "30USD", "price": "2.50USD"}, 0.0, 12 * 3600.0),
    ],
)
def test_money_buys_hours_of_gpus_or_of_workers_without_any(
    flags: dict[str, str], gpus: float, seconds: float | None
) -> None:
    assert allowed_seconds(RunSettings(**flags), gpus) == seconds


@pytest.mark.parametrize(
    ("flags", "order"),
    [({}, ["finetuned", "frozen"]), ({"budget": "8"}, ["frozen", "finetuned"])],
)
def test_with_a_budget_what_takes_least_starts_first(
    flags: dict[str, str], order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = RunSettings(experiments="frozen,finetuned", seeds="2", **flags)
    chosen = given.recipe().chosen
    monkeypatch.setattr(
        first_state, "forwards", lambda *_: {one.name: Forward(1.0) for one in chosen}
    )
    ready = SimpleNamespace(
        settings=given,
        experiments=chosen,
        replicates=replicates(chosen, (524, 525)),
        index=SimpleNamespace(image_shape=(32, 32, 3)),
        admission=Admission(2, 1.0, 0.0, 1, 1),
    )
    left = {one.key: ExperimentResult(status="queued") for one in ready.replicates}
    left["frozen"] = ExperimentResult(status="interrupted", worker_seconds=60.0)
    state = first_state.first_state(ready, left)  # type: ignore[arg-type]
    names = [one.name for one in state.experiments]
    assert names == [*order, *(f"{name}/seeds/525" for name in order)]
    assert state["frozen"].earlier_seconds == 60.0
    assert state.limits.budget == (8 * 3600 if flags else None)
