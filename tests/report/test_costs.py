"""What trainings cost: time of workers and GPUs, with shared features shared out."""

import json
from pathlib import Path

import fake_run
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.records import EpochRecord, ExperimentResult, PriceRecord
from tlcluster.report.cost import Spent, shared_out, spent, together
from tlcluster.report.cost_table import cost_columns
from tlcluster.report.runs import read_run
from tlcluster.report.shares import Shares, added, fractions, shares
from tlcluster.report.tables import results_json, summary_csv
from tlcluster.storage.directory import DirectoryStore

SECONDS = st.floats(0, 1e6)


@st.composite
def trainings(draw: st.DrawFn) -> Spent:
    features = draw(st.dictionaries(st.sampled_from("abc"), st.floats(0, 100)))
    whole = sum(features.values()) + draw(SECONDS)
    return Spent(whole, draw(st.sampled_from([0.0, 0.25, 1.0])) * whole, features)


@settings(max_examples=50)
@given(st.lists(trainings(), min_size=1, max_size=6))
def test_what_is_shared_out_adds_up_to_the_time_of_all_workers(every: list[Spent]) -> None:
    costs = [one for one in shared_out(every) if one is not None]
    for field in ("worker_seconds", "gpu_seconds"):
        whole = sum(getattr(one, field) for one in every)
        assert sum(getattr(one, field) for one in costs) == pytest.approx(whole, abs=1e-6)
    assert sum(one.feature_seconds for one in costs) == pytest.approx(
        sum(one.computed_seconds for one in costs), abs=1e-6
    )
    assert all(one.worker_seconds >= one.feature_seconds >= 0 for one in costs)


def test_features_are_paid_in_equal_parts_by_those_that_read_them() -> None:
    plain, both, images = shared_out(
        [
            Spent(100.0, 50.0, {"train": 30.0, "valid": 0.0}),
            Spent(80.0, 80.0, {"valid": 20.0}),
            Spent(60.0, 0.0, {}),
        ]
    )
    assert plain is not None
    assert both is not None
    assert images is not None
    assert (plain.worker_seconds, plain.feature_seconds, plain.computed_seconds) == (110, 40, 30)
    assert (both.worker_seconds, both.feature_seconds, both.computed_seconds) == (70, 10, 20)
    assert images[:3] == (60, 0, 0)
    # Features cost the GPUs of those that computed them.
    assert (plain.gpu_seconds, both.gpu_seconds) == (35 + 15 + 10, 60 + 10)


def test_a_training_of_which_nothing_is_known_pays_nothing_and_hides_the_sum() -> None:
    known = Spent(100.0, None, {"train": 30.0})
    cost, unknown = shared_out([known, None])
    assert unknown is None
    assert cost is not None
    assert (cost.worker_seconds, cost.gpu_seconds, cost.feature_seconds) == (100, None, 30)
    assert together([cost, None]) is None
    both = together([cost, cost])
    assert both is not None
    assert (both.worker_seconds, both.gpu_seconds) == (200, None)


def epoch(number: int, **features: float) -> EpochRecord:
    (record,) = fake_run.epoch_records("frozen", 1)
    return record.model_copy(
        update={"epoch": number, "seconds": 10.0, "workers": 2, "feature_seconds": features}
    )


WORKERS = fake_run.experiment_result("frozen").workers


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        ({"status": "finished", "worker_seconds": 99.0, "gpu_seconds": 9.0}, 99.0),
        # Of version 0.1.0: time times workers.
        ({"status": "finished", "wall_seconds": 30.0, "workers": WORKERS}, 60.0),
        ({"status": "failed", "wall_seconds": 30.0}, None),
        ({"status": "queued"}, 0.0),
        # The driver was killed: at least its epochs.
        ({"status": "running", "worker_seconds": 5.0}, 40.0),
        ({"status": "running", "wall_seconds": 30.0}, 40.0),
    ],
)
def test_records_say_how_long_all_workers_were_there(
    result: dict[str, object], seconds: float | None
) -> None:
    found = spent(ExperimentResult.model_validate(result), (epoch(1), epoch(2)))
    assert (found and found.worker_seconds) == seconds


def test_features_are_those_of_all_epochs_and_of_the_test() -> None:
    result = ExperimentResult(
        status="finished", worker_seconds=99.0, feature_seconds={"train": 1.0, "test": 2.0}
    )
    found = spent(result, (epoch(1, train=3.0, valid=4.0), epoch(2, train=0.0)))
    assert found is not None
    assert found.features == {"train": 4.0, "valid": 4.0, "test": 2.0}
    # A driver that was killed lost some of the time, and features take no more than there is.
    less = spent(result.model_copy(update={"worker_seconds": 5.0}), (epoch(1, train=3.0),))
    assert less is not None
    assert less.features == pytest.approx({"train": 10 / 3, "test": 5 / 3})


