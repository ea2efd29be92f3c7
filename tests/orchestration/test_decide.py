"""What the driver does next, in all that can happen, without Ray and without waiting."""

import signal
from dataclasses import replace

import pytest

from tlcluster.orchestration.board import Seen, Since
from tlcluster.orchestration.decide import (
    ENDING_SECONDS,
    GRACE_SECONDS,
    PREEMPTION_GRACE_SECONDS,
    PROBE_SECONDS,
    Action,
    AskToStop,
    EndWorkers,
    Explain,
    Leave,
    PlaceAgain,
    Probe,
    Record,
    RecordHang,
    Start,
    after,
    decide,
)
from tlcluster.orchestration.state import (
    Limits,
    Look,
    Outcome,
    Standing,
    State,
    Stop,
    observed,
    recorded,
)
from tlcluster.training.progress import Phase, Progress

NEVER_STARTED = (
    "no progress for 1 min (--stall): its workers were never given their resources, or did not "
    "start"
)
STEP = Progress(1, 3, 8, 40, 1.0, None, None, Phase.TRAINING)
FAILED = Outcome("its worker died")


class Run:
    """A driver without Ray: carries decisions out by noting them."""

    def __init__(self, *names: str, **limits: float) -> None:
        allowed = {"at_once": 2, "retries": 2, "stall": 60.0, "deadline": None}
        self.state = State(
            tuple(Standing(name, 3) for name in names),
            Limits(**{**allowed, "storage_wait": 300.0, **limits}),  # type: ignore[arg-type]
        )
        self.now = 1000.0
        self.seen: dict[str, Seen] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.away: Since | None = None
        self.looks: dict[str, Look] = {}

    def step(self, seconds: float = 0.25) -> tuple[Action, ...]:
        """Let time pass, look, decide and act; returns the actions."""
        self.now += seconds
        self.state = observed(self.state, self.seen, self.outcomes, self.away, self.looks, self.now)
        actions = decide(self.state, self.now)
        for action in actions:
            self.state = after(self.state, action, self.now)
            if isinstance(action, Explain):
                self.looks.pop(action.name, None)
            if isinstance(action, Start | PlaceAgain):
                self.outcomes.pop(action.name, None)
        return actions

    def record(self) -> None:
        """The results that were to be written are written."""
        for one in self.state.experiments:
            if one.recording:
                self.state = recorded(self.state, one.name, one.recording, self.now)

    def ask(self, kind: signal.Signals) -> None:
        self.state = replace(self.state, stop=Stop(kind, self.now))

    def lose(self, why: str = "its head is gone") -> None:
        self.state = replace(self.state, lost=Since(self.now, why))


def test_as_many_start_as_fit_and_the_others_when_there_is_room() -> None:
    run = Run("a", "b", "c")
    assert run.step() == (Start("a"), Start("b"))
    assert run.step() == ()
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step() == (Record("a", "finished", None),)
    # Its workers are gone, whether its result is written or not.
    assert run.step() == (Start("c"),)
    run.record()
    assert run.state["a"].status == "finished"


def test_an_experiment_that_finished_earlier_is_not_started() -> None:
    run = Run("a", "b")
    run.state = run.state.changed("a", status="finished")
    assert run.step() == (Start("b"),)


def test_all_is_over_when_every_result_is_written() -> None:
    run = Run("a")
    run.step()
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step() == (Record("a", "finished", None),)
    assert run.step() == ()
    run.record()
    assert run.step() == (Leave(),)


def test_an_attempt_that_fails_is_repeated_until_the_retries_are_spent() -> None:
    run = Run("a", retries=2)
    run.state = run.state.changed("a", attempts=5)  # of earlier drivers
    assert run.step() == (Start("a"),)
    for attempt in (7, 8):
        run.outcomes["a"] = FAILED
        assert run.step() == (Start("a"),)
        assert run.state["a"].attempts == attempt
    run.outcomes["a"] = FAILED
    assert run.step() == (Record("a", "failed", "its worker died"),)


@pytest.mark.parametrize(
    ("outcome", "record"),
    [
        (
            Outcome("the shard is damaged", fatal=True),
            Record("a", "failed", "the shard is damaged"),
        ),
        (Outcome(None), Record("a", "failed", "its workers ended without a result")),
        (Outcome("a worker died", finished=True), Record("a", "finished", None)),
    ],
    ids=["fatal", "no result", "finished"],
)
def test_an_attempt_that_another_cannot_improve_is_the_last(
    outcome: Outcome, record: Record
) -> None:
    run = Run("a")
    run.step()
    run.outcomes["a"] = outcome
    assert run.step() == (record,)


