"""A budget that is less than a trial is refused; one that is spent ends what runs."""

from types import SimpleNamespace

import pytest
from fake_run import epoch_records

from tlcluster.errors import UserError
from tlcluster.tuning.budget import refuse_less_than_a_trial
from tlcluster.tuning.ray_tune import REFUSED, TrialProcess
from tlcluster.tuning.records import Planned, TrialRecord
from tlcluster.tuning.watch import Watch


def test_a_budget_of_less_than_one_trial_is_refused_with_one_that_does() -> None:
    seconds = {"frozen": 36.0, "finetuned": 7200.0}
    with pytest.raises(UserError) as refused:
        refuse_less_than_a_trial(1.5, seconds)
    assert str(refused.value) == (
        "--budget 1.5: a trial of finetuned takes at least 2:00:00 on this machine, 2 "
        "worker-hours; give room for some of them, --budget 20, or fewer --epochs"
    )
    refuse_less_than_a_trial(2.0, seconds)
    # The speed of GPUs is not known before.
    refuse_less_than_a_trial(1e-6, {})


def test_what_runs_when_the_budget_is_spent_is_recorded_as_stopped() -> None:
    records = {
        number: TrialRecord(
            number=number, role="search", candidate=number, seed=1, fields={}, status=status
        )
        for number, status in enumerate(("finished", "running", "failed", "running"))
    }
    written: list[TrialRecord] = []
    watch = Watch(records, written.append, lambda _: None, workers=1, gpus=0.0)
    watch.stop_running()
    assert [records[n].status for n in range(4)] == ["finished", "stopped", "failed", "stopped"]
    assert written == [records[1], records[3]]


def test_a_trial_that_diverges_ends_with_its_reason_and_is_not_tried_again() -> None:
    """Of an exception, Tune would start the trial again."""
    look = SimpleNamespace(
        history=epoch_records("frozen", 1), best_epoch=1, over=False, seconds=2.0
    )
    looks = iter([look])

    def epoch() -> SimpleNamespace:
        for look in looks:
            return look
        raise UserError("the loss became nan")

    process = object.__new__(TrialProcess)
    process._workers = SimpleNamespace(begin=lambda _: None, epoch=epoch)  # type: ignore[assignment]
    planned = Planned(3, "search", 3, 1, {})
    process.reset_config(planned._asdict())
    first, last = process.step(), process.step()
    assert not first["done"]
    assert last == {**first, "done": True, REFUSED: "the loss became nan"}

    records: dict[int, TrialRecord] = {}
    written: list[TrialRecord] = []
    watch = Watch(records, written.append, lambda _: None, workers=1, gpus=0.0)
    watch.begin(planned)
    trial = SimpleNamespace(config=planned._asdict(), last_result=last)
    watch.on_trial_result(trial=trial, result=last)
    watch.on_trial_complete(trial=trial)
    assert (records[3].status, records[3].error) == ("failed", "the loss became nan")
    assert len(records[3].val_accuracy) == 1
    assert written[-1] == records[3]