def test_a_run_says_what_it_cost_in_every_table(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    price = PriceRecord(amount=2.0, currency="EUR", per="GPU-hour")
    of = fake_run.manifest(experiments=("frozen", "augmented"), seeds=(524, 7), price=price)
    fake_run.write_run(store, of, finished=[])
    for folder, read in (("frozen", "plain"), ("frozen/seeds/7", "plain"), ("augmented", "views")):
        result = fake_run.experiment_result(
            folder.partition("/")[0],
            worker_seconds=7200.0,
            gpu_seconds=3600.0,
            feature_seconds={read: 1800.0 if folder != "frozen/seeds/7" else 0.0},
        )
        fake_run.write_result(store, folder, result)
    run = read_run(store)
    content = json.loads(results_json(run))
    frozen, augmented = content["experiments"]
    assert frozen["cost"] == {
        "worker_hours": 1.75,
        "gpu_hours": 0.875,
        "feature_worker_hours": 0.25,
        "computed_worker_hours": 0.5,
        "money": 1.75,
        "energy_kwh": pytest.approx(3500 / 3.6e6),  # features cost energy too
        "energy_source": "NVML and an estimate",
        "utilisation": frozen["cost"]["utilisation"],
    }
    assert frozen["replicates"][1]["cost"]["worker_hours"] == 2.25
    assert frozen["across_seeds"]["cost"]["worker_hours"] == 4.0
    assert augmented["across_seeds"]["cost"]["worker_hours"] == 2.0  # its second seed never began
    assert content["run"]["cost"]["worker_hours"] == 6.0
    assert content["run"]["cost"]["money"] == 6.0
    assert content["run"]["price"] == price.model_dump()
    heading, first, _ = summary_csv(run).splitlines()
    row = dict(zip(heading.split(","), first.split(","), strict=False))
    assert (row["worker_hours"], row["worker_hours_sum"]) == ("1.75", "4.0")
    assert [column.heading for column in cost_columns(run)] == [
        "Worker-hours", "of them features", "Features computed", "GPU-hours", "Cost, EUR",
        "Energy, Wh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("joules", "heading", "text"),
    [(1800.0, "Energy, Wh", "≈ 0.50"), (7.2e6, "Energy, kWh", "≈ 2.000")],
)
def test_energy_has_a_unit_in_which_it_is_not_zero(
    joules: float, heading: str, text: str, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path)
    fake_run.write_run(store, fake_run.manifest(experiments=("frozen",)), finished=[])
    spent_there = {"worker_seconds": 60.0, "joules": joules, "energy_source": "an estimate"}
    fake_run.write_result(store, "frozen", fake_run.experiment_result("frozen", **spent_there))
    run = read_run(store)
    column = cost_columns(run)[-1]
    assert run.experiments[0].cost
    assert (column.heading, column.text(run.experiments[0].cost)) == (heading, text)


def test_where_the_time_of_a_training_went() -> None:
    timed = {"input_seconds": 4.0, "validation_seconds": 2.0, "sum_seconds": 1.0}
    epochs = [epoch(number).model_copy(update=timed) for number in (1, 2)]
    result = ExperimentResult(
        status="finished", wall_seconds=30.0, worker_seconds=60.0, test_seconds=3.0
    )
    found = shares(result, epochs)
    assert found == Shares(
        steps=6.0, input=8.0, collectives=2.0, validation=4.0, test=3.0, idle=7.0
    )
    parts = fractions(found)
    assert parts is not None
    assert (parts.steps, sum(parts)) == (0.2, pytest.approx(1.0))
    assert added([found, Shares(idle=1.0)]).idle == 8.0


def test_where_the_time_went_is_unknown_of_earlier_versions_and_nothing_without_time() -> None:
    old = ExperimentResult(status="finished", wall_seconds=30.0)
    untimed = epoch(1).model_copy(update={"input_seconds": None})
    assert shares(old, (untimed, epoch(2))) is None
    assert shares(old, ()) is None
    never = shares(ExperimentResult(status="queued"), ())
    assert never == Shares()
    assert fractions(Shares()) is None
    assert fractions(Shares(steps=float("inf"))) is None
    lost = ExperimentResult(status="failed", wall_seconds=30.0, worker_seconds=60.0)
    assert shares(lost, ()) == Shares(idle=30.0)
