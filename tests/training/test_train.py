"""Training, by real workers on real images: the same result however it is divided or interrupted.

Workers are processes under MultiWorkerMirroredStrategy, as Ray starts them. What several tests
look at is trained once; `PLANS` says what is trained.
"""

import hashlib
import io
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import tf_keras as keras
from small_tasks import small_task
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.shards import INDEX_KEY, ShardInfo, encode, open_shard, read_index
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.records import (
    CHECKPOINTS,
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
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.evaluate import scores
from tlcluster.training.events import epoch_ends
from tlcluster.training.loop import STEPS_PER_CALL
from tlcluster.training.model import build_models, load_weights_file, no_keys

pytestmark = pytest.mark.cluster

DRILL = pytest.mark.drill
"""A training takes long to start. What a drill shows, the others show of another experiment."""

BATCH = 7
"""130 images are 18 batches of 7 and one of 4: no worker count divides them, and an epoch takes
three calls of `STEPS_PER_CALL` steps."""

STEPS = 19

RECIPES: dict[str, dict[str, Any]] = {
    "frozen": {"epochs": 2},
    "regularized": {"epochs": 3},
    "finetuned": {"epochs": 2, "learning_rate": 5e-5, "preprocess": "base"},
}


HEAD_FIELDS: dict[str, Any] = {
    "taps": "block3,block4",
    "input_size": 40,
    "augmentation": "strong",
    "optimizer": "sgd-nesterov",
    "learning_rate": 1e-2,
    "schedule": "cosine",
    "warmup": 0.2,
    "weight_decay": 0.1,
    "average": 0.9,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "test_views": 2,
}
"""Fields that are not the study's, in one training of a head on a frozen base."""

BASE_FIELDS: dict[str, Any] = {
    "trainable_from": "block4",
    "taps": "block3,block5",
    "augmentation": "flip-and-shift",
    "base_rate": 0.1,
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "mixup": 0.4,
    "average": 0.9,
    "clip_norm": 1.0,
}
"""The same in a training of the base."""


UPPER_FIELDS: dict[str, Any] = {
    "trainable_from": "block5",
    "taps": "block4,last",
    "base_rate": 0.1,
    "learning_rate": 1e-4,
    "test_views": 2,
}
"""Of the frozen lower blocks, features are kept."""

UPPER_FEATURES = "features of lower blocks"


class Plan(NamedTuple):
    """One attempt of a training."""

    experiment: str
    workers: int = 1
    folder: str | None = None
    """Of the run; that of another plan goes on with it. By default the plan's name."""
    after: str | None = None
    """The plan that has to be done before."""
    features: str | None = "features"
    """Folder of the features, or None."""
    store: str = "slice"
    stop_at: tuple[int, int] | None = None
    """(epoch, step) from which on the driver asks to stop."""
    die_at: tuple[int, int, str] | None = None
    """(epoch, step, phase) at which the worker is killed."""
    outage: Mapping[str, Any] | None = None
    """Storage does not always answer; see `run_worker.Outage`."""
    recipe: Mapping[str, Any] = MappingProxyType({})
    task: Mapping[str, Any] = MappingProxyType({})
    """Fields of Task that are not the usual ones."""
    environment: Mapping[str, str] = MappingProxyType({})
    """Variables of each worker."""
    drill: bool = False
    """Whether only drills look at it."""


MIDDLE = (2, STEPS_PER_CALL)
"""In the second epoch, with two calls before its end."""

SOON = {"storage_wait": 0.2}
"""Give up on storage."""

PROXY = {"grpc_proxy": "http://127.0.0.1:9"}
"""A site's proxy, which reaches no worker: nothing listens there. Only gRPC reads this variable."""

PLANS: dict[str, Plan] = {
    "regularized": Plan("regularized"),
    "frozen": Plan("frozen"),
    "finetuned": Plan("finetuned"),
    "regularized, no features": Plan("regularized", features=None),
    "frozen, no features": Plan("frozen", features=None),
    "regularized, two workers": Plan("regularized", 2, features="features of both"),
    "regularized, two workers, no features": Plan("regularized", 2, features=None),
    "finetuned, two workers": Plan("finetuned", 2, environment=PROXY),
    "regularized, stopped": Plan("regularized", stop_at=MIDDLE),
    "finetuned, stopped": Plan("finetuned", stop_at=MIDDLE, drill=True),
    "regularized, gone on": Plan(
        "regularized", folder="regularized, stopped", after="regularized, stopped"
    ),
    "finetuned, gone on": Plan(
        "finetuned", folder="finetuned, stopped", after="finetuned, stopped", drill=True
    ),
    "regularized, killed": Plan(
        "regularized", die_at=(2, 2 * STEPS_PER_CALL, "training"), task={"checkpoint_seconds": 0.0}
    ),
    "decay": Plan("regularized", recipe={"weight_decay": 0.1}, drill=True),
    "head": Plan("regularized", recipe=HEAD_FIELDS),
    "head, two workers, no features": Plan("regularized", 2, features=None, recipe=HEAD_FIELDS),
    "head, stopped": Plan("regularized", stop_at=MIDDLE, recipe=HEAD_FIELDS),
    "head, gone on": Plan(
        "regularized", folder="head, stopped", after="head, stopped", recipe=HEAD_FIELDS
    ),
    "base": Plan("finetuned", recipe=BASE_FIELDS),
    "base, two workers": Plan("finetuned", 2, recipe=BASE_FIELDS, drill=True),
    "upper": Plan("finetuned", features=UPPER_FEATURES, recipe=UPPER_FIELDS),
    "upper, no features": Plan("finetuned", features=None, recipe=UPPER_FIELDS),
    "upper, two workers": Plan("finetuned", 2, features=UPPER_FEATURES, recipe=UPPER_FIELDS),
    "frozen, early": Plan("frozen", recipe={"epochs": 60, "patience": 3}),
    "regularized, after the kill": Plan(
        "regularized", folder="regularized, killed", after="regularized, killed"
    ),
    "stopped before validation": Plan("regularized", stop_at=(2, 2 * STEPS_PER_CALL), drill=True),
    "epochs of one step, stopped": Plan(
        "frozen", stop_at=(2, 1), recipe={"global_batch": 130, "epochs": 6}
    ),
    "killed before the test": Plan("regularized", die_at=(3, 0, "testing")),
    "validated": Plan(
        "regularized",
        folder="stopped before validation",
        after="stopped before validation",
        drill=True,
    ),
    "tested": Plan("regularized", folder="killed before the test", after="killed before the test"),
    "one view": Plan("regularized", features="one view", recipe={"epochs": 3}, task={"views": 1}),
    "one view, another seed": Plan(
        "regularized",
        features="one view",
        after="one view",
        recipe={"epochs": 3},
        task={"views": 1, "seed": 6},
    ),
    "two workers, stopped": Plan("regularized", 2, stop_at=MIDDLE),
    "one worker, gone on": Plan(
        "regularized", folder="two workers, stopped", after="two workers, stopped"
    ),
    "few images": Plan("regularized", features=None, store="few", drill=True),
    "few images, two workers": Plan("regularized", 2, features=None, store="few", drill=True),
    # Of three images, two a step, the last step has none for the second worker.
    "two a step": Plan("frozen", features=None, store="few", recipe={"global_batch": 2}),
    "two a step, two workers": Plan(
        "frozen", 2, features=None, store="few", recipe={"global_batch": 2}
    ),
    "scaled": Plan("regularized", 2, task={"scale_batch": True}),
    "flaky": Plan("regularized", features="features of the flaky", outage={"every": 3}),
    "flaky, no features": Plan("regularized", features=None, outage={"every": 3}, drill=True),
    "away at the start": Plan(
        "frozen", outage={"operation": "get", "after": 0}, task=SOON, drill=True
    ),
    "away for the readers": Plan(
        "frozen", features=None, outage={"operation": "fetch", "after": 1}, task=SOON
    ),
    "away for the features": Plan(
        "frozen",
        features="features of the away",
        outage={"operation": "put_if_absent", "after": 1},
        task=SOON,
        drill=True,
    ),
    "away for the records": Plan("frozen", outage={"operation": "put", "after": 1}, task=SOON),
    # Three shards are for training.
    "stopped while away": Plan(
        "frozen", features=None, stop_at=(1, STEPS), outage={"operation": "fetch", "after": 3}
    ),
    "another index": Plan("frozen", task={"index_sha256": "0" * 64}),
    "a GPU that is not seen": Plan(
        "frozen", task={"gpus": 0.5}, environment={"CUDA_VISIBLE_DEVICES": ""}
    ),
    "damaged": Plan("finetuned", store="damaged"),
    "damaged, features": Plan("regularized", features="features of the damaged", store="damaged"),
}

AT_ONCE = 2
"""Workers at the same time, each with one thread."""


class Trained(NamedTuple):
    """What an attempt left, when it ended."""

    answers: list[dict[str, Any] | None]
    """One a worker; see `run_worker.train_job`."""
    run: Store
    experiment: str
    history: list[EpochRecord]

    def get(self, name: str) -> bytes:
        return self.run.get(f"{self.experiment}/{name}")

    def keys(self, folder: str) -> list[str]:
        return [found.key for found in self.run.list(f"{self.experiment}/{folder}/")]

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(self.get(PREDICTIONS)), allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def chief(self) -> dict[str, Any]:
        assert self.answers[0] is not None
        return self.answers[0]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Holds stores, features and runs; removed at the end, for a run's weights are 60 MB."""
    with tempfile.TemporaryDirectory(prefix="tlcluster-test-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def stores(sample_folder: Path, folder: Path) -> dict[str, Store]:
    """Real images: a `slice` of 130, 60 and 60 in several shards; `few` of them, 3, 1 and 1; and
    the slice with a `damaged` shard of train."""
    images, place = folder / "images", folder / "stores"
    for class_folder in sorted(sample_folder.glob("*/*")):
        target = images / class_folder.relative_to(sample_folder)
        target.mkdir(parents=True)
        for image in sorted(class_folder.iterdir())[: 13 if target.parent.name == "train" else 6]:
            shutil.copyfile(image, target / image.name)
    whole = open_store(str(place / "slice"), create=True)
    ingest(str(images), whole, rows_per_shard=50, processes=1)
    index, _ = read_index(whole)

    few = open_store(str(place / "few"), create=True)
    splits = {}
    for split, count in (("train", 3), ("valid", 1), ("test", 1)):
        shard = encode(rows_of(whole, split)[:count])
        key, sha256 = f"{split}/00000.npy", hashlib.sha256(shard).hexdigest()
        few.put(key, shard)
        splits[split] = (ShardInfo(key=key, rows=count, bytes=len(shard), sha256=sha256),)
    few.put(INDEX_KEY, index.model_copy(update={"splits": splits}).to_json())

    damaged = open_store(str(shutil.copytree(place / "slice", place / "damaged")))
    key = index.shards("train")[1].key
    content = bytearray(damaged.get(key))
    content[-9000] ^= 4
    damaged.put(key, bytes(content))
    return {"slice": whole, "few": few, "damaged": damaged}


def rows_of(store: Store, split: str) -> np.ndarray:
    """All rows of a split, in index order."""
    index, _ = read_index(store)
    paths = [
        (store.fetch(info.key, sha256=info.sha256, size=info.bytes), info)
        for info in index.shards(split)
    ]
    return np.concatenate([open_shard(path, info, index) for path, info in paths])


Get = Callable[[str], Trained]


@pytest.fixture(scope="session")
def trained(
    stores: dict[str, Store],
    folder: Path,
    imagenet_weights: bytes,
    run_wave: Callable[[list[Any]], list[list[Any]]],
) -> Get:
    """`trained(name)` is what came of a plan; it is carried out when it is first asked for."""
    weights = folder / "weights.h5"
    weights.write_bytes(imagenet_weights)
    done: dict[str, Trained] = {}

    def job(name: str) -> dict[str, Any]:
        plan = PLANS[name]
        recipe = {"global_batch": BATCH, **RECIPES[plan.experiment], **plan.recipe}
        experiment = Experiment(**{**EXPERIMENTS[plan.experiment].model_dump(), **recipe})
        task = small_task(
            experiment,
            stores[plan.store],
            folder,
            run=str(folder / "runs" / (plan.folder or name)),
            features=str(folder / plan.features) if plan.features else None,
            weights="imagenet",
            attempt=2 if plan.after else 1,
            storage_wait=60.0,
        )
        fields = {**task._asdict(), "experiment": experiment.model_dump(), **plan.task}
        return {
            "task": fields,
            "weights": str(weights),
            "stop_at": plan.stop_at,
            "die_at": plan.die_at,
            "outage": plan.outage and dict(plan.outage),
            "environment": dict(plan.environment),
        }

    def carry_out(names: list[str]) -> None:
        wave = [[job(name)] * PLANS[name].workers for name in names]
        for name, answers in zip(names, run_wave(wave), strict=True):
            plan = PLANS[name]
            run = open_store(str(folder / "runs" / (plan.folder or name)), create=True)
            epochs = f"{plan.experiment}/{EPOCHS}"
            written = run.get(epochs).splitlines() if run.list(epochs) else []
            history = [EpochRecord.model_validate_json(line) for line in written]
            done[name] = Trained(answers, run, plan.experiment, history)

    def get(name: str) -> Trained:
        if name in done:
            return done[name]
        after = PLANS[name].after
        if after:
            get(after)
        # Others that are ready keep the other cores busy; they will be asked for as well.
        wave = [name]
        for other, plan in PLANS.items():
            ready = other not in done and (plan.after is None or plan.after in done)
            room = AT_ONCE - sum(PLANS[member].workers for member in wave)
            if other != name and ready and not plan.drill and plan.workers <= room:
                wave.append(other)
        carry_out(wave)
        return done[name]

    return get


def curves(trained: Trained) -> np.ndarray:
    """(epochs, 4): what an epoch record says besides times."""
    return np.array([(e.loss, e.accuracy, e.val_loss, e.val_accuracy) for e in trained.history])


def assert_close(one: Trained, other: Trained, tolerance: float) -> None:
    assert len(one.history) == len(other.history) > 1
    np.testing.assert_allclose(curves(one), curves(other), rtol=tolerance, atol=tolerance)
    ours, theirs = one.predictions, other.predictions
    np.testing.assert_array_equal(ours["source"], theirs["source"])
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=10 * tolerance)


def by_saved_model(training: Trained, store: Store, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a split, by a new model with the weights that a training saved."""
    keras.backend.clear_session()
    config = ExperimentConfig.model_validate_json(training.get(CONFIG))
    model = build_models(
        config.experiment, image_shape=(32, 32, 3), classes=10, seed=99, imagenet_weights=None
    ).whole
    load_weights_file(model, training.get(WEIGHTS))
    rows = rows_of(store, split)
    images = tf.constant(rows["image"], tf.float32)
    return model([images, no_keys(images)], training=False).numpy(), rows["label"]


def assert_identical(one: Trained, other: Trained) -> None:
    np.testing.assert_array_equal(curves(one), curves(other))
    assert one.get(PREDICTIONS) == other.get(PREDICTIONS)


# Divided


def test_one_worker_and_two_train_alike_on_features(trained: Get) -> None:
    assert_close(trained("regularized"), trained("regularized, two workers"), 1e-5)


def test_one_worker_and_two_train_alike_on_images(trained: Get) -> None:
    assert_close(
        trained("regularized, no features"), trained("regularized, two workers, no features"), 1e-5
    )


def test_one_worker_and_two_train_a_whole_network_alike(trained: Get) -> None:
    assert_close(trained("finetuned"), trained("finetuned, two workers"), 1e-3)


@pytest.mark.drill  # one step without an image is tested below
def test_a_worker_may_have_no_image_at_all(trained: Get) -> None:
    alone, two = trained("few images"), trained("few images, two workers")
    assert alone.predictions["probabilities"].shape == (1, 10)
    assert_close(alone, two, 1e-5)


def test_a_step_may_have_no_image_for_a_worker(trained: Get) -> None:
    assert_close(trained("two a step"), trained("two a step, two workers"), 1e-5)


def test_every_worker_reports_every_epoch(trained: Get) -> None:
    two = trained("regularized, two workers")
    for answer in two.answers:
        assert answer is not None
        assert answer["outcome"] == "finished"
        losses = [(epoch["loss"], epoch["val_loss"]) for epoch in answer["reported"]]
        assert losses == [(epoch.loss, epoch.val_loss) for epoch in two.history]
    ranks = ExperimentResult.model_validate_json(two.get(RESULT)).workers
    assert [worker.rank for worker in ranks] == [0, 1]
    assert {worker.device for worker in ranks} == {"CPU, 1 thread"}
    assert two.answers[1] is not None
    assert two.answers[1]["shown"] == []  # rank 0 speaks for all


def test_sums_over_the_workers_leave_no_threads_behind(trained: Get) -> None:
    """TensorFlow keeps one asleep for every collective that has a timeout, until that is over."""
    alone, two = trained("regularized"), trained("regularized, two workers")
    # 17 and 122, most of them the server's, which one worker does not need; 1,407 with a timeout.
    assert two.chief["threads"] < alone.chief["threads"] + 140


def test_batch_and_learning_rate_grow_with_the_workers_where_asked_for(trained: Get) -> None:
    scaled = trained("scaled")
    assert {epoch.learning_rate for epoch in scaled.history} == {2e-3}
    steps = max(step for epoch, step, phase in scaled.chief["shown"] if phase == "training")
    assert steps == 10  # 130 images in batches of 14


# Again, with features and without


@pytest.mark.parametrize("name", ["frozen", "regularized", "upper"])
def test_features_and_images_give_the_same_result(trained: Get, name: str) -> None:
    assert_close(trained(name), trained(f"{name}, no features"), 1e-4)


def test_features_of_frozen_blocks_are_computed_once_for_each_view(
    trained: Get, folder: Path
) -> None:
    trained("upper")
    written = {path: path.stat().st_mtime_ns for path in views_in(folder / UPPER_FEATURES)}
    # Views of two epochs, in shards of 50, 50 and 30 images.
    assert sorted(path.parent.name for path in written) == ["00001"] * 3 + ["00002"] * 3
    trained("upper, two workers")
    assert written == {p: p.stat().st_mtime_ns for p in views_in(folder / UPPER_FEATURES)}


def test_features_of_a_view_are_kept_where_views_return(trained: Get, folder: Path) -> None:
    history = trained("one view").history
    assert len(history) == 3
    assert {path.parent.name for path in views_in(folder / "one view")} == {"00001"}
    fresh = {path.parent.name for path in views_in(folder / "features")}
    assert {"00000", "00001", "00002", "00003"} <= fresh


def test_another_seed_trains_another_head_on_the_same_views(trained: Get, folder: Path) -> None:
    before = trained("one view").history
    written = {path: path.stat().st_mtime_ns for path in views_in(folder / "one view")}
    history = trained("one view, another seed").history
    assert [epoch.loss for epoch in history] != [epoch.loss for epoch in before]
    assert {path: path.stat().st_mtime_ns for path in views_in(folder / "one view")} == written


def views_in(features: Path) -> Iterator[Path]:
    """What tells of each shard of features of `train`, in the folder of its view."""
    return features.glob("features/*/train/*/*.json")


# Interrupted


@pytest.mark.parametrize("name", ["regularized", pytest.param("finetuned", marks=DRILL)])
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(trained: Get, name: str) -> None:
    stopped = trained(f"{name}, stopped")
    assert stopped.chief["outcome"] == "interrupted"
    assert stopped.chief["shown"][-1] == [*MIDDLE, "training"]
    gone_on = trained(f"{name}, gone on")
    assert gone_on.chief["outcome"] == "finished"
    assert_identical(gone_on, trained(name))
    # The wish is heard in the call of steps after the one in which it came up.
    assert gone_on.chief["shown"][0] == [2, STEPS, "training"]
    assert gone_on.chief["reported"][0]["epoch"] == 2


def test_a_killed_training_goes_on_from_its_checkpoint(trained: Get) -> None:
    killed = trained("regularized, killed")
    assert killed.answers == [None]
    gone_on = trained("regularized, after the kill")
    assert_identical(gone_on, trained("regularized"))
    # The last checkpoint was that of the call before.
    assert gone_on.chief["shown"][0] == [2, 2 * STEPS_PER_CALL, "training"]
    assert [epoch["epoch"] for epoch in gone_on.chief["reported"]] == [2, 3]


@DRILL
def test_an_epoch_that_was_trained_but_not_validated_is_not_trained_again(trained: Get) -> None:
    assert trained("stopped before validation").chief["outcome"] == "interrupted"
    gone_on = trained("validated")
    assert gone_on.chief["shown"][0] == [2, STEPS, "validating"]
    assert_identical(gone_on, trained("regularized"))


def test_a_wish_to_stop_at_the_end_of_an_epoch_is_heard_in_the_next(trained: Get) -> None:
    stopped = trained("epochs of one step, stopped").chief
    assert stopped["outcome"] == "interrupted"
    assert stopped["shown"] == [
        *([epoch, 1, phase] for epoch in (1, 2) for phase in ("training", "validating"))
    ]


def test_a_training_that_was_killed_before_its_test_is_only_tested(trained: Get) -> None:
    assert trained("killed before the test").answers == [None]
    gone_on = trained("tested")
    assert gone_on.chief["shown"] == [[3, 0, "testing"]]
    assert gone_on.chief["reported"] == []
    assert_identical(gone_on, trained("regularized"))


def test_a_training_goes_on_with_another_number_of_workers(trained: Get) -> None:
    for answer in trained("two workers, stopped").answers:
        assert answer is not None
        assert answer["outcome"] == "interrupted"
    assert_close(trained("one worker, gone on"), trained("regularized"), 1e-5)


# Weight decay


@DRILL  # test_optimizer has the numbers
def test_weight_decay_makes_kernels_smaller_and_leaves_the_rest_to_the_gradients(
    trained: Get,
) -> None:
    plain, decayed = kernels(trained("regularized")), kernels(trained("decay"))
    assert len(plain) == 2
    # Each of the 57 steps takes 1e-3 x 0.1 of a kernel, while Adam moves both alike at first.
    for one, other in zip(plain, decayed, strict=True):
        assert 0.9 < np.linalg.norm(other) / np.linalg.norm(one) < 0.9999


def kernels(trained: Trained) -> list[np.ndarray]:
    """The kernels of the head."""
    keras.backend.clear_session()
    config = ExperimentConfig.model_validate_json(trained.get(CONFIG))
    models = build_models(
        config.experiment,
        image_shape=(32, 32, 3),
        classes=10,
        seed=99,
        imagenet_weights=None,
    )
    load_weights_file(models.whole, trained.get(WEIGHTS))
    return [v.numpy() for v in models.head.trainable_variables if "kernel" in v.name]


# Fields that are not the study's


def test_one_worker_on_features_and_two_on_images_train_a_head_alike(trained: Get) -> None:
    one, two = trained("head"), trained("head, two workers, no features")
    assert_close(one, two, 1e-4)
    assert not np.allclose(curves(one), curves(trained("regularized")), atol=0.01)
    rates = [epoch.learning_rate for epoch in one.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("name", [pytest.param("base", marks=DRILL), "upper"])
def test_one_worker_and_two_train_the_upper_blocks_of_a_base_alike(trained: Get, name: str) -> None:
    assert_close(trained(name), trained(f"{name}, two workers"), 1e-3)


def test_only_the_upper_blocks_of_a_base_change(trained: Get, imagenet_weights: bytes) -> None:
    training = trained("base")
    keras.backend.clear_session()
    config = ExperimentConfig.model_validate_json(training.get(CONFIG))
    before, after = (
        build_models(
            config.experiment,
            image_shape=(32, 32, 3),
            classes=10,
            seed=99,
            imagenet_weights=imagenet_weights,
        ).whole
        for _ in range(2)
    )
    load_weights_file(after, training.get(WEIGHTS))
    changed = {
        old.name.partition("_")[0]
        for old, new in zip(before.weights, after.weights, strict=True)
        if old.name.startswith("block") and not np.array_equal(old, new)
    }
    assert changed == {"block4", "block5"}


def test_a_stopped_training_of_a_head_with_all_fields_goes_on_as_if_nothing_had_happened(
    trained: Get,
) -> None:
    assert trained("head, stopped").chief["outcome"] == "interrupted"
    assert_identical(trained("head, gone on"), trained("head"))


# Early stopping


def test_training_stops_when_patience_is_over_and_the_best_epoch_is_tested(
    trained: Get, stores: dict[str, Store]
) -> None:
    early = trained("frozen, early")
    accuracies = [epoch.val_accuracy for epoch in early.history]
    best = accuracies.index(max(accuracies)) + 1
    assert len(early.history) == best + 3 < 60
    result = ExperimentResult.model_validate_json(early.get(RESULT))
    assert (result.stopped_early, result.best_epoch, result.epochs_run) == (True, best, best + 3)

    logits, labels = by_saved_model(early, stores["slice"], "valid")
    again = scores(logits, labels)
    assert again.loss / again.rows == pytest.approx(early.history[best - 1].val_loss, abs=1e-5)
    assert again.loss / again.rows != pytest.approx(early.history[-1].val_loss, abs=1e-3)


def test_a_training_that_runs_out_of_epochs_was_not_stopped(trained: Get) -> None:
    result = ExperimentResult.model_validate_json(trained("regularized").get(RESULT))
    assert not result.stopped_early
    assert result.epochs_run == 3


@pytest.mark.parametrize("name", ["frozen, early", "regularized", "finetuned"])
def test_the_saved_weights_give_the_predictions(
    trained: Get, stores: dict[str, Store], name: str
) -> None:
    training = trained(name)
    logits, labels = by_saved_model(training, stores[PLANS[name].store], "test")
    predictions = training.predictions
    np.testing.assert_allclose(
        scipy.special.softmax(logits, axis=1), predictions["probabilities"], atol=1e-5
    )
    np.testing.assert_array_equal(labels, predictions["label"])


# What is left


def test_predictions_name_every_test_image_in_index_order(
    trained: Get, stores: dict[str, Store]
) -> None:
    for name in ("regularized", "regularized, two workers"):
        rows, predictions = rows_of(stores["slice"], "test"), trained(name).predictions
        assert list(predictions) == ["source", "label", "probabilities"]
        assert predictions["source"].tolist() == [source.decode() for source in rows["source"]]
        np.testing.assert_array_equal(predictions["label"], rows["label"])
        assert predictions["label"].dtype == np.int64
        assert predictions["probabilities"].dtype == np.float32
        assert predictions["probabilities"].shape == (60, 10)
        np.testing.assert_allclose(predictions["probabilities"].sum(axis=1), 1, rtol=1e-5)


def test_records_are_those_of_the_training(trained: Get) -> None:
    training = trained("regularized, gone on")
    config = ExperimentConfig.model_validate_json(training.get(CONFIG))
    assert config.experiment.name == "regularized"
    assert config.experiment.global_batch == BATCH
    assert (config.seed, config.trainable_params) == (5, 269_834)
    assert [epoch.epoch for epoch in training.history] == [1, 2, 3]
    assert {(epoch.workers, epoch.learning_rate) for epoch in training.history} == {(1, 1e-3)}
    result = ExperimentResult.model_validate_json(training.get(RESULT))
    assert (result.status, result.error, result.attempts) == ("finished", None, 2)
    accuracies = [epoch.val_accuracy for epoch in training.history]
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    assert training.keys(CHECKPOINTS) == []


def test_progress_is_told_in_every_call_and_phase(trained: Get) -> None:
    """The very first step has a call of its own, which tells how long the start took."""
    assert trained("frozen").chief["shown"] == [
        *([1, step, "training"] for step in (1, 9, 17, 19)), [1, 19, "validating"],
        *([2, step, "training"] for step in (8, 16, 19)), [2, 19, "validating"],
        [2, 0, "testing"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["regularized", "regularized, gone on"])
def test_the_event_file_holds_the_curves_once(trained: Get, name: str, tmp_path: Path) -> None:
    training = trained(name)
    keys = training.keys(TENSORBOARD)
    assert len(keys) == 1
    (tmp_path / Path(keys[0]).name).write_bytes(training.run.get(keys[0]))
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    curves = ("loss", "accuracy", "val_loss", "val_accuracy", "images_per_second")
    assert sorted(events.Tags()["tensors"]) == sorted(curves)
    for curve in curves:
        points = events.Tensors(curve)
        assert [point.step for point in points] == [1, 2, 3]
        np.testing.assert_allclose(
            [tf.make_ndarray(point.tensor_proto) for point in points],
            [getattr(epoch, curve) for epoch in training.history],
            rtol=1e-6,
        )


# Storage away


@pytest.mark.parametrize(
    ("name", "undisturbed"),
    [
        ("flaky", "regularized"),
        pytest.param("flaky, no features", "regularized, no features", marks=DRILL),
    ],
)
def test_a_training_whose_storage_is_away_now_and_then_gives_the_same_result_bit_for_bit(
    trained: Get, name: str, undisturbed: str
) -> None:
    """On features of its own too: the same task gives the same result."""
    flaky, expected = trained(name), trained(undisturbed)
    assert flaky.chief["outcome"] == "finished"
    said = flaky.chief["away"]
    assert len([why for why in said if why]) > 10
    assert said[-1] == ""
    assert_identical(flaky, expected)
    assert flaky.get(CONFIG) == expected.get(CONFIG)
    (events,) = flaky.keys(TENSORBOARD)
    assert list(epoch_ends(flaky.run.get(events))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        pytest.param("away at the start", "get", marks=DRILL),
        ("away for the readers", "fetch"),
        pytest.param("away for the features", "put_if_absent", marks=DRILL),
        ("away for the records", "put"),
    ],
)
def test_storage_that_stays_away_ends_the_training_as_itself(
    trained: Get, name: str, operation: str
) -> None:
    answer = trained(name).chief
    assert (answer["error"], answer["message"]) == (
        "StoreUnavailable",
        f"no answer to {operation}",
    )


def test_a_stop_request_ends_the_waiting_for_storage(trained: Get) -> None:
    answer = trained("stopped while away").chief
    assert answer["error"] == "StoreUnavailable"
    assert answer["shown"][-1] == [1, STEPS, "validating"]


# Refused


def test_another_data_set_under_the_same_address_is_refused(
    trained: Get, stores: dict[str, Store]
) -> None:
    training = trained("another index")
    _, sha256 = read_index(stores["slice"])
    assert training.chief["error"] == "UserError"
    assert training.chief["message"] == (
        f"{stores['slice'].url} holds another data set than when the run began: its index has "
        f"sha256 {sha256}, expected {'0' * 64}; restore it or use another run name"
    )
    assert training.run.list() == []


def test_a_reserved_gpu_that_is_not_seen_ends_the_training_in_one_line(trained: Get) -> None:
    training = trained("a GPU that is not seen")
    assert training.chief["error"] == "UserError"
    beginning = f"{socket.gethostname()}: reserved 0.5 GPU, TensorFlow sees none: "
    assert training.chief["message"].startswith(beginning)
    assert "\n" not in training.chief["message"]
    assert training.run.list() == []


def test_a_worker_that_reserves_no_gpu_hides_those_of_its_node(trained: Get) -> None:
    assert trained("frozen").chief["environment"]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_workers_reach_each_other_around_the_proxy_of_a_site(trained: Get) -> None:
    for answer in trained("finetuned, two workers").answers:
        assert answer is not None
        assert answer["outcome"] == "finished"
        assert answer["environment"]["no_grpc_proxy"] == "127.0.0.1"


@pytest.mark.parametrize("name", ["damaged", "damaged, features"])
def test_a_damaged_shard_ends_the_training_with_its_key_and_checksums(
    trained: Get, stores: dict[str, Store], name: str
) -> None:
    info = read_index(stores["damaged"])[0].shards("train")[1]
    found = hashlib.sha256(stores["damaged"].get(info.key)).hexdigest()
    answer = trained(name).chief
    assert answer["error"] == "CorruptObject"
    for part in (info.key, f"expected sha256 {info.sha256}", f"found sha256 {found}"):
        assert part in answer["message"]
