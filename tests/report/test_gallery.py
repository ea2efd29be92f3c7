"""Single test images: which are chosen, where their pictures come from, how the page shows them."""

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_run
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.report import main
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.pixels import images_of
from tlcluster.dataset.shards import read_index
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.records import PICTURES
from tlcluster.report import pictures, write
from tlcluster.report.metrics import Predictions
from tlcluster.report.mistakes import DISPUTED, MISTAKES, MOST_EXPERIMENTS, gallery
from tlcluster.report.page import render_page
from tlcluster.report.pictures import (
    LARGEST_SIDE,
    NOT_READ,
    Look,
    Pictures,
    from_png,
    gathered_pictures,
    kept_pictures,
    smaller,
    to_png,
    wrong_pictures,
)
from tlcluster.report.runs import read_run
from tlcluster.report.trained import Run
from tlcluster.storage.directory import DirectoryStore

FIGURES = fake_run.blank_figures(
    "frozen", "finetuned", of_each=("confusion", "architecture", "curves", "reliability")
)


def told(probabilities: Any, label: Sequence[int]) -> Predictions:
    source = np.array([f"{number}.png" for number in range(len(label))])
    return Predictions(source, np.array(label), np.array(probabilities, np.float32))


# Which images


def test_mistakes_are_in_the_order_of_their_confidence_and_equals_in_that_of_the_split() -> None:
    of = told([[0.2, 0.8], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.2, 0.8]], [0, 0, 0, 0, 0])
    found = gallery({"a": of}, [0, 1])
    assert [one.image for one in found.confident["a"]] == [2, 0, 4, 3]
    first = found.confident["a"][0]
    assert (first.source, first.true, first.said.predicted) == ("2.png", 0, 1)
    assert first.said.probability == pytest.approx(0.9)
    assert {position: one.image for position, one in found.by_class["a"].items()} == {0: 2}
    assert found.disputed == ()


def test_images_are_disputed_by_the_number_of_classes_then_by_how_sure_each_is() -> None:
    a = told(np.eye(3)[[0, 0, 0, 0]], [0, 0, 0, 0])
    b = told([[1, 0, 0], [0.4, 0.6, 0], [0, 1, 0], [0, 1, 0]], [0, 0, 0, 0])
    c = told([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]], [0, 0, 0, 0])
    found = gallery({"a": a, "b": b, "c": c}, []).disputed
    assert [one.image for one in found] == [3, 2, 1]
    assert [said.predicted for said in found[0].said] == [0, 1, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 4))
def test_what_is_listed_are_mistakes_and_none_that_is_not_listed_is_surer(
    seed: int, images: int, experiments: int
) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, images)
    tested = {
        f"e{number}": told(rng.dirichlet([0.5] * 4, images), label) for number in range(experiments)
    }
    found = gallery(tested, range(4))
    for name, of in tested.items():
        sure, said = of.probabilities.max(axis=1), of.probabilities.argmax(axis=1)
        wrong = set(np.flatnonzero(said != label))
        listed = [one.image for one in found.confident[name]]
        assert set(listed) <= wrong
        assert len(listed) == min(len(wrong), MISTAKES)
        assert all(sure[one] <= sure[listed[-1]] for one in wrong - set(listed))
        assert {int(label[number]) for number in wrong} == set(found.by_class[name])
    different = [
        len({int(of.probabilities[number].argmax()) for of in tested.values()})
        for number in range(images)
    ]
    shown = [different[one.image] for one in found.disputed]
    assert shown == sorted((n for n in different if n > 1), reverse=True)[:DISPUTED]


def test_of_many_experiments_the_page_shows_those_with_the_highest_accuracy() -> None:
    """Of two images, the first two experiments get none right."""
    label = [0, 0]
    bad, good = told([[0.1, 0.9], [0.1, 0.9]], label), told([[0.9, 0.1], [0.1, 0.9]], label)
    tested = {"w1": bad, "w2": bad, **{f"e{n}": good for n in range(MOST_EXPERIMENTS)}}
    found = gallery(tested, [0])
    assert found.shown == tuple(f"e{n}" for n in range(MOST_EXPERIMENTS))
    assert set(found.confident) == set(tested)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 7.0])
def test_what_is_no_probability_is_not_listed(wrong: float) -> None:
    of = told([[wrong, 0.5], [0.3, 0.7]], [1, 0])
    found = gallery({"a": of, "b": told([[0.1, 0.9], [0.9, 0.1]], [1, 0])}, [0, 1])
    assert [one.image for one in found.confident["a"]] == [1]
    assert [one.image for one in found.disputed] == [1]


def test_a_name_that_is_no_text_is_replaced() -> None:
    of = Predictions(np.array(["\ud800"]), np.array([0]), np.array([[0.1, 0.9]]))
    assert gallery({"a": of}, []).confident["a"][0].source == "?"


