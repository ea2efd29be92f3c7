"""A base with BatchNorm is trained alike by one worker and by two.

Workers are processes under MultiWorkerMirroredStrategy, as Ray starts them. MobileNetV2 starts from
random weights.
"""

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcluster.dataset.shards import INDEX_KEY, ShardInfo, encode, open_shard, read_index
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.records import CONFIG, EPOCHS, PREDICTIONS, EpochRecord, ExperimentConfig
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.task import Task

pytestmark = pytest.mark.cluster

ROWS = {"train": 25, "valid": 12, "test": 12}

RECIPE: dict[str, Any] = {
    "base": "mobilenet_v2",
    "preprocess": "base",
    "augment": False,
    "epochs": 2,
    # The third step of an epoch has one image: none for the second worker.
    "global_batch": 12,
    "learning_rate": 1e-4,
}

Group = list[dict[str, Any]]


@pytest.fixture(scope="module")
def few(sample_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with `ROWS` real images of each split."""
    index, _ = read_index(sample_store)
    store = open_store(str(tmp_path_factory.mktemp("few")), create=True)
    splits = {}
    for split, count in ROWS.items():
        info = index.shards(split)[0]
        path = sample_store.fetch(info.key, sha256=info.sha256, size=info.bytes)
        shard = encode(open_shard(path, info, index)[:count])
        key, sha256 = f"{split}/00000.npy", hashlib.sha256(shard).hexdigest()
        store.put(key, shard)
        splits[split] = (ShardInfo(key=key, rows=count, bytes=len(shard), sha256=sha256),)
    store.put(INDEX_KEY, index.model_copy(update={"splits": splits}).to_json())
    return store


def jobs(name: str, few: Store, folder: Path, workers: int, **recipe: object) -> Group:
    """A job for each worker of a training in `folder/name`."""
    fields = {**EXPERIMENTS["finetuned"].model_dump(), **RECIPE, **recipe}
    task = Task(
        experiment=Experiment(**fields),
        seed=5,
        store=few.url,
        index_sha256=read_index(few)[1],
        run=str(folder / name),
        features=str(folder / f"features of {name}"),
        weights="random-5",
        views=None,
        view_seed=5,
        scale_batch=False,
        checkpoint_seconds=1e9,
        cache=str(folder / "cache"),
        cache_bytes=2**30,
        threads=1,
        command_started=time.time(),
        earlier_seconds=0.0,
        attempt=1,
    )
    job = {
        "task": {**task._asdict(), "experiment": fields},
        "weights": None,
        "stop_at": None,
        "die_at": None,
        "outage": None,
    }
    return [dict(job) for _ in range(workers)]


def curves(folder: Path) -> np.ndarray:
    """(epochs, 4): the numbers of an epoch record that are not times."""
    lines = (folder / "finetuned" / EPOCHS).read_text().splitlines()
    records = [EpochRecord.model_validate_json(line) for line in lines]
    return np.array([(e.loss, e.accuracy, e.val_loss, e.val_accuracy) for e in records])


def probabilities(folder: Path) -> np.ndarray:
    content = (folder / "finetuned" / PREDICTIONS).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        found: np.ndarray = arrays["probabilities"]
    return found


def test_one_worker_and_two_train_a_base_with_batch_norm_alike(
    few: Store, tmp_path: Path, run_wave: Callable[[list[Group]], list[list[Any]]]
) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        (answers,) = run_wave([jobs(name, few, tmp_path, workers)])
        assert [answer["outcome"] for answer in answers] == ["finished"] * workers
    one, two = curves(tmp_path / "one"), curves(tmp_path / "two")
    assert len(one) == 2
    np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(
        probabilities(tmp_path / "one"), probabilities(tmp_path / "two"), atol=2e-3
    )
    # The comparison can fail: images are told apart, and training changes the results.
    assert probabilities(tmp_path / "one").std(axis=0).max() > 0
    assert abs(one[0, 0] - one[1, 0]) > 0.02


def test_a_frozen_base_with_batch_norm_trains_its_head_on_features(
    few: Store, tmp_path: Path, run_wave: Callable[[list[Group]], list[list[Any]]]
) -> None:
    frozen = {"base_trainable": False, "batch_norm": True, "dropout": 0.2}
    wave = [
        jobs("features", few, tmp_path, 1, **frozen),
        jobs("images", few, tmp_path, 1, **frozen),
    ]
    for job in wave[1]:
        job["task"]["features"] = None
    answers = run_wave(wave)
    assert [answer["outcome"] for (answer,) in answers] == ["finished"] * 2
    np.testing.assert_allclose(
        curves(tmp_path / "features"), curves(tmp_path / "images"), rtol=1e-4, atol=1e-4
    )
    config = ExperimentConfig.model_validate_json(
        (tmp_path / "features" / "finetuned" / CONFIG).read_bytes()
    )
    assert sum(layer.in_base for layer in config.layers) == 153
    assert not any(layer.trainable for layer in config.layers if layer.in_base)
    written = list((tmp_path / "features of features").rglob("*.npy"))
    assert {np.load(path).shape[1] for path in written} == {1280}
