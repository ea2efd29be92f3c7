"""What only a GPU can show: `make test-gpu`. Elsewhere the tests are skipped.

They print figures; they never fail because of one. Workers are processes, as in test_train.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from small_tasks import small_task

from tests.real_run import Command, results_json
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.records import EPOCHS, RESULT, EpochRecord, ExperimentResult
from tlcluster.storage.protocol import Store

GPUS = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="this machine has no NVIDIA GPU"),
]

Group = list[dict[str, Any]]
Say = Callable[[str], None]


class Trained(NamedTuple):
    """What a training left."""

    result: ExperimentResult
    history: list[EpochRecord]
    peak: int | None
    """Bytes of GPU memory that the first worker had at most; None on the CPU."""
    places: frozenset[str]
    """Folders of the features, without their splits and views."""
    features: np.ndarray | None
    """Of the plain training images, in index order; None if the base is trained."""

    @property
    def losses(self) -> np.ndarray:
        """(epochs, 2): training and validation loss."""
        return np.array([(epoch.loss, epoch.val_loss) for epoch in self.history])


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Print a line that is shown also if the test passes."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="")

    return line


@pytest.fixture
def train(
    sample_store: Store,
    imagenet_weights: bytes,
    tmp_path: Path,
    run_wave: Callable[[list[Group]], list[list[Any]]],
) -> Callable[..., Trained]:
    """`train(name, gpus, workers=1, visible="0", **recipe)` trains an experiment to its end.

    Args: `visible` has the GPUs that the workers see, one for each, or one for all.
    """
    weights = tmp_path / "weights.h5"
    weights.write_bytes(imagenet_weights)

    def run(
        name: str, gpus: float, *, workers: int = 1, visible: str = "0", **recipe: object
    ) -> Trained:
        fields = {**EXPERIMENTS[name].model_dump(), "epochs": 3, "global_batch": 100, **recipe}
        folder = tmp_path / f"{name}-{gpus}-{workers}-{time.monotonic_ns()}"
        task = small_task(
            Experiment(**fields),
            sample_store,
            tmp_path,
            run=str(folder),
            features=str(folder / "features"),
            weights="imagenet",
            threads=0,
            gpus=gpus,
        )
        seen = visible.split(",") if gpus else [visible]
        group = [
            {
                "task": {**task._asdict(), "experiment": fields},
                "weights": str(weights),
                "stop_at": None,
                "die_at": None,
                "outage": None,
                "environment": {"CUDA_VISIBLE_DEVICES": seen[rank % len(seen)]},
            }
            for rank in range(workers)
        ]
        (answers,) = run_wave([group])
        assert [answer and answer.get("message") for answer in answers] == [None] * workers
        result = ExperimentResult.model_validate_json((folder / name / RESULT).read_bytes())
        assert result.status == "finished"
        lines = (folder / name / EPOCHS).read_text().splitlines()
        history = [EpochRecord.model_validate_json(line) for line in lines]
        shards = sorted(folder.glob("features/features/*/train/00000/*.npy"))
        return Trained(
            result,
            history,
            answers[0]["gpu_peak"],
            frozenset(path.name for path in folder.glob("features/features/*")),
            np.concatenate([np.load(path) for path in shards]) if shards else None,
        )

    return run


def figures(what: str, trained: Trained) -> str:
    speed = trained.history[-1].images_per_second
    memory = "" if trained.peak is None else f", {trained.peak / 2**20:,.0f} MiB of GPU memory"
    return f"{trained.result.workers[0].device}, {what}: {speed:,.0f} images/s{memory}"


def test_a_worker_trains_on_the_gpu_that_it_reserved(
    train: Callable[..., Trained], say: Say
) -> None:
    trained = train("finetuned", 1)
    assert not trained.result.workers[0].device.startswith("CPU")
    assert trained.peak
    assert np.isfinite(trained.losses).all()
    assert trained.history[-1].loss < trained.history[0].loss
    say(figures("finetuned", trained))


def test_a_worker_that_reserved_none_computes_on_the_cpu(train: Callable[..., Trained]) -> None:
    trained = train("frozen", 0)
    assert trained.result.workers[0].device.startswith("CPU")
    assert trained.peak is None


def test_two_workers_that_share_a_gpu_train_what_one_trains(
    train: Callable[..., Trained], say: Say
) -> None:
    one, two = train("finetuned", 1), train("finetuned", 0.5, workers=2)
    assert len(two.result.workers) == 2
    # bfloat16 has 8 bits: sums that are divided differently differ in the third digit.
    np.testing.assert_allclose(two.losses, one.losses, rtol=0.1)
    say(figures("finetuned, two workers on one GPU", two))


@pytest.mark.skipif(GPUS < 2, reason="NCCL needs two GPUs")
def test_two_workers_with_a_gpu_each_train_what_one_trains(
    train: Callable[..., Trained], say: Say
) -> None:
    one, two = train("finetuned", 1), train("finetuned", 1, workers=2, visible="0,1")
    np.testing.assert_allclose(two.losses, one.losses, rtol=0.1)
    say(figures("finetuned, two GPUs", two))


def test_features_of_the_gpu_are_close_to_those_of_the_cpu_and_lie_elsewhere(
    train: Callable[..., Trained], say: Say
) -> None:
    here, there = train("frozen", 0), train("frozen", 1)
    assert here.places.isdisjoint(there.places)
    cpu, gpu = here.features, there.features
    assert cpu is not None
    assert gpu is not None
    assert gpu.dtype == np.float32
    assert gpu.shape == cpu.shape
    difference = np.linalg.norm(gpu - cpu) / np.linalg.norm(cpu)
    assert 0 < difference < 0.1
    say(f"relative difference of the features from the CPU's: {difference:.2%}")


@pytest.mark.parametrize("name", ["frozen", "augmented", "regularized"])
def test_a_frozen_base_trains_its_head_on_features_of_the_gpu(
    name: str, train: Callable[..., Trained], say: Say
) -> None:
    trained = train(name, 1)
    assert np.isfinite(trained.losses).all()
    fresh = "a fresh view in each epoch" if EXPERIMENTS[name].augment else "the same features"
    say(figures(f"{name}, {fresh}", trained))


@pytest.mark.cluster
def test_a_run_shares_the_gpu_among_its_experiments(tmp_path: Path, say: Say) -> None:
    arguments: Mapping[str, object] = {
        "--output": tmp_path,
        "--run-name": "shared",
        "--experiments": "frozen,finetuned",
        "--epochs": 2,
    }
    flags = [part for pair in arguments.items() for part in pair]
    visible = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    with Command(tmp_path, "jobs/run_all.py", *flags, environment=visible) as command:
        assert command.ended() == 0, command.said()
    for one in results_json(tmp_path / "shared")["experiments"]:
        assert not one["workers"][0]["device"].startswith("CPU")
        say(f"{one['name']} in a run: {one['images_per_second']:,.0f} images/s")
