"""Experiments that are killed, stopped, damaged or late, and those beside them, on real Ray."""

import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray.exceptions
from ray.train import TrainingFailedError
from real_run import EPOCH_TIMES, TIMES, Command, epochs, kill, result, results_json, without

from tlcluster.dataset.ingest import ingest
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration.attempt import LONGEST_REASON, reason
from tlcluster.orchestration.manifest import read_manifest
from tlcluster.orchestration.replicates import replicates
from tlcluster.orchestration.suite import claimed
from tlcluster.records import (
    CONFIG,
    EPOCHS,
    PREDICTIONS,
    RESULT,
    TENSORBOARD,
    WEIGHTS,
    EpochRecord,
    ExperimentConfig,
    ExperimentResult,
)
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store

FLAGS = (
    "--weights", "none", "--checkpoint-seconds", "0", "--cpus-per-worker", "1",
    "--set", "*.global_batch=10", "--set", "*.patience=99",
    "--set", "frozen.epochs=2", "--set", "augmented.epochs=12",
)  # fmt: skip


class Stage(NamedTuple):
    """What was left of a run when one of its drivers had ended."""

    status: int
    said: str
    frozen: ExperimentResult
    augmented: ExperimentResult
    epochs: list[EpochRecord]
    """Of `augmented`."""
    results: dict[str, Any]


@pytest.fixture(scope="module")
def store(small_cinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images a split, in four shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("store")
    ingest(str(small_cinic), open_store(str(folder)), rows_per_shard=50, processes=1)
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def troubled(store: Path, output: Path) -> dict[str, Stage]:
    """A run of two experiments, of which the longer one met every kind of trouble in turn."""
    run = output / "troubled"
    base = ("--store", store, "--output", output, "--run-name", run.name, *FLAGS)
    both = ("jobs/run_all.py", "--experiments", "frozen,augmented", *base)

    def stage(command: Command, status: int) -> Stage:
        ended = (result(run, "frozen"), result(run, "augmented"))
        return Stage(status, command.said(), *ended, epochs(run, "augmented"), results_json(run))

    def further(command: Command, already: int = 0) -> None:
        """Wait for the longer experiment to go on, and for it to be the only one that trains."""
        command.until(lambda: len(epochs(run, "augmented")) > already)
        command.until(lambda: result(run, "frozen").status == "finished")
        command.until(lambda: len(command.workers()) == 1)

    stages = {}
    with Command(output, *both, "--retries", "0") as command:
        further(command)
        kill(command.workers())
        stages["killed"] = stage(command, command.ended())
    with Command(output, "jobs/run_one.py", "augmented", *base) as command:
        further(command, len(epochs(run, "augmented")))
        longer = replicates([EXPERIMENTS["augmented"]], [524])
        with pytest.raises(UserError) as refused, claimed(open_store(str(run)), longer):
            pass
        assert str(refused.value) == (
            f"{run}: another process is training augmented in this run; wait for it, stop it, or "
            "use another --run-name"
        )
        stages["interrupted"] = stage(command, command.send(signal.SIGINT))
    with Command(output, *both) as command:
        further(command, len(epochs(run, "augmented")))
        # With one attempt less, what a dead controller had reserved would keep the next waiting.
        kill(command.controllers())
        command.until(lambda: result(run, "augmented").attempts == 4)
        further(command, len(epochs(run, "augmented")))
        kill(command.workers())
        stages["retried"] = stage(command, command.ended())
    return stages


def status_of(stage: Stage) -> dict[str, str]:
    return {experiment["name"]: experiment["status"] for experiment in stage.results["experiments"]}


@pytest.mark.cluster
def test_an_experiment_whose_worker_dies_fails_alone_and_its_row_says_why(
    troubled: dict[str, Stage],
) -> None:
    killed = troubled["killed"]
    assert killed.status == 1
    assert status_of(killed) == {"frozen": "finished", "augmented": "failed"}
    assert killed.results["run"]["status"] == "failed"
    assert killed.augmented.error == (
        "the process of worker 0 died: it was killed, ran out of memory or crashed, or its node "
        "was lost; Ray's logs tell more"
    )
    assert killed.augmented.attempts == 1
    assert killed.results["experiments"][0]["test"]["accuracy"] is not None


@pytest.mark.cluster
def test_a_signal_leaves_a_partial_report_that_says_so(troubled: dict[str, Stage]) -> None:
    """SIGINT here; the stop of a Ray job sends SIGTERM."""
    stopped = troubled["interrupted"]
    assert stopped.status == 130
    assert stopped.said.splitlines()[-1].endswith("/troubled/report/index.html")
    assert status_of(stopped) == {"frozen": "finished", "augmented": "interrupted"}
    assert stopped.results["run"]["status"] == "interrupted"
    history = stopped.results["experiments"][1]["history"]["val_accuracy"]
    assert history == [epoch.val_accuracy for epoch in stopped.epochs]
    assert 0 < len(history) < 12


@pytest.mark.cluster
def test_a_worker_that_dies_is_started_again_and_goes_on(troubled: dict[str, Stage]) -> None:
    retried = troubled["retried"]
    assert retried.status == 0
    assert status_of(retried) == {"frozen": "finished", "augmented": "finished"}
    # One attempt each for what was killed and interrupted, and three at last.
    assert retried.augmented.attempts == 5
    assert troubled["interrupted"].augmented.attempts == 2


@pytest.mark.cluster
def test_what_is_finished_is_never_repeated(troubled: dict[str, Stage]) -> None:
    assert {stage.frozen.attempts for stage in troubled.values()} == {1}
    assert len({stage.frozen.wall_seconds for stage in troubled.values()}) == 1


def untimed(records: list[EpochRecord]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude=EPOCH_TIMES) for record in records]