def test_a_retry_keeps_the_time_at_which_the_experiment_began() -> None:
    run = Run("a")
    run.step()
    began = run.state["a"].began
    run.outcomes["a"] = FAILED
    run.step(50)
    assert run.state["a"].began == began


def test_workers_that_were_never_placed_are_asked_for_again_as_the_same_attempt() -> None:
    run = Run("a", "b", retries=0)
    run.step()
    run.seen = {"b": Seen((STEP,), 2)}
    run.step()
    run.outcomes["a"] = Outcome("no room", placed=False)
    for _ in range(5):
        assert run.step(30) == (PlaceAgain("a"),)
        run.seen = {"b": Seen((STEP._replace(step=run.state["b"].progress.step + 1),), 2)}  # type: ignore[union-attr]
        run.outcomes["a"] = Outcome("no room", placed=False)
    assert run.state["a"].attempts == 1


def test_workers_that_wait_for_nobody_stall() -> None:
    run = Run("a", stall=60.0)
    run.step()
    for _ in range(2):
        run.outcomes["a"] = Outcome("no room", placed=False)
        assert run.step(29) == (PlaceAgain("a"),)
    actions = run.step(29)
    assert [type(action) for action in actions] == [AskToStop, EndWorkers, Record]


def test_an_experiment_whose_workers_never_start_ends_alone() -> None:
    run = Run("a", "b", stall=60.0)
    run.step()
    run.seen = {"b": Seen((STEP,), 1)}
    run.step(50)
    assert run.step(11) == (
        AskToStop("a"),
        EndWorkers("a"),
        Record(
            "a",
            "failed",
            NEVER_STARTED,
        ),
    )
    assert run.step() == ()


def test_progress_is_a_sign_of_life_and_the_same_progress_is_none() -> None:
    run = Run("a", stall=60.0)
    run.step()
    for step in range(5):
        run.seen = {"a": Seen((STEP._replace(step=step),), 1)}
        assert run.step(50) == ()
    assert run.step(50) == ()
    assert run.step(11) == (Explain("a"),)


WHY = "rank 1 on node1 is stopped by a signal"
HANGS = f"no progress for 1 min (--stall): {WHY}"
LOOK = Look(WHY, 61.0)


def hanging(run: Run) -> tuple[Action, ...]:
    """Let the workers of `a` start and hang; what follows when it is known what keeps them."""
    run.step()
    run.seen = {"a": Seen((), 2)}
    assert run.step(59) == ()
    assert run.step(2) == (Explain("a"),)
    assert run.step(30) == ()
    run.looks = {"a": LOOK}
    return run.step()


def test_workers_that_hang_are_looked_at_then_started_again_and_fail_the_second_time() -> None:
    run = Run("a", stall=60.0, retries=5)
    assert hanging(run) == (RecordHang("a"), EndWorkers("a"))
    assert run.step(10) == ()
    # What the controller says of it is that its workers died.
    run.outcomes["a"] = FAILED
    assert run.step() == (Start("a"),)
    assert hanging(run) == (
        RecordHang("a"),
        EndWorkers("a"),
        AskToStop("a"),
        Record("a", "failed", HANGS),
    )
    assert run.state["a"].attempts == 2


def test_without_retries_workers_that_hang_fail_the_first_time() -> None:
    run = Run("a", stall=60.0, retries=0)
    assert hanging(run)[-1] == Record("a", "failed", HANGS)


def test_workers_that_died_before_count_as_retries_and_not_as_hangs() -> None:
    run = Run("a", stall=60.0, retries=2)
    run.step()
    run.outcomes["a"] = FAILED
    assert hanging(run) == (RecordHang("a"), EndWorkers("a"))
    run.outcomes["a"] = FAILED
    assert run.step() == (Start("a"),)
    run.outcomes["a"] = FAILED
    assert run.step() == (Record("a", "failed", "its worker died"),)


def test_workers_that_move_again_while_they_are_looked_at_are_left_alone() -> None:
    run = Run("a", stall=60.0)
    run.step()
    run.seen = {"a": Seen((STEP,), 2)}
    run.step()
    assert run.step(61) == (Explain("a"),)
    run.seen = {"a": Seen((STEP._replace(step=9),), 2)}
    run.looks = {"a": LOOK}
    assert run.step() == ()
    assert run.step(50) == ()
    # Later it is asked anew.
    assert run.step(11) == (Explain("a"),)
    assert run.step() == ()
    run.looks = {"a": LOOK}
    assert run.step() == (RecordHang("a"), EndWorkers("a"))


