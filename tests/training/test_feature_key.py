"""Feature keys: another place for whatever features depend on, and for nothing else."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tlcluster.storage.open import open_store
from tlcluster.training.feature_key import MIRRORED, PLAIN, FeatureKey, delete_view, view_of

keys = st.builds(
    FeatureKey,
    index_sha256=st.sampled_from(["a" * 64, "b" * 64]),
    weights=st.sampled_from(["c" * 64, "random-1", "random-2"]),
    preprocess=st.sampled_from(["raw", "vgg16"]),
    seed=st.integers(0, 3),
    base=st.sampled_from(["vgg16", "vgg19"]),
    image_shape=st.sampled_from([(32, 32, 3), (32, 48, 3)]),
    upsampled=st.sampled_from(["", "64 bicubic", "64 bilinear"]),
    taps=st.sampled_from(["last", "block4", "block3,block4", ""]),
    augmentation=st.sampled_from(["study", "strong"]),
    precision=st.sampled_from(["float32", "bfloat16"]),
    end=st.sampled_from(["last", "block4", "block5"]),
)
"""Few values of each part, so that two keys often differ in one part only."""

splits = st.sampled_from(["train", "valid", "test"])
augmented_views = st.integers(1, 3)
views = st.integers(PLAIN, 3)


@given(one=st.tuples(keys, splits, augmented_views), other=st.tuples(keys, splits, augmented_views))
def test_two_keys_share_a_place_only_if_they_are_equal(
    one: tuple[FeatureKey, str, int], other: tuple[FeatureKey, str, int]
) -> None:
    assert (one[0].place(*one[1:]) == other[0].place(*other[1:])) == (one == other)


@given(
    key=keys, split=splits, seed=st.integers(0, 3), how=st.sampled_from(["study", "flip-and-shift"])
)
def test_plain_images_do_not_depend_on_how_views_are_made(
    key: FeatureKey, split: str, seed: int, how: str
) -> None:
    other = key._replace(seed=seed, augmentation=how)
    assert key.place(split, PLAIN) == other.place(split, PLAIN)
    assert key.place(split, MIRRORED) == other.place(split, MIRRORED)
    assert (key.place(split, 1) == other.place(split, 1)) == (other == key)


@given(key=keys, split=splits, view=augmented_views)
def test_an_augmented_view_is_never_taken_for_the_plain_one(
    key: FeatureKey, split: str, view: int
) -> None:
    assert len({key.place(split, one) for one in (view, PLAIN, MIRRORED)}) == 3


@given(key=keys, split=splits, view=st.integers(0, 10**7))
def test_no_place_lies_inside_another(key: FeatureKey, split: str, view: int) -> None:
    assert not f"{key.place(split, view)}/".startswith(f"{key.place(split, view // 10)}/") or (
        view == view // 10
    )


def test_the_place_never_changes_silently() -> None:
    key = FeatureKey("a" * 64, "b" * 64, "raw", 524, "vgg16", (32, 32, 3))
    assert key.place("train", 3) == "features/6ad68be73d48fa6beeb53aaf335ebe08/train/00003"
    assert key.place("test", PLAIN) == "features/b62f4e54e38ea4afd7c8cfe3c46096e3/test/00000"


def test_features_of_another_precision_lie_elsewhere_and_those_of_float32_where_they_were() -> None:
    key = FeatureKey("a" * 64, "b" * 64, "raw", 524, "vgg16", (32, 32, 3), precision="float32")
    assert key.place("train", 3) == "features/6ad68be73d48fa6beeb53aaf335ebe08/train/00003"
    assert key._replace(precision="bfloat16").place("train", 3) != key.place("train", 3)


def test_an_epoch_shows_a_fresh_view_or_the_next_in_turn() -> None:
    assert [view_of(epoch, None) for epoch in (1, 2, 300)] == [1, 2, 300]
    assert [view_of(epoch, 3) for epoch in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]
    assert [view_of(epoch, 1) for epoch in (1, 2, 9)] == [1, 1, 1]


def test_deleting_a_view_leaves_all_others(tmp_path: Path) -> None:
    features = open_store(str(tmp_path))
    key = FeatureKey("a" * 64, "b" * 64, "raw", 524, "vgg16", (32, 32, 3))
    other = key._replace(preprocess="vgg16")
    kept = {
        f"{other.place('train', 1)}/00000.json",
        f"{key.place('train', 2)}/00000.json",
        f"{key.place('train', 10)}/00000.json",
        f"{key.place('train', PLAIN)}/00000.json",
        f"{key.place('valid', 1)}/00000.json",
    }
    for name in (*kept, *(f"{key.place('train', 1)}/{n:05d}.json" for n in range(3))):
        features.put(name, b"")
    delete_view(features, key, "train", 1)
    assert {found.key for found in features.list()} == kept


def test_a_view_is_deleted_in_every_precision_that_it_may_have(tmp_path: Path) -> None:
    features = open_store(str(tmp_path))
    key = FeatureKey("a" * 64, "b" * 64, "raw", 524, "vgg16", (32, 32, 3))
    half = key._replace(precision="bfloat16")
    for one in (key, half):
        for view in (1, 2):
            features.put(f"{one.place('train', view)}/00000.json", b"")
    delete_view(features, key, "train", 1, ("float32", "bfloat16"))
    assert {found.key for found in features.list()} == {
        f"{one.place('train', 2)}/00000.json" for one in (key, half)
    }
