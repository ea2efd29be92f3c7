"""Where a training stands, and what a step or an epoch changes about it: pure functions."""

import math
from typing import NamedTuple

from tlcluster.errors import UserError
from tlcluster.records import EpochRecord, Record
from tlcluster.training.progress import Phase, Progress
from tlcluster.training.schedule import Schedule


class StepSums(NamedTuple):
    """Sums over steps and workers."""

    loss: float
    correct: int
    """Right answers."""
    rows: int
    stops: int
    """Workers that want to stop."""


class Scores(NamedTuple):
    """Sums over the images of a split."""

    loss: float
    correct: int
    rows: int


class Used(NamedTuple):
    """What all workers together have used since the record before, with the names of its fields."""

    feature_seconds: dict[str, float] | None = None
    """None without features."""
    joules: float | None = None
    """None if they are not known."""
    energy_source: str = ""


class TrainingState(Record):
    """Where a training stands, without its weights."""

    epoch: int = 1
    """The epoch in progress; counts from 1."""
    step: int = 0
    """Steps of the epoch that are done: the position in the data."""
    loss_sum: float = 0.0
    """Sum of the losses in the steps done, all workers together."""
    correct: int = 0
    """Right answers in the steps done."""
    rows: int = 0
    """Images in the steps done."""
    train_seconds: float = 0.0
    """Time that the steps done took."""
    input_seconds: float = 0.0
    """Of `train_seconds`: waiting for input."""
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int | None = None
    best_accuracy: float = -1.0
    stopped_early: bool = False
    wall_seconds: float = 0.0
    """Time with workers running until this checkpoint, all attempts together."""

    @property
    def waited(self) -> int:
        """Epochs finished since the best one."""
        return len(self.history) - (self.best_epoch or 0)

    @property
    def improved(self) -> bool:
        """Whether the last finished epoch is the best one."""
        return bool(self.history) and self.best_epoch == self.history[-1].epoch


def is_possible(state: TrainingState, schedule: Schedule) -> bool:
    """Whether a training on this schedule can have come to this state."""
    done = len(state.history)
    times = [state.train_seconds, state.input_seconds, state.wall_seconds]
    times += [record.seconds for record in state.history]
    return (
        state.epoch == done + 1
        and [record.epoch for record in state.history] == list(range(1, done + 1))
        and 0 <= state.step <= schedule.steps
        and 0 <= state.correct <= state.rows
        and (state.rows > 0) == (state.train_seconds > 0) == (state.step > 0)
        and (state.best_epoch is None if not done else 1 <= (state.best_epoch or 0) <= done)
        and all(0 <= seconds < math.inf for seconds in times)
        and all(0 < record.images_per_second < math.inf for record in state.history)
    )


def is_over(state: TrainingState, schedule: Schedule) -> bool:
    """Whether nothing is left to train."""
    return state.stopped_early or state.epoch > schedule.epochs


def steps_of(epoch: int, done: int, steps: int) -> str:
    """The next steps of an epoch in words, if so many are done: `steps 9 to 16 of epoch 2`."""
    if steps == 1:
        return f"step {done + 1} of epoch {epoch}"
    return f"steps {done + 1} to {done + steps} of epoch {epoch}"


def after_steps(
    state: TrainingState, steps: int, sums: StepSums, seconds: float, waited: float = 0.0
) -> TrainingState:
    """The state when `steps` more steps are done, which took `seconds` and `waited` for input.

    Raises:
        UserError: the loss is no number any more. Further steps cannot change that.
    """
    if not math.isfinite(sums.loss):
        raise UserError(
            f"the loss became {sums.loss} in {steps_of(state.epoch, state.step, steps)}: the "
            "training diverged; give it a smaller learning_rate or clip_norm, --set "
            "NAME.learning_rate=1e-4"
        )
    return state.model_copy(
        update={
            "step": state.step + steps,
            "loss_sum": state.loss_sum + sums.loss,
            "correct": state.correct + sums.correct,
            "rows": state.rows + sums.rows,
            "train_seconds": state.train_seconds + seconds,
            "input_seconds": state.input_seconds + waited,
        }
    )


def after_epoch(
    state: TrainingState,
    valid: Scores,
    schedule: Schedule,
    *,
    validation_seconds: float,
    sum_seconds: float = 0.0,
    used: Used = Used(),  # noqa: B008 - frozen
) -> TrainingState:
    """The state at the start of the next epoch; the last record of its history is this epoch's.

    Args:
        valid: what the validation of the epoch found.
        validation_seconds: that it took.
        sum_seconds: of it, those of the sum over the workers.
        used: since the record of the epoch before.
    """
    accuracy = valid.correct / valid.rows
    record = EpochRecord(
        epoch=state.epoch,
        loss=state.loss_sum / state.rows,
        accuracy=state.correct / state.rows,
        val_loss=valid.loss / valid.rows,
        val_accuracy=accuracy,
        seconds=state.train_seconds + validation_seconds,
        images_per_second=state.rows / state.train_seconds,
        learning_rate=schedule.rate(state.epoch, schedule.steps - 1),
        workers=schedule.workers,
        input_seconds=state.input_seconds,
        validation_seconds=validation_seconds - sum_seconds,
        sum_seconds=sum_seconds,
        **used._asdict(),
    )
    better = accuracy > state.best_accuracy
    ended = TrainingState(
        epoch=state.epoch + 1,
        history=(*state.history, record),
        best_epoch=state.epoch if better else state.best_epoch,
        best_accuracy=accuracy if better else state.best_accuracy,
    )
    return ended.model_copy(update={"stopped_early": ended.waited >= schedule.patience})


def progress_of(state: TrainingState, schedule: Schedule, phase: Phase) -> Progress:
    """What the driver shows of a training that is in this phase."""
    history = state.history
    if state.rows:
        images_per_second = state.rows / state.train_seconds
    else:
        images_per_second = history[-1].images_per_second if history else 0.0
    return Progress(
        epoch=len(history) if phase == Phase.TESTING else state.epoch,
        epochs=schedule.epochs,
        step=state.step,
        steps=schedule.steps,
        images_per_second=images_per_second,
        accuracy=history[-1].val_accuracy if history else None,
        best_accuracy=state.best_accuracy if history else None,
        phase=phase,
    )
