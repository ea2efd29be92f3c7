"""What the driver does next: `decide` names the actions, `after` the state that follows each.

Both are pure: no Ray, no storage, no clock. The driver reads the board and the
clock, and carries the actions out.
"""

import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from tlcluster.orchestration import budget
from tlcluster.orchestration.state import Outcome, Standing, State, Stop
from tlcluster.records import Status

GRACE_SECONDS = 1.0
"""After a stop request, time for workers to write a checkpoint. `ray job stop` kills 3 seconds
after its SIGTERM, and the report must be written by then."""

PREEMPTION_GRACE_SECONDS = 90.0
"""The same after SIGUSR1, with which Slurm announces the end of an allocation, and once the budget
is spent."""

ENDING_SECONDS = 60.0
"""After hanging workers were killed, time for Ray to notice it."""

PROBE_SECONDS = 10.0
"""How often the driver tries storage itself while a worker waits for it."""


class Start(NamedTuple):
    """Start the first or the next attempt of an experiment."""

    name: str


class PlaceAgain(NamedTuple):
    """Ask Ray again for the workers of the same attempt."""

    name: str


class AskToStop(NamedTuple):
    """Let the workers write a checkpoint and return."""

    name: str


class EndWorkers(NamedTuple):
    """Kill the workers."""

    name: str


class Explain(NamedTuple):
    """Ask the nodes of an experiment that does not move where its workers stand."""

    name: str


class RecordHang(NamedTuple):
    """Write what they have answered."""

    name: str


class Record(NamedTuple):
    """Write how an experiment ended, unless its workers have written that it is finished."""

    name: str
    status: Status
    error: str | None


class Probe(NamedTuple):
    """See whether the driver reaches storage."""


class SpendNoMore(NamedTuple):
    """The budget is spent: stop as after a stop request."""


class Leave(NamedTuple):
    """All is over: end what still runs."""


Action = (
    Start
    | PlaceAgain
    | AskToStop
    | EndWorkers
    | Explain
    | RecordHang
    | Record
    | Probe
    | SpendNoMore
    | Leave
)


def decide(state: State, now: float) -> tuple[Action, ...]:
    """What to do now. Empty while there is nothing to do but to wait."""
    unfinished = [one for one in state.experiments if one.open]
    if not unfinished:
        return (Leave(),)
    if state.lost and not state.stop and now - state.lost.time < GRACE_SECONDS:
        # Batch systems end Ray and this process at once, in any order: a signal may follow.
        return ()
    ending = _ending(state, now)
    if ending:
        records = (Record(one.name, *ending) for one in unfinished if one.recording is None)
        return (*records, Leave())
    if not state.stop and budget.is_over(state):
        return (SpendNoMore(),)
    actions = [act for one in unfinished if one.busy for act in _of_running(one, state, now)]
    if budget.is_closing(state):
        if not state.stop:
            actions += [AskToStop(name) for name in budget.given_up(state, now)]
    elif not state.stop:
        free = state.limits.at_once - sum(one.busy for one in unfinished)
        queued = [one for one in unfinished if one.status == "queued"]
        actions += [Start(one.name) for one in queued[: max(0, free)]]
    waits = any(one.away for one in unfinished)
    if waits and (state.probed is None or now - state.probed > PROBE_SECONDS):
        actions.append(Probe())
    return tuple(actions)


def _ending(state: State, now: float) -> tuple[Status, str | None] | None:
    """How everything that is open ends now, if it does: status and error."""
    if state.stop:
        patience = (
            PREEMPTION_GRACE_SECONDS
            if state.stop.signal in (signal.SIGUSR1, None)
            else GRACE_SECONDS
        )
        # Those whose result is being written are waited for as well.
        running = any(one.status == "running" for one in state.experiments)
        over = not running or now - state.stop.asked > patience
        return ("interrupted", None) if state.lost or over else None
    if state.lost:
        return "failed", f"the Ray cluster was lost: {state.lost.why}"
    if state.away and now - state.away.time > state.limits.storage_wait:
        return "failed", (
            f"storage did not answer for {state.limits.storage_wait / 60:g} min (--storage-wait): "
            f"{state.away.why}"
        )
    return None