# Their pictures


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300))
def test_a_large_picture_is_made_smaller_and_keeps_its_colour(height: int, width: int) -> None:
    image = np.full((height, width, 3), (10, 200, 90), np.uint8)
    small = smaller(image)
    assert 0 < max(small.shape[:2]) <= LARGEST_SIDE
    assert (small == (10, 200, 90)).all()
    if max(height, width) <= LARGEST_SIDE:
        assert small.shape == image.shape


def test_a_picture_is_a_png_with_the_pixels_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 20, 3)).astype(np.uint8)
    png = to_png(image)
    with Image.open(io.BytesIO(base64.b64decode(png))) as opened:
        assert opened.format == "PNG"
        assert np.array_equal(np.asarray(opened), image)
    assert np.array_equal(from_png(png), image)
    assert from_png(png[:100]) is None


IMAGES = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """A run of two experiments, without a report."""
    store = DirectoryStore(tmp_path_factory.mktemp("gallery"))
    dataset = fake_run.manifest().dataset.model_copy(update={"splits": {"test": IMAGES}})
    fake_run.write_run(
        store, fake_run.manifest(experiments=("frozen", "finetuned"), dataset=dataset)
    )
    return store


@pytest.fixture
def read(whole: DirectoryStore) -> Run:
    return read_run(whole)


@pytest.fixture
def beside(tmp_path: Path) -> DirectoryStore:
    """Where pictures are kept."""
    return DirectoryStore(tmp_path)


LOOK = fake_run.look(IMAGES)


def never(_: Sequence[int]) -> Iterator[Any]:
    raise AssertionError("the data set was asked")


def test_pictures_are_read_once_and_kept_with_the_run(read: Run, beside: DirectoryStore) -> None:
    assert kept_pictures(beside, "", read) == Pictures({}, NOT_READ)
    found = gathered_pictures(beside, "", read, LOOK)
    assert sorted(found.png) == read.gallery.images
    assert found.lacking is None
    kept = beside.get(PICTURES)
    assert gathered_pictures(beside, "", read, never) == found
    assert kept_pictures(beside, "", read) == found
    assert beside.get(PICTURES) == kept
    assert list(wrong_pictures(found, LOOK)) == []


def away(numbers: Sequence[int]) -> Iterator[Any]:
    yield from LOOK(numbers[:3])
    raise StoreUnavailable("no route\nto host")


def missing(_: Sequence[int]) -> Iterator[Any]:
    raise UserError("test/0.npy: no such object")


def others(numbers: Sequence[int]) -> Iterator[Any]:
    for number, _, image in LOOK(numbers):
        yield number, "another.png", image


def grey(numbers: Sequence[int]) -> Iterator[Any]:
    for number, source, image in LOOK(numbers):
        yield number, source, image[:, :, :1]


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (away, "no route to host"),
        (missing, "test/0.npy: no such object"),
        (others, "the data set has others there"),
        (grey, "the data set has others there"),
    ],
)
def test_pictures_that_cannot_be_read_are_left_out_and_the_page_says_why(
    look: Look, why: str, read: Run, beside: DirectoryStore
) -> None:
    found = gathered_pictures(beside, "", read, look)
    assert len(found.png) == (3 if look is away else 0)
    assert found.lacking is not None
    assert why in found.lacking
    page = render_page(read, FIGURES, found)
    assert f"pictures could not be read: {why}" in page
    # With the data set at hand, only the others are asked for.
    again = gathered_pictures(beside, "", read, LOOK)
    assert (sorted(again.png), again.lacking) == (read.gallery.images, None)