@pytest.mark.cluster
def test_training_goes_on_from_its_checkpoint_without_gap_or_repetition(
    troubled: dict[str, Stage],
) -> None:
    last = troubled["retried"].epochs
    assert [epoch.epoch for epoch in last] == list(range(1, 13))
    for stage in troubled.values():
        # A kill can cost the last epoch its checkpoint; validated again, it only took other times.
        assert untimed(last[: len(stage.epochs)]) == untimed(stage.epochs)


@pytest.mark.cluster
def test_every_epoch_is_one_line_where_there_is_no_terminal(troubled: dict[str, Stage]) -> None:
    lines = [line for line in troubled["killed"].said.splitlines() if line.startswith("augmented")]
    said = [line.split("epoch ")[1].split("/")[0] for line in lines if " running  epoch" in line]
    assert said == [str(number + 1) for number in range(len(said))]
    assert said


ITS_OWN = TIMES | {"attempts", "started", "finished", "name"}
"""What no two runs have in common, whatever befell them."""


@pytest.fixture(scope="module")
def on_one_core(store: Path, output: Path) -> str:
    """What the same two experiments print that run undisturbed on one core."""
    with Command(
        output, "jobs/run_all.py", "--experiments", "frozen,augmented", "--store", store,
        "--output", output, "--run-name", "straight", *FLAGS, cpus="0",
    ) as command:  # fmt: skip
        assert command.ended() == 0, command.said()
        return command.stdout.read_text()


@pytest.mark.cluster
def test_with_one_core_experiments_take_turns_the_longest_first(on_one_core: str) -> None:
    lines = on_one_core.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("augmented    finished"))
    second = next(n for n, line in enumerate(lines) if line.startswith("frozen       running"))
    assert "frozen       queued" in lines[:first]
    assert first <= second + 1
    assert lines[-1].endswith("/straight/report/index.html")


@pytest.mark.cluster
def test_the_same_command_gives_the_same_results_whatever_befell_it(
    troubled: dict[str, Stage], on_one_core: str, output: Path
) -> None:
    assert on_one_core
    straight, one = results_json(output / "straight"), troubled["retried"].results
    for part in ("dataset", "experiments", "comparisons"):
        assert without(straight[part], ITS_OWN) == without(one[part], ITS_OWN)
    assert [e["name"] for e in straight["experiments"]] == [e["name"] for e in one["experiments"]]


@pytest.fixture(scope="module")
def two_seeds(store: Path, output: Path, on_one_core: str) -> Path:
    """A run of `frozen` with two seeds, at once, after runs with the first one's features."""
    assert on_one_core
    run = output / "seeds"
    before = set(output.glob("features/*"))
    with Command(
        output, "jobs/run_all.py", "--experiments", "frozen", "--seeds", "2", "--store", store,
        "--output", output, "--run-name", run.name, *FLAGS,
    ) as command:  # fmt: skip
        assert command.ended() == 0, command.said()
    assert set(output.glob("features/*")) == before
    return run


@pytest.mark.cluster
def test_each_seed_of_an_experiment_leaves_records_of_its_own(two_seeds: Path) -> None:
    first, second = epochs(two_seeds, "frozen"), epochs(two_seeds, "frozen/seeds/525")
    assert [len(first), len(second)] == [2, 2]
    assert first[0].loss != second[0].loss
    for folder, seed in (("frozen", 524), ("frozen/seeds/525", 525)):
        assert result(two_seeds, folder).status == "finished"
        left = {path.name for path in (two_seeds / folder).iterdir()}
        assert left >= {CONFIG, EPOCHS, RESULT, PREDICTIONS, WEIGHTS, TENSORBOARD}
        config = ExperimentConfig.model_validate_json((two_seeds / folder / CONFIG).read_bytes())
        assert config.seed == seed
    manifest = read_manifest(open_store(str(two_seeds)))
    assert manifest is not None
    assert (manifest.status, manifest.seed, manifest.seeds) == ("finished", 524, (524, 525))
    assert set(manifest.results_sha256) == {"frozen", "frozen/seeds/525"}


@pytest.mark.cluster
def test_a_seed_gives_the_same_results_beside_another_as_alone(
    two_seeds: Path, output: Path
) -> None:
    assert untimed(epochs(two_seeds, "frozen")) == untimed(epochs(output / "straight", "frozen"))