def test_workers_that_do_one_thing_after_the_other_do_not_hang_although_they_make_no_steps() -> (
    None
):
    run = Run("a", stall=60.0)
    run.step()
    run.seen = {"a": Seen((), 2)}
    assert run.step(61) == (Explain("a"),)
    run.looks = {"a": Look(WHY, 20.0)}
    assert run.step() == ()
    assert run.step(39) == ()
    assert run.step(2) == (Explain("a"),)
    run.looks = {"a": LOOK}
    assert run.step() == (RecordHang("a"), EndWorkers("a"))


def test_workers_that_hang_and_cannot_be_ended_fail_with_that() -> None:
    run = Run("a", stall=60.0)
    hanging(run)
    assert run.step(ENDING_SECONDS - 1) == ()
    assert run.step(2) == (
        AskToStop("a"),
        Record("a", "failed", f"{HANGS}; they could not be ended"),
    )


def test_an_attempt_that_ends_while_it_is_looked_at_is_concluded_as_any_other() -> None:
    run = Run("a", stall=60.0)
    run.step()
    run.seen = {"a": Seen((), 2)}
    run.step(61)
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step() == (Record("a", "finished", None),)


def test_a_stop_request_does_not_wait_for_workers_that_hang() -> None:
    run = Run("a", stall=60.0)
    run.step()
    run.seen = {"a": Seen((), 2)}
    run.step(61)
    run.ask(signal.SIGTERM)
    run.looks = {"a": LOOK}
    assert run.step(0) == (AskToStop("a"),)
    assert run.step(GRACE_SECONDS + 0.1) == (Record("a", "interrupted", None), Leave())


def test_an_experiment_past_its_deadline_ends_whatever_its_progress() -> None:
    run = Run("a", deadline=90.0)
    run.step()
    run.seen = {"a": Seen((STEP,), 1)}
    assert run.step(89) == ()
    why = "not finished after 1.5 min (--deadline)"
    assert run.step(2) == (AskToStop("a"), EndWorkers("a"), Record("a", "failed", why))


def test_epochs_before_the_first_progress_were_finished_before() -> None:
    run = Run("a")
    run.step()
    first, second = STEP._replace(epoch=4, step=40), STEP._replace(epoch=5)
    run.seen = {"a": Seen((first, second), 1)}
    run.step()
    assert run.state["a"].resumed == 3
    assert run.state["a"].passed == (first,)
    assert run.state["a"].progress == second


@pytest.mark.parametrize(
    ("kind", "grace"),
    [
        (signal.SIGTERM, GRACE_SECONDS),
        (signal.SIGINT, GRACE_SECONDS),
        (signal.SIGHUP, GRACE_SECONDS),
        (signal.SIGPIPE, GRACE_SECONDS),
        (signal.SIGUSR1, PREEMPTION_GRACE_SECONDS),
    ],
)
def test_a_stop_request_leaves_the_workers_their_grace(kind: signal.Signals, grace: float) -> None:
    run = Run("a", "b", "c", stall=1000.0)
    run.step()
    run.ask(kind)
    assert run.step(0) == (AskToStop("a"), AskToStop("b"))
    assert run.step(grace - 0.1) == ()
    assert run.step(0.2) == (
        Record("a", "interrupted", None),
        Record("b", "interrupted", None),
        Record("c", "interrupted", None),
        Leave(),
    )


def test_a_stop_request_is_over_as_soon_as_all_workers_have_ended() -> None:
    run = Run("a", "b", at_once=1)
    run.step()
    run.ask(signal.SIGUSR1)
    run.step()
    run.outcomes["a"] = Outcome(None)
    assert run.step() == (Record("a", "interrupted", None),)
    assert run.step() == ()
    run.record()
    assert run.step() == (Record("b", "interrupted", None), Leave())


def test_an_attempt_that_fails_while_it_is_stopped_is_interrupted_and_not_repeated() -> None:
    run = Run("a")
    run.step()
    run.ask(signal.SIGTERM)
    run.outcomes["a"] = FAILED
    assert run.step() == (Record("a", "interrupted", None),)


def test_a_stop_request_does_not_wait_for_storage_that_is_away() -> None:
    run = Run("a")
    run.step()
    run.away = Since(run.now, "connection refused")
    run.ask(signal.SIGTERM)
    run.outcomes["a"] = Outcome(None)
    assert run.step() == (Record("a", "interrupted", None),)
    assert run.step(GRACE_SECONDS) == (Leave(),)


