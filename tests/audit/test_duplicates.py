"""An audit finds what is planted in real images, and nothing else that was not there before."""

import html
import io
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.audit import main
from tlcluster.audit import search
from tlcluster.audit.descriptors import Descriptors, describe
from tlcluster.audit.find import find_duplicates
from tlcluster.audit.likeness import SHIFT, averages, distances, reduced
from tlcluster.audit.search import candidates, similarity
from tlcluster.audit.write import write_audit
from tlcluster.cinic10 import CLASSES
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.shards import (
    INDEX_KEY,
    Index,
    ShardInfo,
    encode,
    index_sha256,
    read_index,
    row_dtype,
)
from tlcluster.errors import UserError
from tlcluster.leakage import AUDIT, BOUND, PAGE, Audit
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

Image = np.ndarray


def jpeg(image: Image, quality: int) -> Image:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(buffer))


def cropped(image: Image) -> Image:
    """One pixel less at each side, and large again."""
    size = image.shape[1], image.shape[0]
    inner = PIL.Image.fromarray(np.ascontiguousarray(image[1:-1, 1:-1]))
    return np.asarray(inner.resize(size, PIL.Image.Resampling.BICUBIC))


CHANGES: Mapping[str, Callable[[Image], Image]] = {
    "exact": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "shifted": lambda image: np.roll(image, (1, -1), (0, 1)),
    "brighter": lambda image: np.clip(image * 1.2 + 20, 0, 255).astype(np.uint8),
    "recompressed": lambda image: jpeg(image, 60),
    "cropped": cropped,
    "cast": lambda image: np.clip(image * [0.9, 1, 1.1] + [20, 0, -15], 0, 255).astype(np.uint8),
    "mirrored, shifted and recompressed": lambda image: jpeg(np.roll(image[:, ::-1], 1, 1), 75),
}


class Planted(NamedTuple):
    """A store whose test split has altered images of the train split, audited."""

    store: Store
    audit: Audit
    before: frozenset[str]
    """Test images that the sample itself has in another split."""


