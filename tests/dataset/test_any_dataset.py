"""Data sets other than CINIC-10: any classes, any sizes, with or without a validation split."""

import gzip
import io
import itertools
import json
import re
import shutil
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from photos import CLASSES, make_photos
from test_ingest import contents, rows_of, run_job

from tlcluster import cli
from tlcluster.cinic10 import CLASSES as CINIC_CLASSES
from tlcluster.cinic10 import ORIGINS, SPLITS
from tlcluster.dataset import archive as archive_module
from tlcluster.dataset import ingest as ingest_module
from tlcluster.dataset.arrange import Found, arrange, goes_to_valid
from tlcluster.dataset.decode import decode
from tlcluster.dataset.ingest import Outcome, ingest
from tlcluster.dataset.order import training_batches
from tlcluster.dataset.sample import sample
from tlcluster.dataset.shards import check_complete, read_index
from tlcluster.dataset.stage import rows_for
from tlcluster.dataset.stream import stream
from tlcluster.errors import UserError
from tlcluster.settings import IngestSettings
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

SMALL = {"train": 2, "valid": 1, "test": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def ingested(store: Store, tmp_path: Path) -> Callable[..., Outcome]:
    def run(source: Path | str, **options: object) -> Outcome:
        return ingest(str(source), store, processes=1, cache=tmp_path / "cache", **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def refusal(ingested: Callable[..., Outcome], store: Store) -> Callable[..., str]:
    def refuse(source: Path | str, **options: object) -> str:
        with pytest.raises(UserError) as caught:
            ingested(source, **options)
        assert store.list() == []
        assert str(caught.value).isprintable()
        return str(caught.value)

    return refuse


def same_size(folder: Path, size: tuple[int, int] = (48, 40), **options: object) -> Path:
    return make_photos(folder, sizes=[size], plain=True, **{"counts": SMALL, **options})  # type: ignore[arg-type]


# The index says what the data set is


def test_photographs_of_several_sizes_without_a_validation_split_are_taken(tmp_path: Path) -> None:
    """As people run it: the flags, the lines that are printed, and each picture in its class."""
    folder = make_photos(tmp_path / "pets", counts={"train": 20, "test": 4})
    job = run_job("--source", folder, "--store", tmp_path / "store", "--image-size", "48x40",
                  "--valid-fraction", 0.2, "--processes", 1)  # fmt: skip
    assert (job.returncode, job.stderr) == (0, "")
    assert job.stdout.startswith("pets: 7 classes, images of 48×40 pixels\n168 images in 3 shards,")
    store = open_store(str(tmp_path / "store"))
    index, _ = read_index(store)
    check_complete(store, index)
    assert (index.dataset, index.format) == ("pets", 1)
    assert index.classes == tuple(sorted(CLASSES))
    assert index.image_shape == (40, 48, 3)
    found = set()
    for split in SPLITS:
        rows = rows_of(store, split)
        assert set(rows["label"]) == set(range(7))
        assert set(rows["origin"]) == {ORIGINS.index("other")}
        for row in rows:
            class_name, name = index.classes[row["label"]], row["source"].decode()
            path = folder / ("test" if split == "test" else "train") / class_name / name
            found.add(path)
            expected = decode(path.read_bytes(), (48, 40), resize=True)
            assert (row["image"] == expected).all()
    assert found == {path for path in folder.rglob("*") if path.is_file()}


def test_a_hundred_classes_of_64_by_64_pixels_come_back_through_the_stream(
    tmp_path: Path, store: Store, ingested: Callable[..., Outcome]
) -> None:
    names = tuple(f"class-{number:03d}" for number in range(100))
    folder = same_size(tmp_path / "hundred", (64, 64), classes=names)
    index = ingested(folder).index
    assert (index.classes, index.image_shape, index.format) == (names, (64, 64, 3), 1)
    rows = rows_of(store, "train")
    assert rows["label"].dtype == np.uint8
    batches = list(
        stream(
            store, index, "train",
            training_batches(index.shard_rows("train"), seed=1, epoch=0, global_batch=32, rank=0,
                             world_size=1),
        )
    )  # fmt: skip
    labels = np.concatenate([batch.labels for batch in batches])
    assert sorted(labels) == sorted([*range(100), *range(100)])
    for batch in batches:
        assert (batch.inputs == rows["image"][batch.samples]).all()
        assert (batch.labels == rows["label"][batch.samples]).all()


def test_labels_of_more_than_256_classes_are_two_bytes_and_come_back_through_the_stream(
    tmp_path: Path, store: Store, ingested: Callable[..., Outcome]
) -> None:
    names = tuple(f"{number:03d}" for number in range(300))
    one = {"train": 1, "valid": 1, "test": 1}
    index = ingested(same_size(tmp_path / "x", (32, 32), classes=names, counts=one)).index
    assert (len(index.classes), index.format) == (300, 2)
    assert rows_of(store, "test")["label"].dtype == np.dtype("<u2")
    batches = stream(
        store, index, "test",
        training_batches(index.shard_rows("test"), seed=1, epoch=0, global_batch=64, rank=0,
                         world_size=1),
    )  # fmt: skip
    assert sorted(np.concatenate([batch.labels for batch in batches])) == list(range(300))


def test_the_bytes_do_not_depend_on_the_kind_of_source_or_the_names_of_its_splits(
    tmp_path: Path, pack_tar: Callable[..., Path]
) -> None:
    """macOS writes é as two characters, others as one; people write `Val` or `validation`."""
    folder = same_size(tmp_path / "data", classes=("café", "thé", "猫"))
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    decomposed = {
        unicodedata.normalize("NFD", name).replace("valid/", "Validation/"): data
        for name, data in files.items()
    }
    assert set(files) != set(decomposed)
    other = tmp_path / "other" / "data"
    for name, data in decomposed.items():
        path = other / name.replace("train/", "TRAIN/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    top = {f"around/{name.replace('valid/', 'val/')}": data for name, data in decomposed.items()}
    written = []
    for number, source in enumerate([folder, other, pack_tar("data.tar", top)]):
        store = open_store(str(tmp_path / f"store-{number}"), create=True)
        ingest(str(source), store, processes=1, cache=tmp_path / "cache")
        written.append(contents(store))
    assert written[1:] == written[:1] * 2


def test_cinic10_is_known_by_its_classes_and_file_names(
    tiny_cinic: Path, ingested: Callable[..., Outcome], store: Store
) -> None:
    """CIFAR-10 has the same classes, in the same size."""
    for number, path in enumerate(sorted(tiny_cinic.rglob("*.jpg"))):
        path.rename(path.with_name(f"{number}.jpg"))
    assert ingested(tiny_cinic).index.dataset == "tiny"
    assert set(rows_of(store, "train")["origin"]) == {ORIGINS.index("other")}


@pytest.mark.parametrize("options", [{"valid_fraction": 0.5}, {"image_size": (48, 48)}])
def test_an_edited_copy_of_cinic10_is_not_called_so(
    options: dict[str, object], tiny_cinic: Path, ingested: Callable[..., Outcome],
    refusal: Callable[..., str],
) -> None:  # fmt: skip
    if "valid_fraction" in options:
        shutil.rmtree(tiny_cinic / "valid")
        for split, class_name in itertools.product(("train", "test"), CINIC_CLASSES):
            first = min((tiny_cinic / split / class_name).iterdir())
            for number in range(20):
                shutil.copy(first, first.with_name(f"cifar-10-copy-{number}.jpg"))
    renamed = tiny_cinic.rename(tiny_cinic.with_name("CINIC-10"))
    assert refusal(renamed, **options, name="cinic-10").startswith(
        "--name cinic-10: this is not cinic-10 as published"
    )
    side = 48 if "image_size" in options else 32
    assert ingested(renamed, **options).index.dataset == f"CINIC-10-{side}x{side}"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("Übung 1", "Ubung-1"),
        ("My_Pets.v2", "My_Pets.v2"),
        ("猫", "dataset"),
        ("a\x1b[2Jb", "a-2Jb"),
    ],
)
def test_the_data_set_has_the_name_of_its_folder(
    folder: str, expected: str, tmp_path: Path, ingested: Callable[..., Outcome]
) -> None:
    assert ingested(same_size(tmp_path / folder, classes=("a", "b"))).index.dataset == expected


def test_the_data_set_has_the_name_of_its_archive_or_the_one_that_is_given(
    tmp_path: Path, ingested: Callable[..., Outcome]
) -> None:
    folder = same_size(tmp_path / "x", classes=("a", "b"))
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as archive:
        archive.add(folder, "x")
    assert ingested(tmp_path / "pets.tar.gz").index.dataset == "pets"
    with pytest.raises(UserError, match="holds another data set"):
        ingested(tmp_path / "pets.tar.gz", name="Cats and dogs")


def test_the_store_of_before_is_the_store_of_now(store: Store) -> None:
    """The sample's index, with the hashes of all its shards, as version 0.1.0 wrote it."""
    ingest(sample(), store, rows_per_shard=250, processes=1)
    assert read_index(store)[1] == (
        "0772402d28ec87fd1680199d729982c926b2e20b5a7edeea0c6c3dedeb4a4b54"
    )


# Classes and splits


def test_two_folders_of_one_split_or_class_are_refused(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x", classes=("a", "é"))
    shutil.copytree(folder / "valid", folder / "val")
    assert refusal(folder) == f"{folder}: 'val' and 'valid' are the same split; leave one"
    shutil.rmtree(folder / "val")
    shutil.copytree(folder / "test" / "é", folder / "test" / unicodedata.normalize("NFD", "é"))
    decomposed = unicodedata.normalize("NFD", "test/é")
    assert refusal(folder) == f"{folder}: '{decomposed}' and 'test/é' are the same class; leave one"


def test_a_data_set_has_2_to_1000_classes(tmp_path: Path, refusal: Callable[..., str]) -> None:
    one = same_size(tmp_path / "one", classes=("a",))
    assert refusal(one) == (
        f"{one}: 1 classes; a data set has 2 to 1,000, each a folder in every split"
    )
    names = [f"{split}/{number}/1.png" for split in SPLITS for number in range(1001)]
    with pytest.raises(UserError, match=r"^x: 1,001 classes; a data set has 2 to 1,000"):
        arrange("x", Path("x"), map(Found, names))


def test_a_class_may_have_the_name_of_a_split(
    tmp_path: Path, ingested: Callable[..., Outcome]
) -> None:
    folder = same_size(tmp_path / "vehicles", classes=("bus", "train", "test"))
    assert ingested(folder).index.classes == ("bus", "test", "train")


def test_a_link_without_a_target_is_named_wherever_it_is(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """As git-annex leaves them, if the content was not fetched."""
    folder = same_size(tmp_path / "x")
    for place in ("train/apple/a.png", "train/more", "val"):
        link = folder / place
        link.symlink_to("../.git/annex/objects/nowhere")
        shown = f"{place}/" if place == "val" else place
        assert refusal(folder) == (
            f"{folder}: '{shown}' is a link to '../.git/annex/objects/nowhere', which does not "
            "exist; fetch the files that the links stand for, or name the folder that holds them"
        )
        link.unlink()


# A validation split out of train


def test_without_a_validation_split_the_flag_is_named(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x", counts={"train": 2, "test": 1})
    (folder / "valid" / "apple").mkdir(parents=True)
    assert refusal(folder) == (
        f"{folder}: there is no image in 'valid', 'val' or 'validation'; give --valid-fraction 0.1 "
        "to take a tenth of 'train' as the validation split"
    )


def test_with_a_validation_split_the_flag_is_refused(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x")
    assert refusal(folder, valid_fraction=0.1) == (
        f"--valid-fraction 0.1: {folder} has a validation split of its own; leave the flag out, or "
        "move that split out of the data set"
    )


def test_a_class_of_which_nothing_would_be_left_is_named(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x", classes=("a", "b"), counts={"train": 3, "test": 1})
    for fraction, split in ((0.0001, "valid"), (0.9999, "train")):
        assert refusal(folder, valid_fraction=fraction) == (
            f"--valid-fraction {fraction}: of the 3 images of 'train/a', none would be in "
            f"'{split}'; give another fraction, add images, or make a folder 'valid'"
        )


Names = st.sets(st.integers(0, 10**6).map(lambda number: f"{number}.png"), min_size=1, max_size=60)


def parts(classes: dict[str, set[str]], fraction: float) -> dict[str, set[tuple[str, str]]]:
    """Split → (class, file name) of its images, after `--valid-fraction`."""
    paths = [f"train/{name}/{file}" for name, files in classes.items() for file in files]
    paths += [f"test/{name}/0.png" for name in classes]
    for name, files in classes.items():
        assume(len({goes_to_valid(name, file, fraction) for file in files}) == 2)
    source = arrange("x", Path("x"), map(Found, paths), fraction)
    return {
        split: {(source.classes[image.label], image.name) for image in images}
        for split, images in source.images.items()
    }


@settings(deadline=None)
@given(st.fixed_dictionaries({"a": Names, "猫": Names}), Names, st.sampled_from([0.1, 0.3, 0.5]))
def test_the_validation_split_is_disjoint_complete_and_stable_when_images_are_added(
    classes: dict[str, set[str]], added: set[str], fraction: float
) -> None:
    before = parts(classes, fraction)
    everything = {(name, file) for name, files in classes.items() for file in files}
    assert before["train"] | before["valid"] == everything
    assert not before["train"] & before["valid"]
    assert all(("a" in dict(before[split])) and ("猫" in dict(before[split])) for split in before)
    after = parts({**classes, "a": classes["a"] | added}, fraction)
    assert before["train"] <= after["train"]
    assert before["valid"] <= after["valid"]
    assert after["test"] == before["test"]


@given(st.text(max_size=20), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_larger_fraction_takes_what_a_smaller_one_takes(name: str, fraction: float) -> None:
    assert goes_to_valid("a", name, fraction) <= goes_to_valid("a", name, (fraction + 1) / 2)


def test_the_validation_split_has_about_the_fraction_and_stays_the_same_for_ever() -> None:
    taken = [number for number in range(10_000) if goes_to_valid("cat", f"{number}.png", 0.1)]
    assert 900 < len(taken) < 1100
    assert taken[:5] == [8, 10, 29, 30, 41]


# Sizes


def test_images_of_several_sizes_need_the_flag(tmp_path: Path, refusal: Callable[..., str]) -> None:
    folder = make_photos(tmp_path / "x", counts=SMALL, plain=True, sizes=[(64, 48), (60, 90)])
    assert refusal(folder) == (
        f"{folder}: images differ in size: 64×48 (21), 60×90 (7), for example "
        "'train/apple/photo-1.jpg' is 60×90; give --image-size 64 or --image-size WIDTHxHEIGHT to "
        "resize all of them"
    )


def test_of_many_sizes_the_most_frequent_are_named(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    sizes = [(40 + number, 40) for number in range(8)]
    counts = {"train": 8, "valid": 1, "test": 1}
    folder = make_photos(tmp_path / "x", counts=counts, plain=True, sizes=sizes)
    message = refusal(folder)
    assert re.search(r"differ in size: 40×40 \(21\), 41×40 \(7\), .* and 3 more sizes,", message)


def test_a_size_that_the_sample_missed_is_found_when_images_are_decoded(
    tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "_SURVEYED", 1)
    folder = same_size(tmp_path / "x")
    PIL.Image.new("RGB", (33, 32)).save(folder / "test" / "猫" / "odd.png")
    assert refusal(folder) == (
        f"{folder}: 1 of 29 images cannot be used: 'test/猫/odd.png' is 33×32, not 48×40 "
        "(--image-size resizes all); nothing was written, repair or remove them"
    )


@pytest.mark.parametrize("size", [(31, 40), (28, 28), (1025, 32)])
def test_images_too_small_or_large_to_be_taken_as_they_are_need_the_flag(
    size: tuple[int, int], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x", size, classes=("a", "b"))
    assert refusal(folder) == (
        f"{folder}: the images are {size[0]}×{size[1]}; a side has 32 to 1,024 pixels: "
        "give --image-size 64 or --image-size WIDTHxHEIGHT to resize all of them"
    )


def test_shards_of_larger_images_have_fewer_rows(
    tmp_path: Path, ingested: Callable[..., Outcome]
) -> None:
    assert [rows_for((side, side)) for side in (32, 64, 224, 1024)] == [2048, 512, 41, 16]
    folder = same_size(
        tmp_path / "x", (256, 256), classes=("a", "b"), counts={**SMALL, "train": 20}
    )
    assert [info.rows for info in ingested(folder).index.shards("train")] == [32, 8]


def test_a_shard_of_more_than_a_gigabyte_is_refused(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    folder = same_size(tmp_path / "x", (256, 256), classes=("a", "b"))
    assert re.fullmatch(
        r"--rows-per-shard 65536: a shard of images of 256×256 would have 12,\d+,\d+,\d+ bytes, at "
        r"most 1,073,741,824 are allowed; give at most 54\d\d",
        refusal(folder, rows_per_shard=65_536).replace("5,4", "54"),
    )


# Archives as a whole


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "FREE_BYTES", 2**22)


TOO_MUCH = (
    "unpacks to more than 4,194,304 bytes, too much for an archive of its size; if you expect "
    "that, unpack it yourself and name the folder"
)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("kind", ["tar.xz", "tar.gz", "zip"])
@pytest.mark.parametrize("name", ["train/cat/{}.png", "more/{}.bin"])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused_early(
    kind: str, name: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """3 MB may hold gigabytes of zeros, in images or in files beside them."""
    path = bomb(tmp_path, kind, name, 2**20, 6)
    assert path.stat().st_size < 40_000
    if (kind, name) == ("zip", "more/{}.bin"):  # in a zip, these are never unpacked
        assert "there is no folder 'train'" in refusal(path)
    else:
        assert refusal(path) == f"{path}: {TOO_MUCH}"


@pytest.mark.usefixtures("low_limit")
def test_what_follows_the_end_of_an_archive_counts_too(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(6 * 2**20)))
    assert refusal(path) == f"{path}: {TOO_MUCH}"


def bomb(folder: Path, kind: str, name: str, size: int, count: int) -> Path:
    path = folder / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for number in range(count):
                packed.writestr(name.format(number), bytes(size))
        return path
    with tarfile.open(path, f"w:{kind[4:]}") as archive:
        for number in range(count):
            info = tarfile.TarInfo(name.format(number))
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return path


def test_an_archive_of_images_that_fill_the_disk_is_refused_before_they_do(
    small_disk: Path, store: Store, pack_tar: Callable[..., Path]
) -> None:
    path = pack_tar("a.tar", {f"train/cat/{number}.png": noise(300_000) for number in range(9)})
    with pytest.raises(UserError) as caught:
        ingest(str(path), store, processes=1, cache=small_disk)
    assert re.fullmatch(
        rf"{small_disk}: the images of {path} take more than the 9\d\d,\d+ bytes that may be used "
        "of this disk; free some space or name another folder with --cache",
        str(caught.value),
    )


# What the job says


def test_a_wrong_flag_is_refused_with_what_is_allowed() -> None:
    side = "a side has 32 to 1024 pixels"
    form = "give the side of a square or WIDTHxHEIGHT, for example 64 or 48x40"
    for flag, value, why in (
        ("--image-size", "31", side),
        ("--image-size", "64x1025", side),
        ("--image-size", "64x", form),
        ("--image-size", "٦٤", form),
        ("--valid-fraction", "0", "input should be greater than 0"),
        ("--valid-fraction", "1", "input should be less than 1"),
        ("--name", "../x", "string should match pattern '^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$'"),
    ):
        with pytest.raises(UserError) as caught:
            parsed("--source", "x", "--store", "s", flag, value)
        assert str(caught.value) == f"{flag} {value}: {why}"


@pytest.mark.parametrize("text", ["48x40", "48×40", "48X40"])
def test_a_size_is_width_times_height(text: str) -> None:
    assert parsed("--source", "x", "--store", "s", "--image-size", text).size == (48, 40)
    assert parsed("--source", "x", "--store", "s", "--image-size", "64").size == (64, 64)
    assert parsed("--source", "x", "--store", "s").size is None


def parsed(*arguments: str) -> IngestSettings:
    return cli.parse(IngestSettings, "ingest.py", "", arguments)


def test_the_index_names_classes_of_every_script(
    tmp_path: Path, ingested: Callable[..., Outcome], store: Store
) -> None:
    """Persian needs a joiner that Python does not call printable."""
    ingested(same_size(tmp_path / "x"))
    stored = json.loads(store.get("index.json"))
    assert stored["classes"] == sorted(CLASSES)
    assert "گربه\u200cها" in stored["classes"]
    assert sys.getfilesystemencoding() == "utf-8"