def test_a_lost_cluster_fails_what_is_open() -> None:
    run = Run("a", "b", "c", at_once=1)
    run.state = run.state.changed("c", status="finished")
    run.step()
    run.lose()
    assert run.step(0.1) == ()
    why = "the Ray cluster was lost: its head is gone"
    assert run.step(GRACE_SECONDS) == (
        Record("a", "failed", why),
        Record("b", "failed", why),
        Leave(),
    )


def test_a_cluster_that_is_lost_with_a_signal_was_interrupted() -> None:
    run = Run("a")
    run.step()
    run.lose()
    assert run.step(0.1) == ()
    run.ask(signal.SIGTERM)
    assert run.step(0.1) == (Record("a", "interrupted", None), Leave())


def test_workers_that_wait_for_storage_do_not_stall() -> None:
    run = Run("a", stall=60.0, storage_wait=300.0)
    run.step()
    run.seen = {"a": Seen((STEP,), 1, Since(run.now, "no route"))}
    for _ in range(4):
        assert set(run.step(70)) <= {Probe()}
    run.seen = {"a": Seen((STEP,), 1)}
    run.outcomes["a"] = Outcome("StoreUnavailable: no route")
    assert run.step() == (Start("a"),)


def test_workers_that_wait_for_storage_much_too_long_stall_after_all() -> None:
    run = Run("a", stall=60.0, storage_wait=300.0)
    run.step()
    run.seen = {"a": Seen((STEP,), 1, Since(run.now, "no route"))}
    run.step()
    assert Explain("a") in run.step(361)


def test_while_a_worker_waits_for_storage_the_driver_tries_it_now_and_then() -> None:
    run = Run("a", stall=1000.0)
    run.step()
    run.seen = {"a": Seen((STEP,), 1, Since(run.now, "no route"))}
    assert run.step() == (Probe(),)
    assert run.step() == ()
    assert run.step(PROBE_SECONDS + 1) == (Probe(),)


def test_nothing_stalls_while_the_driver_waits_for_storage() -> None:
    run = Run("a", stall=60.0, storage_wait=300.0)
    run.step()
    run.away = Since(run.now, "no route")
    assert run.step(61) == ()
    assert run.step(200) == ()
    run.away = None
    assert run.step(59) == ()
    assert len(run.step(2)) == 3


def test_storage_that_is_away_too_long_ends_the_run_as_failed() -> None:
    run = Run("a", "b", at_once=1, stall=60.0, storage_wait=300.0)
    run.step()
    run.away = Since(run.now, "connection refused")
    assert run.step(299) == ()
    why = "storage did not answer for 5 min (--storage-wait): connection refused"
    assert run.step(2) == (Record("a", "failed", why), Record("b", "failed", why), Leave())


def test_a_result_that_cannot_be_written_yet_is_not_decided_again() -> None:
    run = Run("a", storage_wait=300.0)
    run.step()
    run.away = Since(run.now, "connection refused")
    run.outcomes["a"] = Outcome(None, finished=True)
    assert run.step() == (Record("a", "finished", None),)
    assert run.step(100) == ()
    assert run.step(201) == (Leave(),)


def test_a_result_that_turns_out_finished_has_no_note() -> None:
    run = Run("a", retries=0)
    run.step()
    run.outcomes["a"] = FAILED
    run.step()
    assert run.state["a"].note == "its worker died"
    assert recorded(run.state, "a", "failed", 1.0)["a"].note == "its worker died"
    assert recorded(run.state, "a", "finished", 1.0)["a"].note == ""


def test_workers_are_paid_for_from_their_start_to_their_end() -> None:
    run = Run("a", "b", retries=1)
    run.step()
    run.step(5)  # nobody has started
    run.seen = {"a": Seen((STEP,), 2), "b": Seen((), 1)}
    run.step(1)
    run.step(10)
    run.outcomes["a"] = FAILED
    run.step(3)
    assert (run.state["a"].worker_seconds, run.state["b"].worker_seconds) == (2 * 13, 13)
    run.seen["a"] = Seen((), 0)
    run.step(20)
    run.seen["a"] = Seen((STEP,), 1)
    run.step(1)
    run.step(4)
    assert (run.state["a"].worker_seconds, run.state["b"].worker_seconds) == (26 + 4, 13 + 25)
