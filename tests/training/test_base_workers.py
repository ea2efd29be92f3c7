"""A base with BatchNorm is trained alike by one worker and by two.

Workers are processes under MultiWorkerMirroredStrategy, as Ray starts them. MobileNetV2 starts from
random weights.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tasks import small_task

from tlcluster.dataset.shards import INDEX_KEY, ShardInfo, encode, open_shard, read_index
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.records import CONFIG, EPOCHS, EpochRecord, ExperimentConfig
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

pytestmark = pytest.mark.cluster

ROWS = {"train": 25, "valid": 12, "test": 12}

RECIPE: dict[str, Any] = {
    "base": "mobilenet_v2",
    "preprocess": "base",
    "augment": False,
    "epochs": 3,
    "global_batch": 25,
    # Adam makes a full step from a gradient that is only rounding. Small steps keep that small.
    "learning_rate": 2e-6,
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
    task = small_task(
        Experiment(**fields),
        few,
        folder,
        run=str(folder / name),
        features=str(folder / f"features of {name}"),
        weights="random-5",
    )
    job = {
        "task": {**task._asdict(), "experiment": fields},
        "weights": None,
        "stop_at": None,
        "die_at": None,
        "outage": None,
    }
    return [dict(job) for _ in range(workers)]


def losses(folder: Path) -> np.ndarray:
    """(epochs, 2): training and validation loss."""
    lines = (folder / "finetuned" / EPOCHS).read_text().splitlines()
    records = [EpochRecord.model_validate_json(line) for line in lines]
    return np.array([(epoch.loss, epoch.val_loss) for epoch in records])


@pytest.mark.drill  # one layer alone is compared in test_batch_norm
@pytest.mark.parametrize("first", ["first", "block_13"])
def test_one_worker_and_two_train_a_base_with_batch_norm_alike(
    few: Store, tmp_path: Path, run_wave: Callable[[list[Group]], list[list[Any]]], first: str
) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        (answers,) = run_wave([jobs(name, few, tmp_path, workers, trainable_from=first)])
        assert [answer["outcome"] for answer in answers] == ["finished"] * workers
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 3
    np.testing.assert_allclose(one, two, atol=1e-3)
    # Training changes the loss by far more than the tolerance.
    assert one[0, 0] - one[2, 0] > 0.1
    # Of the blocks that stay frozen, features are kept.
    assert len(list(tmp_path.rglob("*.npy"))) == (0 if first == "first" else 2 * 3)


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
        losses(tmp_path / "features"), losses(tmp_path / "images"), rtol=1e-4, atol=1e-4
    )
    config = ExperimentConfig.model_validate_json(
        (tmp_path / "features" / "finetuned" / CONFIG).read_bytes()
    )
    assert sum(layer.in_base for layer in config.layers) == 153
    assert not any(layer.trainable for layer in config.layers if layer.in_base)
    written = list((tmp_path / "features of features").rglob("*.npy"))
    assert {np.load(path).shape[1] for path in written} == {1280}


def test_a_worker_computes_features_of_a_base_with_batch_norm_without_the_others(
    few: Store, tmp_path: Path, run_wave: Callable[[list[Group]], list[list[Any]]]
) -> None:
    job = {"images": few.url, "features": str(tmp_path)}
    assert run_wave([[job, job]]) == [[{"rows": 25}, {"rows": None}]]
