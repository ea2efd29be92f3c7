"""How an attempt ends, and what is said of it. Ray is played by a few lines."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
from ray.train import TrainingFailedError

from tlcluster.errors import StoreUnavailable
from tlcluster.orchestration import attempt
from tlcluster.orchestration.attempt import Attempt
from tlcluster.orchestration.board import Board
from tlcluster.orchestration.ray_internals import never_placed
from tlcluster.orchestration.state import Outcome

LONG = 60.0


class Actor:
    """A board whose methods are called as an actor's."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._board, name))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setattr(attempt.ray, "get", lambda answer: answer)
    return Board()


def ended(
    board: Board,
    fit: Callable[[], None],
    *,
    prepare: Callable[[], None] = lambda: None,
    finished: bool = False,
    leaving: bool = False,
) -> Outcome | None:
    """The outcome of an attempt whose trainer does this."""
    event = threading.Event()
    one = Attempt(
        "frozen",
        Actor(board),
        prepare=prepare,
        trainer=lambda: SimpleNamespace(fit=fit),
        finished=lambda: finished,
        leaving=event,
    )
    assert one.outcome is None
    if leaving:
        event.set()
    one.start()
    one.join(LONG)
    return one.outcome


def fails() -> None:
    raise TrainingFailedError("ValueError: no")


def is_not_placed() -> None:
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError  # noqa: PLC0415

    error = TrainingFailedError("Training failed due to controller error")
    error.controller_failure = WorkerGroupStartupTimeoutError(2)  # type: ignore[attr-defined]
    assert never_placed(error)
    raise error


def test_an_attempt_that_returns_has_no_error(board: Board) -> None:
    assert ended(board, lambda: None) == Outcome(None)
    assert ended(board, lambda: None, finished=True) == Outcome(None, finished=True)


def test_an_attempt_that_fails_says_why_and_frees_what_its_workers_had(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[object] = []
    monkeypatch.setattr(attempt.ray.util, "remove_placement_group", freed.append)

    def fails_later() -> None:
        board.reserved("frozen", "a placement group")
        fails()

    assert ended(board, fails_later) == Outcome("ValueError: no")
    assert freed == ["a placement group"]
    assert ended(board, fails, finished=True) == Outcome("ValueError: no", finished=True)


def test_an_attempt_forgets_the_one_before(board: Board) -> None:
    board.hello("frozen", "a worker")
    ended(board, lambda: None)
    assert board.workers("frozen") == []


def test_an_error_that_a_person_must_change_is_fatal_and_goes_first(board: Board) -> None:
    def fails_for_good() -> None:
        board.fail("frozen", "the shard is damaged")
        fails()

    assert ended(board, fails_for_good) == Outcome("the shard is damaged", fatal=True)


def test_workers_that_were_never_placed_are_told_apart(board: Board) -> None:
    outcome = ended(board, is_not_placed)
    assert outcome is not None
    assert (outcome.placed, outcome.fatal, outcome.finished) == (False, False, False)


def test_a_ray_that_is_gone_is_an_error_of_the_attempt(board: Board) -> None:
    def is_lost() -> None:
        raise ray.exceptions.RayActorError

    outcome = ended(board, is_lost)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.startswith("the process of worker 0 died")


def test_while_ray_is_left_nothing_is_asked(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def failure(_: str) -> str | None:
        raise AssertionError("the board was asked")

    monkeypatch.setattr(board, "failure", failure)
    assert ended(board, fails, leaving=True) == Outcome("ValueError: no")


def test_an_attempt_whose_beginning_cannot_be_written_does_not_train(board: Board) -> None:
    def refuse() -> None:
        raise StoreUnavailable("the bucket does not answer")

    def trains() -> None:
        raise AssertionError("it was trained")

    outcome = ended(board, trains, prepare=refuse)
    assert outcome == Outcome("the bucket does not answer", fatal=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_program_itself_ends_the_attempt(board: Board) -> None:
    def is_wrong() -> None:
        raise ZeroDivisionError

    outcome = ended(board, is_wrong)
    assert outcome == Outcome("the driver failed; its error is printed above", fatal=True)
