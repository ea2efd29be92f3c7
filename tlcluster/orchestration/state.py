"""What the driver knows of a run, as frozen values. Times are seconds of `time.monotonic`."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tlcluster.orchestration.board import Seen, Since
from tlcluster.records import Status
from tlcluster.training.progress import Progress, epochs_finished


class Limits(NamedTuple):
    """What the settings allow. Times in seconds."""

    at_once: int
    """Replicates that run at the same time."""
    retries: int
    stall: float
    deadline: float | None
    storage_wait: float
    budget: float | None = None
    """Time of all workers together; None for no limit."""


class Look(NamedTuple):
    """What nodes have answered that were asked where the workers of an experiment stand."""

    why: str
    """What keeps them, if something does."""
    still: float
    """Seconds since one of them began to do something else; infinite if that is not known."""


class Outcome(NamedTuple):
    """How an attempt ended."""

    error: str | None
    """None if the workers returned without an error."""
    fatal: bool = False
    """The error is one that no new attempt can avoid."""
    finished: bool = False
    """The workers have written the result of the experiment."""
    placed: bool = True
    """False if Ray never gave the workers their resources."""


class Stop(NamedTuple):
    """A stop request."""

    signal: signal.Signals | None
    """None: the budget is spent."""
    asked: float


@dataclass(frozen=True)
class Standing:
    """One replicate, as far as the driver knows."""

    name: str
    """Its key; see `tlcluster.orchestration.replicates`."""
    epochs: int
    """The most that it trains."""
    status: Status = "queued"
    attempts: int = 0
    """Those of earlier drivers included."""
    tries: int = 0
    """Attempts of this driver."""
    began: float | None = None
    ended: float | None = None
    sign_of_life: float = 0.0
    progress: Progress | None = None
    passed: tuple[Progress, ...] = ()
    """The last progress of epochs that have passed since the state before."""
    resumed: int = 0
    """Epochs that were finished before this driver."""
    workers: int = 0
    """Workers that have started."""
    earlier_seconds: float = 0.0
    """Time of its workers under earlier drivers, all of them together."""
    worker_seconds: float = 0.0
    """The same under this driver."""
    away: Since | None = None
    """Storage, as its workers see it."""
    outcome: Outcome | None = None
    """How the attempt ended; None while it is under way."""
    asked: bool = False
    """Its workers were asked to stop."""
    recording: Status | None = None
    """It is over, and this is being written."""
    looked: float | None = None
    """When nodes were asked where its workers stand, because nothing had moved for too long."""
    hang: str = ""
    """What keeps its workers, once that is known."""
    closed: float | None = None
    """When hanging workers were ended, to be started again."""
    hangs: int = 0
    """How often that was done."""
    note: str = ""

    @property
    def open(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def busy(self) -> bool:
        """Whether it has workers or waits for them."""
        return self.status == "running" and self.recording is None

    @property
    def all_seconds(self) -> float:
        """Time of its workers, all drivers together."""
        return self.earlier_seconds + self.worker_seconds

    @property
    def paid_for(self) -> int:
        """Workers that have started and not ended."""
        return self.workers if self.busy and self.outcome is None else 0


@dataclass(frozen=True)
class State:
    """What the driver knows."""

    experiments: tuple[Standing, ...]
    """In the order in which they start."""
    limits: Limits
    stop: Stop | None = None
    lost: Since | None = None
    """Ray does not answer any more."""
    away: Since | None = None
    """Storage, as the driver sees it."""
    probed: float | None = None
    """When the driver last tried storage because a worker waits for it."""
    looked: float | None = None
    """When it was observed last."""

    def __getitem__(self, name: str) -> Standing:
        return next(one for one in self.experiments if one.name == name)

    def changed(self, name: str, **changes: object) -> "State":
        """The same with changes to one experiment."""
        return replace(
            self,
            experiments=tuple(
                replace(one, **changes) if one.name == name else one  # type: ignore[arg-type]
                for one in self.experiments
            ),
        )


def observed(
    state: State,
    seen: Mapping[str, Seen],
    outcomes: Mapping[str, Outcome],
    away: Since | None,
    looks: Mapping[str, Look],
    now: float,
) -> State:
    """The state with what the board, the attempts and storage show.

    Args:
        state: the state before.
        seen: what the board holds, for each experiment that it knows.
        outcomes: for each experiment whose attempt has ended.
        away: whether the driver's own storage is away.
        looks: for each experiment whose nodes were asked where its workers stand and have
            answered.
        now: the present time.
    """
    passed = 0.0 if state.looked is None else now - state.looked
    experiments = []
    for one in state.experiments:
        board = seen.get(one.name, Seen())
        changes: dict[str, object] = {"passed": board.posts[:-1]}
        if one.status == "running":
            latest = board.posts[-1] if board.posts else None
            changes |= {
                "workers": board.workers,
                "away": board.away,
                "outcome": outcomes.get(one.name),
                "worker_seconds": one.worker_seconds + passed * one.paid_for,
            }
            look = looks.get(one.name)
            if look and one.looked is not None and one.closed is None and not one.hang:
                # Only steps and epochs are progress for the driver. A slow start moves as well.
                moves = look.still < state.limits.stall
                changes |= _moves(one, now - look.still) if moves else {"hang": look.why}
            if latest is not None and latest != one.progress:
                changes |= {"progress": latest, **_moves(one, now)}
                if one.progress is None:
                    changes["resumed"] = epochs_finished(board.posts[0])
            if away:
                # Its attempt may wait for the driver.
                changes |= _moves(one, now)
        experiments.append(replace(one, **changes))  # type: ignore[arg-type]
    return replace(state, experiments=tuple(experiments), away=away, looked=now)


def _moves(one: Standing, now: float) -> Mapping[str, object]:
    """What changes when there is no more reason to think that workers hang."""
    # They may move again while their nodes are asked why they do not.
    unasked = {"looked": None, "hang": ""} if one.closed is None else {}
    return {"sign_of_life": now, **unasked}


def recorded(state: State, name: str, status: Status, now: float) -> State:
    """The state once the result of an experiment is written."""
    note = "" if status == "finished" else state[name].note
    return state.changed(name, status=status, recording=None, ended=now, note=note)