@pytest.mark.drill  # the decision is tested with fakes
@pytest.mark.cluster
@pytest.mark.usefixtures("on_one_core")
def test_an_experiment_past_its_deadline_fails_alone(store: Path, output: Path) -> None:
    before = result(output / "straight", "frozen")
    with Command(
        output, "jobs/run_all.py", "--experiments", "frozen,finetuned", "--store", store,
        "--output", output, "--run-name", "straight", *FLAGS, "--set", "finetuned.epochs=999",
        "--deadline", "0.1",
    ) as command:  # fmt: skip
        assert command.ended() == 1, command.said()
    late = result(output / "straight", "finetuned")
    assert (late.status, late.error) == ("failed", "not finished after 0.1 min (--deadline)")
    assert result(output / "straight", "frozen") == before
    statuses = {e["name"]: e["status"] for e in results_json(output / "straight")["experiments"]}
    assert statuses == {"frozen": "finished", "augmented": "finished", "finetuned": "failed"}


def flipped(content: bytes) -> bytes:
    """The same with one bit of its last byte changed."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.drill  # test_train has the worker
@pytest.mark.cluster
def test_a_damaged_shard_fails_every_experiment_that_meets_it_with_what_was_found(
    small_cinic: Path, tmp_path: Path
) -> None:
    """One that reads images and one that reads features, from a directory."""
    folder = open_store(str(tmp_path / "store"), create=True)
    ingest(str(small_cinic), folder, rows_per_shard=50, processes=1)
    damaged = folder.list("train/")[1].key
    folder.put(damaged, flipped(folder.get(damaged)))
    with Command(
        tmp_path, "jobs/run_all.py", "--experiments", "frozen,finetuned", "--store", folder.url,
        "--output", tmp_path / "runs", "--run-name", "first", *FLAGS, "--epochs", "1",
    ) as command:  # fmt: skip
        assert command.ended() == 1, command.said()
    for name in ("frozen", "finetuned"):
        failed = result(tmp_path / "runs" / "first", name)
        assert (failed.status, failed.attempts) == ("failed", 1)
        assert failed.error is not None
        assert failed.error.startswith(f"{damaged}: the object is damaged: expected sha256 ")
        assert failed.error.count("sha256 ") == 2
    assert results_json(tmp_path / "runs" / "first")["run"]["status"] == "failed"


@pytest.mark.drill
@pytest.mark.cluster
def test_a_shard_that_is_damaged_in_s3_is_told_when_the_test_meets_it(
    small_cinic: Path, s3: EmbeddedStore, s3_url: str, tmp_path: Path
) -> None:
    assert s3_url.startswith(s3.url)
    bucket = open_store(f"{s3_url}/data")
    ingest(str(small_cinic), bucket, rows_per_shard=50, processes=1)
    damaged = bucket.list("test/")[0].key
    bucket.put(damaged, flipped(bucket.get(damaged)))
    with Command(
        tmp_path, "jobs/run_one.py", "frozen", "--store", bucket.url, "--output", f"{s3_url}/runs",
        "--run-name", "first", "--cache", tmp_path / "cache", *FLAGS, "--epochs", "1",
    ) as command:  # fmt: skip
        assert command.ended() == 1, command.said()
    run = open_store(f"{s3_url}/runs/first")
    failed = ExperimentResult.model_validate_json(run.get("frozen/result.json"))
    assert failed.error is not None
    assert failed.error.startswith(f"{damaged}: the object is damaged: expected sha256 ")
    assert len(run.get("frozen/epochs.jsonl").splitlines()) == 1


def of_workers(**failures: str) -> TrainingFailedError:
    """A failure as Ray Train raises it, with the text of each worker's."""
    error = TrainingFailedError("Training failed due to worker errors")
    error.worker_failures = {int(rank[1:]): Exception(text) for rank, text in failures.items()}  # type: ignore[attr-defined]
    return error


TRACEBACK = """\
Traceback (most recent call last):
  File "worker.py", line 1, in run_worker
    train()
tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:

OOM when allocating tensor
\t [[{{node MatMul}}]]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ValueError: no", "ValueError: no"),
        ("Traceback\n  File\nKeyError: 1\n", "KeyError: 1"),
        (
            TRACEBACK,
            (
                "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution "
                "error: OOM when allocating tensor [[{{node MatMul}}]]"
            ),
        ),
        ("", "TrainingFailedError"),
    ],
    ids=["line", "traceback", "tensorflow", "nothing"],
)
def test_a_failure_is_one_line(text: str, said: str) -> None:
    assert reason(of_workers(_0=text)) == said


def test_of_several_failures_that_of_the_first_worker_is_told() -> None:
    assert reason(of_workers(_1="ValueError: b", _0="ValueError: a")) == "ValueError: a"


def test_a_worker_that_died_is_told_rather_than_those_that_lost_it() -> None:
    failure = of_workers(_0="UnavailableError: collective ops aborted")
    failure.worker_failures[1] = ray.exceptions.ActorDiedError()  # type: ignore[attr-defined]
    assert reason(failure).startswith("the process of worker 1 died: ")


def test_a_long_reason_ends_with_an_ellipsis() -> None:
    said = reason(of_workers(_0="ValueError: " + "x" * 1000))
    assert len(said) == LONGEST_REASON
    assert said.endswith("x…")
