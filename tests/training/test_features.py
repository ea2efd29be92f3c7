"""Features: what the base makes of images, computed once by whoever comes first."""

import hashlib
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tlcluster.dataset.shards import Index, open_shard, read_index
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import CorruptObject, Store
from tlcluster.training import augment, features
from tlcluster.training.feature_key import MIRRORED, PLAIN, FeatureKey
from tlcluster.training.features import Claim, FeatureStore
from tlcluster.training.model import build_models

SEED = 524
CLAIM = Claim(training="runs/first/frozen", attempt=2)


class Watched(DirectoryStore):
    """A directory store that counts the features put, and lets a test into the middle of a call."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.computed: list[str] = []
        self.before_put: Callable[[str], object] = lambda _: None
        self.before_claim: Callable[[str], object] = lambda _: None

    def put(self, key: str, data: bytes | Path) -> None:
        self.before_put(key)
        if key.endswith(".npy"):
            self.computed.append(key.rpartition("-")[0])
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        if key.endswith(".claim"):
            self.before_claim(key)
        return super().put_if_absent(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.fixture(scope="module")
def index(sample_store: Store) -> Index:
    return read_index(sample_store)[0]


@pytest.fixture(scope="module")
def small_base() -> keras.Model:
    """Stands in for VGG16 where only who computes and who waits matters."""
    return small(1)


def small(seed: int) -> keras.Model:
    images = keras.Input((32, 32, 3))
    kernel = keras.initializers.RandomNormal(seed=seed)
    x = keras.layers.Dense(512, kernel_initializer=kernel)(
        keras.layers.Flatten()(images[:, :2, :2])
    )
    return keras.Model(images, x)


@pytest.fixture(scope="module")
def vgg16_base(imagenet_weights: bytes) -> keras.Model:
    return build_models(
        EXPERIMENTS["frozen"],
        image_shape=(32, 32, 3),
        classes=10,
        seed=SEED,
        imagenet_weights=imagenet_weights,
    ).base


Open = Callable[..., FeatureStore]


@pytest.fixture
def opened(sample_store: Store, index: Index, small_base: keras.Model, store: Watched) -> Open:
    """`opened()` is what one worker holds; changes say what is different."""

    def make(**changes: Any) -> FeatureStore:
        key = FeatureKey("index", "small", "raw", SEED, "small", (32, 32, 3))
        arguments = {
            "images": sample_store,
            "features": store,
            "key": key,
            "base": small_base,
            "strategy": tf.distribute.get_strategy(),
            "claim": CLAIM,
            "batch": 256,
        }
        return FeatureStore(index=index, **{**arguments, **changes})

    return make


def shard_rows(store: Store, index: Index, split: str, number: int) -> np.ndarray:
    info = index.shards(split)[number]
    return open_shard(store.fetch(info.key, sha256=info.sha256, size=info.bytes), info, index)


def found(store: Store, ending: str) -> list[str]:
    return [entry.key for entry in store.list() if entry.key.endswith(ending)]


# What they are


def test_plain_features_are_what_the_base_makes_of_the_images(
    opened: Open, vgg16_base: keras.Model, sample_store: Store, index: Index
) -> None:
    shard = opened(base=vgg16_base).load("test", PLAIN, 1)
    rows = shard_rows(sample_store, index, "test", 1)
    expected = vgg16_base(tf.constant(rows["image"], tf.float32)).numpy()
    assert shard.inputs.dtype == np.float32
    assert shard.inputs.std() > 1  # of real images, with real weights
    np.testing.assert_allclose(shard.inputs, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(shard.labels, rows["label"])


def test_features_of_a_view_are_those_of_the_augmented_images(
    opened: Open, vgg16_base: keras.Model, sample_store: Store, index: Index
) -> None:
    shard = opened(base=vgg16_base).load("train", 7, 2)
    pictures = augment.augment(
        tf.constant(shard_rows(sample_store, index, "train", 2)["image"]),
        augment.AUGMENTATIONS["study"],
        seed=SEED,
        view=tf.constant(7, tf.int64),
        samples=tf.range(500, 750, dtype=tf.int64),  # the rows of shards 0 and 1 come before
    )
    expected = vgg16_base(pictures).numpy()
    # A small feature is what is left of large terms: rounding is as large as theirs. Computed in
    # float64, the features are as far from these (1.1e-6 of the largest) as from those expected.
    assert expected.max() > 100
    np.testing.assert_allclose(shard.inputs, expected, rtol=1e-4, atol=2e-6 * expected.max())


def test_features_of_the_mirror_image_are_those_of_the_flipped_images(
    opened: Open, small_base: keras.Model, sample_store: Store, index: Index
) -> None:
    shard = opened().load("test", MIRRORED, 1)
    rows = shard_rows(sample_store, index, "test", 1)
    expected = small_base(tf.constant(rows["image"][:, :, ::-1], tf.float32)).numpy()
    np.testing.assert_allclose(shard.inputs, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(shard.labels, rows["label"])
    assert not np.allclose(opened().load("test", PLAIN, 1).inputs, expected, rtol=1e-2)


def test_the_seed_changes_the_views_and_not_the_plain_features(
    opened: Open, store: Watched
) -> None:
    other = FeatureKey("index", "small", "raw", SEED + 1, "small", (32, 32, 3))
    one, two = opened(), opened(key=other)
    assert not np.array_equal(one.load("train", 1, 0).inputs, two.load("train", 1, 0).inputs)
    np.testing.assert_array_equal(
        one.load("train", PLAIN, 0).inputs, two.load("train", PLAIN, 0).inputs
    )
    assert len(store.computed) == 3


# Once


def test_two_experiments_at_the_same_time_compute_each_shard_of_a_view_once(
    opened: Open, store: Watched
) -> None:
    workers = [opened(), opened()]
    start = threading.Barrier(8)

    def read(number: int) -> list[np.ndarray]:
        start.wait(60)
        return [workers[number % 2].load("train", 3, shard).inputs for shard in range(4)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read, range(8)))
    assert sorted(store.computed) == sorted(set(store.computed))
    assert len(store.computed) == 4
    for result in results[1:]:
        for ours, theirs in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert found(store, ".claim") == []


def test_on_s3_as_well_each_shard_is_computed_once(opened: Open, s3_url: str) -> None:
    bucket = open_store(s3_url, create=True)
    computed = []
    put = bucket.put

    def counted(key: str, data: bytes | Path) -> None:
        if key.endswith(".npy"):
            computed.append(key)
        put(key, data)

    bucket.put = counted  # type: ignore[method-assign]
    workers = [opened(features=bucket), opened(features=bucket)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: workers[n % 2].load("train", 3, n // 2).inputs, range(4)))
    assert len(computed) == 2
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[2], results[3])


def test_a_later_run_finds_them(opened: Open, store: Watched) -> None:
    first = opened().load("valid", PLAIN, 0)
    later = opened(features=open_store(store.url), base=small(2))
    np.testing.assert_array_equal(first.inputs, later.load("valid", PLAIN, 0).inputs)
    # 750 rows of the other shards, and another view.
    assert later.missing_bytes([("valid", PLAIN)]) == 4 * 512 * 750
    assert later.missing_bytes([("valid", PLAIN), ("train", 1)]) == 4 * 512 * 1750


def test_who_comes_second_waits_for_the_first_and_does_not_compute(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "POLL_SECONDS", 0.001)
    claimed, refused, go_on = threading.Event(), threading.Event(), threading.Event()

    def before_put(_: str) -> None:
        claimed.set()
        assert go_on.wait(60)

    store.before_put = before_put
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(opened().load, "train", 1, 0)
        assert claimed.wait(60)
        store.before_claim = lambda _: refused.set()
        second = pool.submit(opened().load, "train", 1, 0)
        assert refused.wait(60)
        assert not second.done()
        go_on.set()
        np.testing.assert_array_equal(first.result(60).inputs, second.result(60).inputs)
    assert len(store.computed) == 1


def test_what_was_finished_between_a_look_and_a_claim_is_not_computed_again(
    opened: Open, store: Watched
) -> None:
    def another_one_finishes(_: str) -> None:
        store.before_claim = lambda _: None
        opened().load("train", 1, 0)

    store.before_claim = another_one_finishes
    opened().load("train", 1, 0)
    assert len(store.computed) == 1


def test_the_worker_that_computes_features_notes_how_long_it_took(
    opened: Open, store: Watched
) -> None:
    first, second = opened(), opened()
    store.before_put = lambda _: time.sleep(0.01)
    for worker in (first, second):
        worker.load("train", 1, 0)
        worker.load("train", 2, 0)
        worker.load("valid", PLAIN, 0)
    assert list(first.seconds) == list(second.seconds)
    names = [group.partition("/")[2] for group, seconds in first.seconds.items() if seconds]
    assert names == ["train/views", "valid/plain"]
    assert sorted(filter(None, map(str, second.seconds.values()))) == ["0.0"] * 2 + ["None"] * 3


def test_an_error_in_the_middle_leaves_no_claim(opened: Open, store: Watched) -> None:
    def full(key: str) -> None:
        raise UserError(f"{key}: the disk is full")

    store.before_put = full
    with pytest.raises(UserError, match="the disk is full"):
        opened().load("train", 1, 0)
    assert list(store.list()) == []


def test_the_claim_of_a_dead_worker_is_taken_over(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened().load("train", 1, 0).inputs.copy()
    (small_file,) = found(store, ".json")
    store.delete(small_file)
    store.put(small_file.replace(".json", ".claim"), b"")
    monkeypatch.setattr(features, "CLAIM_SECONDS", 0.05)
    monkeypatch.setattr(features, "POLL_SECONDS", 0.01)
    np.testing.assert_array_equal(opened().load("train", 1, 0).inputs, expected)
    assert found(store, ".claim") == []


def test_an_attempt_does_not_wait_for_what_an_earlier_one_was_killed_at(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = CLAIM.model_copy(update={"images": 256})
    place = (
        f"{FeatureKey('index', 'small', 'raw', SEED, 'small', (32, 32, 3)).place('train', 1)}/00000"
    )
    store.put(f"{place}.claim", killed.model_dump_json().encode())
    monkeypatch.setattr(features, "CLAIM_SECONDS", 1e9)
    opened(claim=CLAIM.model_copy(update={"attempt": 3})).load("train", 1, 0)
    assert len(store.computed) == 1
    assert found(store, ".claim") == []


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ('{"training":"runs/first/frozen","attempt":1,"images":256}', True),
        ('{"training":"runs/first/frozen","attempt":2,"images":256}', False),
        ('{"training":"runs/first/frozen","attempt":3,"images":0}', False),
        ('{"training":"runs/first/augmented","attempt":1,"images":0}', False),
        ("", False),
    ],
    ids=["earlier", "the same", "later", "another training", "cut short"],
)
def test_only_an_earlier_attempt_of_the_same_training_is_known_to_be_dead(
    content: str, left: bool
) -> None:
    assert CLAIM.left_by(content.encode()) == left
    assert not CLAIM.left_by(None)


def test_a_claim_that_its_owner_renews_is_respected_however_long_it_takes(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CLAIM_SECONDS", 3.0)
    monkeypatch.setattr(features, "POLL_SECONDS", 0.01)

    def before_put(_: str) -> None:
        time.sleep(0.3)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(opened(batch=10).load, "train", 1, 0)
        store.before_put = before_put
        while not found(store, ".claim"):
            time.sleep(0.01)
        began = time.monotonic()
        second = pool.submit(opened(batch=10).load, "train", 1, 0)
        np.testing.assert_array_equal(first.result(60).inputs, second.result(60).inputs)
    assert time.monotonic() - began > 2 * features.CLAIM_SECONDS
    assert len(store.computed) == 1


def test_writers_at_the_same_time_cannot_harm_each_other(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Claims do not hold, and each writer's features differ, as on another kind of processor.
    monkeypatch.setattr(features, "CLAIM_SECONDS", 0.0)
    monkeypatch.setattr(features, "POLL_SECONDS", 0.0)
    bases = [small(seed) for seed in range(4)]
    expected = []
    for number, base in enumerate(bases):
        alone = opened(base=base, features=open_store(f"{store.url}/{number}", create=True))
        expected.append(alone.load("train", 1, 0).inputs.tobytes())
    start = threading.Barrier(4)

    def read(base: keras.Model) -> np.ndarray:
        worker = opened(base=base)
        start.wait(60)
        return worker.load("train", 1, 0).inputs

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, bases))
    for result in results:
        assert result.tobytes() in expected
    # From here on there is one truth.
    last = [opened(base=base).load("train", 1, 0).inputs for base in bases]
    for ours in last:
        np.testing.assert_array_equal(ours, results[-1])


# Damage


def damaged(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


DAMAGE: dict[str, Callable[[Store, str, str], None]] = {
    "a bit of the features flipped": lambda s, npy, _: s.put(npy, damaged(s.get(npy))),
    "the features cut short": lambda s, npy, _: s.put(npy, s.get(npy)[:-1]),
    "the features empty": lambda s, npy, _: s.put(npy, b""),
    "the features gone": lambda s, npy, _: s.delete(npy),
    "the small file empty": lambda s, _, small: s.put(small, b""),
    "the small file cut short": lambda s, _, small: s.put(small, s.get(small)[:40]),
    "the small file of another size": lambda s, _, small: s.put(
        small, s.get(small).replace(b'"bytes":', b'"bytes":1')
    ),
    "the small file of another content": lambda s, _, small: s.put(
        small, b'{"sha256":"../../../elsewhere","bytes":1}'
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_shard_computed_again(
    opened: Open, store: Watched, kind: str
) -> None:
    expected = opened().load("train", 1, 0).inputs.copy()
    (npy,), (small_file,) = found(store, ".npy"), found(store, ".json")
    whole = store.get(npy), store.get(small_file)
    DAMAGE[kind](store, npy, small_file)
    store.computed.clear()
    np.testing.assert_array_equal(opened().load("train", 1, 0).inputs, expected)
    assert len(store.computed) == 1
    assert (store.get(npy), store.get(small_file)) == whole
    assert found(store, ".claim") == []


def test_features_that_cannot_be_read_back_end_in_an_error(
    opened: Open, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.put

    def lossy(key: str, data: bytes | Path) -> None:
        assert isinstance(data, bytes)
        put(key, damaged(data) if key.endswith(".npy") else data)

    monkeypatch.setattr(store, "put", lossy)
    with pytest.raises(UserError, match=r"cannot be read back, 3 times in a row"):
        opened().load("train", 1, 0)
    assert len(store.computed) == 3
    assert store.list() == []


def test_a_damaged_shard_of_images_is_never_made_into_features(
    opened: Open, sample_store: Store, index: Index, tmp_path: Path, store: Watched
) -> None:
    images = open_store(str(tmp_path / "images"), create=True)
    info = index.shards("train")[0]
    images.put(info.key, damaged(sample_store.get(info.key)))
    with pytest.raises(CorruptObject, match=info.key):
        opened(images=images).load("train", 1, 0)
    assert store.computed == []


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


def header(content: bytes) -> bytes:
    """An `.npy` file with this header and no data."""
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


def with_one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(features: np.ndarray) -> np.ndarray:
        changed = features.copy()
        changed[17, 5] = value
        return changed

    return change


FORGED: dict[str, Callable[[np.ndarray], bytes]] = {
    "float64": lambda right: npy(right.astype(np.float64)),
    "integers": lambda right: npy(right.astype(np.int8)),
    "text": lambda right: npy(right.astype("U3")),
    "objects": lambda right: npy(right.astype(object)),
    "big-endian": lambda right: npy(right.astype(">f4")),
    "fewer features": lambda right: npy(right[:, :100]),
    "fewer rows": lambda right: npy(right[:-1]),
    "another rank": lambda right: npy(right[..., None]),
    "one NaN": lambda right: npy(with_one(np.nan)(right)),
    "one infinity": lambda right: npy(with_one(-np.inf)(right)),
    "an archive of arrays": npz,
    "nothing": lambda _: b"",
    "something else": lambda _: b"junk" * 99,
    "cut short": lambda right: npy(right)[:-10],
    "a header that ends in a string": lambda _: header(b"{'descr': '''<f4"),
    "a header of brackets": lambda _: header(b"(" * 900),
    "a header of another type": lambda _: header(b"{'descr': 1, 'fortran_order': 2, 'shape': 3}"),
    "more rows than a file can have": lambda _: header(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 512), }"
    ),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_another_user_put_there_with_its_right_hash_is_computed_again(
    opened: Open, store: Watched, kind: str
) -> None:
    expected = opened().load("train", 1, 0).inputs.copy()
    (right,), (small_file,) = found(store, ".npy"), found(store, ".json")
    content = FORGED[kind](expected)
    sha256 = hashlib.sha256(content).hexdigest()
    forged = f"{right.rpartition('-')[0]}-{sha256}.npy"
    store.put(forged, content)
    store.put(small_file, f'{{"sha256":"{sha256}","bytes":{len(content)}}}'.encode())
    store.computed.clear()
    np.testing.assert_array_equal(opened().load("train", 1, 0).inputs, expected)
    assert len(store.computed) == 1
    assert found(store, ".npy") == [right]


def test_a_base_that_gives_no_finite_numbers_ends_in_an_error(opened: Open) -> None:
    broken = small(1)
    broken.layers[-1].bias.assign(np.full(512, np.nan, np.float32))
    with pytest.raises(UserError, match="check that the base gives finite numbers"):
        opened(base=broken).load("train", 1, 0)