def test_a_store_that_is_slow_costs_no_more_than_its_time(
    read: Run, beside: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SECONDS", -1.0)
    assert len(gathered_pictures(beside, "", read, LOOK).png) == 1


def changed(content: Any, **changes: Any) -> bytes:
    return json.dumps({**content, **changes}).encode()


HOSTILE = base64.b64encode(b"<svg onload='alert(1)'>").decode()


def test_a_file_of_pictures_that_somebody_wrote_cannot_break_the_page(
    read: Run, beside: DirectoryStore
) -> None:
    gathered_pictures(beside, "", read, LOOK)
    good = json.loads(beside.get(PICTURES))
    first = good["pictures"][0]
    for content in (
        b"torn",
        b"[]",
        b"\xff" * 9,
        changed(good, index_sha256="another"),
        changed(good, pictures=[{**first, "png": '" onerror="alert(1)'}]),
        changed(good, pictures=[{**first, "png": HOSTILE}]),
        changed(good, pictures=[{**first, "png": first["png"] + "AAAA" * 20_000}]),
        changed(good, pictures=[{**first, "source": "another.png"}]),
        changed(good, pictures=[{**first, "image": 10**9}]),
        changed(good, pictures=[], lacking="<script>alert(1)</script>"),
    ):
        beside.put(PICTURES, content)
        found = kept_pictures(beside, "", read)
        assert found.png == {}
        assert found.lacking
        assert gathered_pictures(beside, "", read, LOOK).lacking is None
    # That of the last one, whose reason is an attack.
    page = render_page(read, FIGURES, found)
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_picture_that_was_exchanged_is_found_by_whoever_has_the_data_set(
    read: Run, beside: DirectoryStore
) -> None:
    found = gathered_pictures(beside, "", read, LOOK)
    first, second, *_ = found.png
    swapped = found._replace(png={**found.png, first: found.png[second]})
    (said,) = wrong_pictures(swapped, LOOK)
    assert said.startswith(f"image {first} (")
    (lost,) = wrong_pictures(found, lambda numbers: LOOK(numbers[2:]))
    assert lost == "the data set lacks 2 of the images"


# The page


def test_the_page_shows_each_picture_where_it_belongs(read: Run, beside: DirectoryStore) -> None:
    found = gathered_pictures(beside, "", read, LOOK)
    page = render_page(read, FIGURES, found)
    shown = re.findall(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)" alt="([^"]+)"', page)
    occurrences = list(read.gallery.occurrences)
    assert page.count("<img") == len(shown) == len(occurrences)
    assert {png for png, _ in shown} == set(found.png.values())
    kilobytes = sum(len(found.png[one.image]) for one in occurrences) / 1000
    assert f"add {kilobytes:,.0f} kB to it" in page
    first = read.gallery.confident["frozen"][0]
    classes = read.manifest.dataset.classes
    assert shown[0] == (
        found.png[first.image],
        f"{classes[first.true]}, taken for {classes[first.said.predicted]}",
    )
    assert "<small>imagenet</small>" in page
    # Without pictures it says what to do, and names the files.
    page = render_page(read, FIGURES, Pictures({}, NOT_READ))
    assert "<img" not in page
    assert NOT_READ in page
    assert first.source in page


def test_the_share_of_mistakes_by_class_and_origin_is_on_the_page(read: Run) -> None:
    page = render_page(read, FIGURES)
    (table,) = re.findall(r"Mistakes by class and origin.*?</table>", page, re.DOTALL)[-1:]
    origins = [of for one in read.experiments if one.metrics for of in one.metrics.per_origin]
    for position, name in enumerate(read.manifest.dataset.classes):
        (row,) = re.findall(rf"<tr><th scope=\"row\"><bdi>{name}</bdi></th>(.*?)</tr>", table)
        cells = re.findall("<td>(.*?)</td>", row)
        images = [of.of_class[position] for of in origins]
        assert cells[:2] == [str(count) for count in images[:2]]
        assert cells[2:] == [
            f"{100 * of.wrong[position] / n:.1f}" if (n := of.of_class[position]) else ""
            for of in origins
        ]
    for one in read.experiments:
        assert one.metrics is not None
        wrong = sum(sum(of.wrong) for of in one.metrics.per_origin)
        assert wrong == round(IMAGES * (1 - one.metrics.accuracy))


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    fake_run.write_hostile_run(store)
    page = render_page(read_run(store), FIGURES)
    assert "<script" not in page
    assert "took for another class" in page


# From a data set


def test_images_are_read_by_their_number(small_cinic: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    ingest(str(small_cinic), store, rows_per_shard=7, processes=1)
    index, _ = read_index(store)
    every = list(images_of(store, index, "test", range(index.rows("test"))))
    assert [number for number, _, _ in every] == list(range(index.rows("test")))
    some = list(images_of(store, index, "test", [10**9, 8, 3, 8, -1]))
    for (number, source, image), expected in zip(some, (every[3], every[8]), strict=True):
        assert (number, source) == expected[:2]
        assert np.array_equal(image, expected[2])
        assert image.shape == (32, 32, 3)


def test_the_command_reads_the_pictures_of_a_run_from_the_data_set_that_is_named(
    small_cinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "draw_figures", lambda _: FIGURES)
    data = DirectoryStore(tmp_path / "data")
    ingest(str(small_cinic), data, processes=1)
    index, sha256 = read_index(data)
    source = [source for _, source, _ in images_of(data, index, "test", range(20))]
    run = DirectoryStore(tmp_path / "run")
    dataset = {"name": index.dataset, "classes": index.classes, "index_sha256": sha256}
    of = fake_run.manifest().dataset.model_copy(update=dataset)
    manifest = fake_run.manifest(experiments=("frozen",), dataset=of)
    fake_run.write_run(run, manifest, finished=[])
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        source=np.array(source),
        label=rng.integers(0, len(index.classes), len(source)),
        probabilities=rng.dirichlet([1] * len(index.classes), len(source)).astype(np.float32),
    )
    run.put("frozen/predictions.npz", buffer.getvalue())
    assert main(["--run", run.url]) == 0
    assert "<img" not in run.get("report/index.html").decode()
    assert main(["--run", run.url, "--store", data.url]) == 0
    with_pictures = run.get("report/index.html")
    assert b"<img" in with_pictures
    # From now on the data set is not needed.
    assert main(["--run", run.url]) == 0
    assert run.get("report/index.html") == with_pictures
    with pytest.raises(UserError, match=r"has no index\.json"):
        main(["--run", run.url, "--store", str(tmp_path)])