@pytest.fixture(scope="module")
def planted(small_cinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """600 images of the sample, with three more that are altered in each way."""
    plain, other = (
        open_store(str(tmp_path_factory.mktemp(name)), create=True) for name in ("plain", "other")
    )
    ingest(str(small_cinic), plain, processes=1)
    before = write_audit(plain, plain, BOUND)
    folder = tmp_path_factory.mktemp("planted") / "sample"
    shutil.copytree(small_cinic, folder)
    for place, (change, alter) in enumerate(CHANGES.items()):
        for number in range(3):
            images = sorted((folder / "train" / CLASSES[(place + 4 * number) % 10]).iterdir())
            image = np.asarray(PIL.Image.open(images[5 * number + place]).convert("RGB"))
            name = f"{change.replace(' ', '-')}-{number}-of-{images[5 * number + place].name}"
            # In another class, too: what counts is what an image shows.
            target = folder / "test" / CLASSES[number] / Path(name).with_suffix(".png")
            PIL.Image.fromarray(alter(image)).save(target)
    ingest(str(folder), other, processes=1)
    found = write_audit(other, other, BOUND)
    return Planted(other, found, frozenset(one.source for one in before.duplicates["test"]))


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_image_is_found_with_its_original(planted: Planted, change: str) -> None:
    begin = f"{change.replace(' ', '-')}-"
    found = [one for one in planted.audit.duplicates["test"] if one.source.startswith(begin)]
    assert len(found) == 3
    for one in found:
        original = one.source.rpartition("-of-")[2]
        assert (one.partner_split, Path(one.partner_source).stem) == ("train", Path(original).stem)
        assert one.exact == (change == "exact")
        assert (one.distance == 0) == (change in ("exact", "mirrored"))


def test_no_other_image_is_found_that_was_not_there_before(planted: Planted) -> None:
    added = tuple(f"{change.replace(' ', '-')}-" for change in CHANGES)
    found = [one.source for one in planted.audit.duplicates["test"]]
    assert {source for source in found if not source.startswith(added)} == planted.before
    # Of 200: the sample is a small part of CINIC-10.
    assert len(planted.before) < 5


def test_the_counts_are_those_of_the_list(planted: Planted) -> None:
    audit = planted.audit
    assert [(one.split, one.other) for one in audit.overlaps] == [
        ("test", "train"), ("test", "valid"), ("valid", "train"),
    ]  # fmt: skip
    in_train, in_valid, of_valid = audit.overlaps
    found = audit.duplicates["test"]
    assert in_train.exact >= 3
    assert len(found) <= sum(one.exact + one.near for one in (in_train, in_valid))
    assert len(audit.duplicates["valid"]) == of_valid.exact + of_valid.near
    for one in audit.overlaps:
        assert sum(one.by_class.values()) == sum(one.by_origin.values()) == one.exact + one.near
    rows = [one.row for one in found]
    assert rows == sorted(set(rows))


def test_an_audit_is_read_back_and_made_again_to_the_byte(planted: Planted) -> None:
    content = planted.store.get(AUDIT)
    assert Audit.model_validate_json(content) == planted.audit
    index, sha256 = read_index(planted.store)
    assert find_duplicates(planted.store, index, sha256, BOUND, False).audit.to_json() == content


def test_the_page_shows_the_pairs_and_refers_to_nothing_outside(planted: Planted) -> None:
    page = planted.store.get(PAGE).decode()
    for title in ("Same pixels", "Surest near duplicates", "Just within the bound"):
        assert f"<h2>{title}</h2>" in page
    assert set(re.findall(r'src="(.{15})', page)) == {"data:image/png;"}
    assert "://" not in page
    shown = html.unescape(page)
    assert any(one.source in shown for one in planted.audit.duplicates["test"] if one.exact)


def test_the_command_writes_elsewhere_and_leaves_the_store_as_it_is(
    tiny_cinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    ingest(str(tiny_cinic), store, processes=1)
    keys = store.list()
    assert main(["--store", store.url, "--to", str(tmp_path / "there")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{tmp_path}/there/{PAGE}"
    assert re.match(r"test: \d of 30 images \([\d.]+ %\) are in train or valid too: ", lines[0])
    assert store.list() == keys
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [PAGE, AUDIT]
    audit = Audit.model_validate_json((tmp_path / "there" / AUDIT).read_bytes())
    assert audit.index_sha256 == index_sha256(store.get(INDEX_KEY))


def test_a_wrong_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for arguments, said in (
        (["--store", str(tmp_path / "empty")], "has no index.json, so no data set was ingested"),
        (["--store", str(tmp_path / "none")], "no such directory; check the path"),
        (["--store", "embedded"], "the embedded store ends with the run that starts it"),
        (["--store", str(tmp_path), "--bound", "1.5"], "--bound 1.5: "),
        (["--store", str(tmp_path), "--bound", "nan"], "--bound nan: "),
    ):
        with pytest.raises(UserError) as caught:
            main(arguments)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


# Data sets that nobody ingested


def store_of(
    folder: Path, splits: Mapping[str, list[Image]], name: str = "image.png", label: str = "thing"
) -> Store:
    """A store with these images."""
    store = open_store(str(folder), create=True)
    shape = next(iter(splits.values()))[0].shape
    infos = {}
    for split, images in splits.items():
        rows = np.zeros(len(images), row_dtype(len(name.encode()), shape))
        rows["image"], rows["source"] = images, name.encode()
        content = encode(rows)
        key = f"{split}/0.npy"
        store.put(key, content)
        digest = index_sha256(content)
        infos[split] = (ShardInfo(key=key, rows=len(images), bytes=len(content), sha256=digest),)
    index = Index(dataset="made", classes=(label, "other"), image_shape=shape, splits=infos)
    store.put(INDEX_KEY, index.to_json())
    return store


def noise(seed: int, side: int = 32) -> Image:
    """A picture with details of several sizes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    size = (side, side)
    return np.asarray(PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC))


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    store = store_of(
        tmp_path, {"train": [noise(1)], "test": [noise(1), noise(2)]}, HOSTILE, HOSTILE
    )
    audit = write_audit(store, store, BOUND)
    (found,) = audit.duplicates["test"]
    assert (found.source, found.exact) == (HOSTILE, True)
    page = store.get(PAGE).decode()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "{{7*7}}" in page


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"train": [noise(1)], "test": [noise(1)]})
    index, _ = read_index(store)
    (info,) = index.shards("test")
    content = store.get(info.key).replace(b"image.png", b"imag\xff.png")
    store.put(info.key, content)
    bad = info.model_copy(update={"sha256": index_sha256(content)})
    changed = index.model_copy(update={"splits": {**index.splits, "test": (bad,)}})
    store.put(INDEX_KEY, changed.to_json())
    with pytest.raises(UserError, match="file name that is not UTF-8"):
        write_audit(store, store, BOUND)


def test_a_damaged_shard_ends_an_audit_and_nothing_is_written(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"train": [noise(1)], "test": [noise(1)]})
    store.put("test/0.npy", store.get("test/0.npy")[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        write_audit(store, store, BOUND)
    assert not {PAGE, AUDIT} & {item.key for item in store.list()}


def test_a_data_set_without_a_test_split_has_an_audit_too(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"train": [noise(1)], "valid": [noise(1), noise(2)]})
    audit = write_audit(store, store, BOUND)
    assert [one.row for one in audit.duplicates["valid"]] == [0]
    alone = store_of(tmp_path / "alone", {"train": [noise(1), noise(1)]})
    assert write_audit(alone, alone, BOUND).overlaps == ()


def test_images_without_contrast_are_alike_only_if_they_are_equal(tmp_path: Path) -> None:
    grey, white = (np.full((32, 32, 3), level, np.uint8) for level in (127, 255))
    faint = grey.copy()
    faint[::2, ::2] += 1
    store = store_of(tmp_path, {"train": [grey], "test": [grey, white, faint]})
    audit = write_audit(store, store, BOUND)
    assert [(one.row, one.exact) for one in audit.duplicates["test"]] == [(0, True)]


@pytest.mark.parametrize("side", [1, 7])
def test_images_too_small_to_compare_are_one_line(tmp_path: Path, side: int) -> None:
    image = np.zeros((side, 32, 3), np.uint8)
    store = store_of(tmp_path, {"train": [image], "test": [image]})
    with pytest.raises(UserError, match=f"its images are 32×{side} with 3 channels; "):
        write_audit(store, store, BOUND)


def test_a_thousand_equal_images_are_not_a_million_pairs(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"train": [noise(1)] * 1000, "test": [noise(1)] * 1000})
    audit = write_audit(store, store, BOUND)
    assert {one.partner_row for one in audit.duplicates["test"]} == {0}
    assert audit.overlaps[0].exact == 1000
    assert audit.repeated == {"train": 999, "test": 999}


def test_large_images_are_compared_in_a_smaller_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = noise(1, side=96)
    grainy = np.clip(large + rng.normal(0, 12, large.shape), 0, 255).astype(np.uint8)
    store = store_of(tmp_path, {"train": [large], "test": [grainy, noise(2, side=96)]})
    assert [one.row for one in write_audit(store, store, BOUND).duplicates["test"]] == [0]


# The parts


def test_a_distance_has_no_direction_and_does_not_see_a_mirror() -> None:
    images = np.stack([noise(seed) for seed in range(6)])
    left, right = np.triu_indices(6)
    there = distances(images, images, left, right, lambda _: None)
    back = distances(images, images, right, left, lambda _: None)
    mirrored = distances(images, images[:, :, ::-1], left, right, lambda _: None)
    np.testing.assert_allclose(there, back, atol=1e-5)
    np.testing.assert_allclose(there, mirrored, atol=1e-5)
    assert (there[left == right] < 1e-5).all()
    assert (there[left != right] > 2 * BOUND).all()


@given(st.integers(-SHIFT, SHIFT), st.integers(-SHIFT, SHIFT), st.integers(0, 50))
def test_a_shift_within_the_range_is_a_small_distance(down: int, right: int, seed: int) -> None:
    whole = noise(seed, side=40)
    first = whole[4:36, 4:36]
    second = whole[4 + down : 36 + down, 4 + right : 36 + right]
    zero = np.array([0])
    found = distances(first[np.newaxis], second[np.newaxis], zero, zero, lambda _: None)
    # Not 0: at the edges, what lies around differs.
    assert found[0] < BOUND / 2


def test_one_product_of_each_half_compares_with_the_mirror_image_too() -> None:
    images = np.stack([noise(seed) for seed in range(5)])
    plain, mirrored = describe(images), describe(images[:, :, ::-1])
    np.testing.assert_allclose(plain.even, mirrored.even, atol=1e-4)
    np.testing.assert_allclose(plain.odd, -mirrored.odd, atol=1e-4)
    np.testing.assert_allclose(similarity(plain, plain), similarity(plain, mirrored), atol=1e-4)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.floats(0.01, 0.9),
    st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_candidates_are_the_most_similar_whatever_the_blocks(
    many: int, others: int, most: int, least: float, block: int, wide: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> Descriptors:
        whole = rng.normal(size=(count, 6)).astype(np.float32)
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)
        return Descriptors(whole[:, :3], whole[:, 3:])

    a, b = some(many), some(others)
    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "QUERIES", block)
        patch.setattr(search, "OTHERS", wide)
        found = candidates(a, b, least=least, most=most, advance=done.append)
    assert sum(done) == many
    every = similarity(a, b)
    for query in range(many):
        expected = [
            other for other in np.argsort(-every[query], kind="stable")[:most]
            if every[query, other] > least
        ]  # fmt: skip
        ours = found.other[found.query == query]
        np.testing.assert_allclose(every[query, ours], every[query, expected], atol=1e-6)


@given(st.integers(1, 200), st.integers(1, 32))
def test_averages_keep_the_mean(size: int, count: int) -> None:
    weights = averages(size, min(size, count))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert weights.min() >= 0


def test_small_images_are_not_reduced() -> None:
    images = np.stack([noise(1), noise(2)])
    assert reduced(images) is images
    assert reduced(np.stack([noise(1, side=100)])).shape == (1, 32, 32, 3)