def _of_running(one: Standing, state: State, now: float) -> Iterator[Action]:
    """What to do about an experiment that has workers or waits for them."""
    limits = state.limits
    if one.outcome:
        yield _concluded(one, one.outcome, state)
        return
    if state.stop and not one.asked:
        yield AskToStop(one.name)
    why = None
    began = now if one.began is None else one.began
    # Workers that wait for storage give up by themselves.
    stall = limits.stall + (limits.storage_wait if one.away else 0)
    if limits.deadline and now - began > limits.deadline:
        why = f"not finished after {limits.deadline / 60:g} min (--deadline)"
    elif now - one.sign_of_life > stall:
        if one.workers:
            yield from _of_hanging(one, state, now)
            return
        why = (
            f"no progress for {limits.stall / 60:g} min (--stall): its workers were never given "
            "their resources, or did not start"
        )
    if why:
        yield AskToStop(one.name)
        yield EndWorkers(one.name)
        yield Record(one.name, "failed", why)


def _of_hanging(one: Standing, state: State, now: float) -> Iterator[Action]:
    """What to do about an experiment whose workers do not move: explain it, start them again once,
    and let it fail the second time."""
    if one.looked is None:
        yield Explain(one.name)
        return
    if not one.hang or state.stop:
        return
    why = _hangs(one, state)
    if one.closed is None:
        yield RecordHang(one.name)
        yield EndWorkers(one.name)
        if _is_repeated(one, state):
            return
    elif now - one.closed < ENDING_SECONDS:
        return
    else:
        why += "; they could not be ended"
    yield AskToStop(one.name)
    yield Record(one.name, "failed", why)


def _hangs(one: Standing, state: State) -> str:
    return f"no progress for {state.limits.stall / 60:g} min (--stall): {one.hang}"


def _is_repeated(one: Standing, state: State) -> bool:
    """Whether an attempt that failed is followed by another one. A hang rarely goes away by itself,
    and each takes `--stall` to be seen."""
    return one.tries <= state.limits.retries and not (one.hang and one.hangs)


def _concluded(one: Standing, outcome: Outcome, state: State) -> Action:
    """What follows the end of an attempt."""
    if outcome.finished:
        return Record(one.name, "finished", None)
    if state.stop or one.asked:
        return Record(one.name, "interrupted", None)
    error = _hangs(one, state) if one.hang else outcome.error
    if error is None:
        return Record(one.name, "failed", "its workers ended without a result")
    if outcome.fatal:
        return Record(one.name, "failed", outcome.error)
    if not outcome.placed and not one.hang:
        return PlaceAgain(one.name)
    return Start(one.name) if _is_repeated(one, state) else Record(one.name, "failed", error)


def after(state: State, action: Action, now: float) -> State:
    """The state once an action is under way."""
    match action:
        case Start(name):
            one = state[name]
            return state.changed(
                name,
                status="running",
                attempts=one.attempts + 1,
                tries=one.tries + 1,
                began=now if one.began is None else one.began,
                sign_of_life=now,
                outcome=None,
                workers=0,
                away=None,
                looked=None,
                hang="",
                closed=None,
                hangs=one.hangs + bool(one.hang),
            )
        case PlaceAgain(name):
            # If nodes were lost, the workers are too many for those that are left, which are
            # counted again, or they wait for the end of another experiment. An experiment that
            # waits for no other stalls.
            others = any(one.workers for one in state.experiments if one.busy and one.name != name)
            state = state.changed(name, outcome=None, workers=0, away=None)
            return state.changed(name, sign_of_life=now) if others else state
        case AskToStop(name):
            return state.changed(name, asked=True)
        case Explain(name):
            return state.changed(name, looked=now)
        case EndWorkers(name):
            return state.changed(name, closed=now)
        case Record(name, status, error):
            return state.changed(name, recording=status, note=error or "")
        case Probe():
            return replace(state, probed=now)
        case SpendNoMore():
            return replace(state, stop=Stop(None, now))
        case _:
            return state
