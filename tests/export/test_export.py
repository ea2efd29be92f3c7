"""Exports of one experiment in every format, and what they answer about pictures.

The run is made by hand, with random weights, of an experiment that has every field that changes the
model. Its data set are generated photographs of seven classes with names in several scripts.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import fake_run
import numpy as np
import photos
import pytest
import tf_keras as keras

from jobs.export import main as export
from jobs.predict import main as predict
from tlcluster import paths
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.shards import read_index
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.export import score
from tlcluster.export.card import CARD
from tlcluster.export.facts import MEMBER, Facts
from tlcluster.export.formats import FORMATS
from tlcluster.export.opened import open_model
from tlcluster.export.predict import Classifier
from tlcluster.records import (
    CONFIG,
    MANIFEST,
    PREDICTIONS,
    RESULT,
    WEIGHTS,
    DatasetRecord,
    ExperimentConfig,
)
from tlcluster.settings import EXPORT_FORMATS
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.evaluate import softmax
from tlcluster.training.model import (
    Models,
    SampleDropout,
    build_models,
    layer_records,
    no_keys,
    parameter_counts,
    weights_file,
)

ROOT = Path(__file__).parents[2]

EXPERIMENT = Experiment(
    **{
        **EXPERIMENTS["regularized"].model_dump(),
        "name": "odd",
        "taps": "block1,block2",
        "input_size": 40,
        "preprocess": "base",
        "dense_units": 24,
        "test_views": 2,
    }
)

FLOAT32 = ("keras", "saved-model", "onnx", "litert")

SIZE = (36, 32)
"""Width and height of the data set's images: other than square, so that no axis can be taken for
another."""


class Made(NamedTuple):
    """A run, and where the photographs of its data set are."""

    run: Path
    photos: Path


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the models at the end, and the variables that the commands set."""
    with mock.patch.dict(os.environ):
        yield
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("export")
    pictures = photos.make_photos(folder / "photos", counts={"train": 8, "test": 3})
    images = open_store(str(folder / "store"), create=True)
    ingest(str(pictures), images, image_size=SIZE, valid_fraction=0.2, processes=1)
    run = open_store(str(folder / "run"), create=True)
    _write_run(run, images)
    return Made(folder / "run", pictures)


def _write_run(run: Store, images: Store) -> None:
    index, sha256 = read_index(images)
    dataset = DatasetRecord(
        name=index.dataset,
        index_sha256=sha256,
        classes=index.classes,
        splits={split: index.rows(split) for split in index.splits},
        store=images.url,
    )
    models = build_models(
        EXPERIMENT,
        image_shape=index.image_shape,
        classes=len(index.classes),
        seed=1,
        imagenet_weights=None,
    )
    trained, total = parameter_counts(models.whole)
    config = ExperimentConfig(
        experiment=EXPERIMENT,
        seed=524,
        layers=layer_records(models.whole),
        trainable_params=trained,
        total_params=total,
    )
    run.put(f"odd/{CONFIG}", config.model_dump_json().encode())
    pixels = score.first_images(images, index, "test", 1000).astype(np.float32)
    _far_from_their_start(models, pixels)
    views = [
        softmax(models.whole([view, no_keys(view)], training=False).numpy())
        for view in (pixels, pixels[:, :, ::-1])
    ]
    sources, labels = sources_and_labels(images, index, "test")
    arrays = io.BytesIO()
    np.savez(arrays, source=sources, label=labels, probabilities=np.mean(views, axis=0))
    with weights_file(models.whole) as path:
        content = {WEIGHTS: path.read_bytes(), PREDICTIONS: arrays.getvalue()}
    for name, data in content.items():
        run.put(f"odd/{name}", data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    fake_run.write_result(run, "odd", fake_run.experiment_result("frozen", sha256=digests))
    manifest = fake_run.manifest(experiments=("odd", "frozen"), dataset=dataset)
    run.put(MANIFEST, manifest.model_dump_json().encode())
    failed = fake_run.experiment_result("frozen", status="failed", error="out of memory")
    fake_run.write_result(run, "frozen", failed)


def _far_from_their_start(models: Models, pixels: np.ndarray) -> None:
    """Weights that no layer has by default, and answers that differ between images."""
    random = np.random.default_rng(5)
    x = models.base(pixels).numpy()
    for layer in models.head.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            moments = [x.mean(axis=0), x.var(axis=0)]
            layer.set_weights([*random.uniform(0.5, 1.5, (2, x.shape[1])), *moments])
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            layer.set_weights([random.normal(0, 0.4, kernel.shape), bias])
        if not isinstance(layer, keras.layers.InputLayer | keras.layers.Reshape | SampleDropout):
            x = layer(x.reshape(-1, *layer.input_shape[1:])).numpy().reshape(len(x), -1)


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats of the experiment. Not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "odd"
    assert export([*_arguments(made, folder), "--format", ",".join(EXPORT_FORMATS)]) == 0
    return folder


def _arguments(made: Made, to: Path) -> list[str]:
    return ["--run", str(made.run), "--experiment", "odd", "--to", str(to)]


def _predictions(made: Made) -> dict[str, np.ndarray]:
    with np.load(made.run / "odd" / PREDICTIONS) as arrays:
        return dict(arrays)


def _pixels(made: Made) -> np.ndarray:
    images = open_store(str(made.run.parent / "store"))
    return score.first_images(images, read_index(images)[0], "test", 1000)


def test_every_format_has_its_file_and_nothing_else_is_left(exported: Path) -> None:
    files = {one.file for one in FORMATS.values()}
    assert {path.name for path in exported.iterdir()} == files | {CARD}
    assert [path.name for path in exported.parent.iterdir()] == ["odd"]


@pytest.mark.parametrize("name", FLOAT32)
def test_a_float32_export_equals_the_training_image_by_image(
    name: str, made: Made, exported: Path
) -> None:
    expected = _predictions(made)["probabilities"]
    assert len(set(expected.argmax(axis=1))) > 1
    assert expected.max(axis=1).std() > 0.1
    found = open_model(exported / FORMATS[name].file).run(_pixels(made))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=score.EQUAL)


def test_eight_bits_are_close_and_small(made: Made, exported: Path) -> None:
    expected = _predictions(made)["probabilities"]
    found = open_model(exported / "model-int8.onnx").run(_pixels(made))
    assert np.abs(found - expected).mean() < 0.03
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.8
    sizes = [(exported / name).stat().st_size for name in ("model-int8.onnx", "model.onnx")]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_says_its_classes_and_where_it_comes_from(
    name: str, made: Made, exported: Path
) -> None:
    facts = open_model(exported / FORMATS[name].file).facts
    assert facts.classes == tuple(sorted(photos.CLASSES))
    assert facts.image_shape == (32, 36, 3)
    assert (facts.experiment, facts.seed) == ("odd", 524)
    assert (
        facts.weights_sha256
        == json.loads((made.run / "odd" / RESULT).read_text())["sha256"][WEIGHTS]
    )


PLAIN_KERAS = """
import sys
sys.modules["tlcluster"] = None
import keras, numpy, tf_keras
images = numpy.load({images!r})
for number, library in enumerate((tf_keras, keras)):
    model = library.models.load_model({file!r})
    numpy.save(f"{{number}}.npy", model.predict(images, verbose=0))
"""


def test_both_kinds_of_keras_open_the_keras_file_without_this_package(
    made: Made, exported: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", _pixels(made))
    file, images = str(exported / "model.keras"), str(tmp_path / "images.npy")
    program = PLAIN_KERAS.format(file=file, images=images)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    expected = _predictions(made)["probabilities"]
    for number in range(2):
        found = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_allclose(found, expected, atol=score.EQUAL)


def test_the_card_says_how_good_the_model_is_and_what_was_compared(
    made: Made, exported: Path
) -> None:
    text = (exported / CARD).read_text()
    arrays = _predictions(made)
    right = (arrays["probabilities"].argmax(axis=1) == arrays["label"]).mean()
    assert f"accuracy {100 * right:.2f} % (95 % interval " in text
    for name in FLOAT32:
        (line,) = (
            line for line in text.splitlines() if line.startswith(f"| {FORMATS[name].file} |")
        )
        cells = line.strip("| ").split(" | ")
        assert (cells[3], cells[5]) == ("21 of 21", "equal")
    for name in photos.CLASSES:
        assert f"| `{name}` | 3 |" in text
    for heading in ("Files", "Data", "Training", "Intended use and limits", "Licences"):
        assert f"\n## {heading}\n" in text


def test_the_recipe_of_the_card_for_onnx_runtime_works(
    made: Made, exported: Path, tmp_path: Path
) -> None:
    _, _, recipe = (exported / CARD).read_text().partition("    import json, numpy")
    program = "import json, numpy" + recipe.partition("\n\n")[0].replace("\n    ", "\n")
    shutil.copy(exported / "model.onnx", tmp_path)
    shutil.copy(made.photos / "test" / "猫" / "photo-1.jpg", tmp_path / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    (answer,) = Classifier(exported / "model.onnx")([tmp_path / "photo.jpg"])
    label, probability = done.stdout.rsplit(maxsplit=1)
    # Pillow reduces a large picture a little differently when it may take a short cut.
    assert (label, float(probability)) == (answer.label, pytest.approx(answer.probability, abs=0.1))


# --- predict -----------------------------------------------------------------------------------


def test_a_photograph_gets_what_the_training_predicted_for_it(made: Made, exported: Path) -> None:
    classifier, arrays = Classifier(exported / "model.onnx"), _predictions(made)
    for label, name in enumerate(classifier.facts.classes):
        for answer in classifier([made.photos / "test" / name]):
            of_it = (arrays["label"] == label) & (arrays["source"] == answer.path.name)
            np.testing.assert_allclose(
                answer.probabilities, arrays["probabilities"][of_it][0], atol=score.EQUAL
            )


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({without!r}))
sys.argv = ["jobs/predict.py", *sys.argv[1:]]
import runpy
runpy.run_path("jobs/predict.py", run_name="__main__")
"""


def _five(folder: Path) -> Path:
    """Five photographs of other sizes than the data set's."""
    sizes = ((320, 240), (33, 500), (32, 32), (7, 9), (640, 480))
    names = {"train": 1}
    return photos.make_photos(folder, classes=("a", "b", "c", "d", "e"), sizes=sizes, counts=names)


@pytest.mark.parametrize(
    ("file", "without"),
    [
        ("model.onnx", ("tensorflow", "tf_keras", "keras", "ray", "ai_edge_litert")),
        ("model.tflite", ("tensorflow", "tf_keras", "keras", "ray", "onnxruntime")),
    ],
)
def test_predict_needs_only_what_runs_the_file(
    file: str, without: tuple[str, ...], exported: Path, tmp_path: Path
) -> None:
    five, table = _five(tmp_path / "five"), tmp_path / "answers.csv"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(without=without), "--model", exported / file,
         five, "--csv", table],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    # LiteRT says how it computes; nothing can be said against it.
    assert (done.returncode, re.sub("INFO: .*\n", "", done.stderr)) == (0, "")
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [Path(line["path"]).parent.name for line in lines] == ["a", "b", "c", "d", "e"]
    for line in lines:
        of_classes = {name: float(line[f"p({name})"]) for name in photos.CLASSES}
        assert sum(of_classes.values()) == pytest.approx(1, abs=1e-5)
        assert line["class"] == max(of_classes, key=lambda name: of_classes[name])
        assert line["path"] in done.stdout
        assert f"{100 * float(line['probability']):.1f}" in done.stdout
    assert "resized to 36×32 pixels" in done.stdout


def test_three_lines_of_python_classify_pictures(exported: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/export.md").read_text()
    _, _, block = page.partition("    from tlcluster.export.predict import Classifier\n")
    lines = [line.strip() for line in block.splitlines()[:2]]
    assert lines[0] == 'classifier = Classifier("exported/model.onnx")'
    classifier = Classifier(exported / "model.onnx")
    answers = classifier([_five(tmp_path)])
    assert len(answers) == 5
    assert answers[0].ranked[0] == (answers[0].label, answers[0].probability)


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    _five(tmp_path / "five")
    (tmp_path / "text.png").write_text("no picture")
    whole = (tmp_path / "five/train/a/photo-0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("text.png", "text.png: is no PNG or JPEG; give .png, .jpg, .jpeg files"),
        ("notes.txt", "notes.txt: is no PNG or JPEG; give"),
        ("cut.png", "cut.png: is damaged ("),
        ("empty", "empty: has no pictures; give"),
        ("nowhere", "nowhere: no such file or folder; give"),
        ("", "cut.png: is damaged ("),
    ],
)
def test_what_is_no_picture_ends_in_one_line_and_nothing_is_written(
    path: str, said: str, wrong: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = wrong / "answers.csv"
    good, model = str(wrong / "five"), str(exported / "model.onnx")
    with pytest.raises(UserError) as caught:
        predict(["--model", model, good, str(wrong / path), "--csv", str(table)])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not list(wrong.glob("*answers*"))


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model.keras"])
def test_a_damaged_model_ends_in_one_line(name: str, exported: Path, tmp_path: Path) -> None:
    content = (exported / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="export") as caught:
        Classifier(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_program_is_refused(exported: Path, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
    model.save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="does not say its classes and image size"):
        Classifier(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"is a folder and no SavedModel.*model-int8\.onnx"):
        Classifier(exported)
    with pytest.raises(UserError, match=r"no such kind of model; give a \.keras"):
        Classifier(exported / CARD)
    with pytest.raises(UserError, match="no such file"):
        Classifier(tmp_path / "none.onnx")


# --- what cannot be exported --------------------------------------------------------------------


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    """A run to damage."""
    shutil.copytree(made.run, tmp_path / "run")
    return Made(tmp_path / "run", made.photos)


def _refused(made: Made, *changes: str) -> str:
    to = made.run.parent / "to"
    before = set(made.run.parent.iterdir())
    with pytest.raises(UserError) as caught:
        export([*_arguments(made, to), "--format", "keras", *changes])
    assert set(made.run.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_experiment_that_failed_or_is_not_there_is_not_exported(copy: Made) -> None:
    said = _refused(copy, "--experiment", "frozen")
    assert "frozen: the training is failed (out of memory)" in said
    assert "allowed: odd, frozen" in _refused(copy, "--experiment", "fine")
    assert "--seed 7: not in" in _refused(copy, "--seed", "7")
    (copy.run / "odd" / RESULT).unlink()
    assert "odd: the training has no result yet" in _refused(copy)


@pytest.mark.parametrize("name", [WEIGHTS, PREDICTIONS])
def test_a_damaged_run_is_not_exported(name: str, copy: Made) -> None:
    path = copy.run / "odd" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"odd/{name}: damaged record (" in _refused(copy)
    path.unlink()
    assert f"odd/{name}: damaged record (it is missing)" in _refused(copy)


def test_weights_of_another_model_are_not_exported(copy: Made) -> None:
    path = copy.run / "odd" / RESULT
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "sha256": {}}))
    (copy.run / "odd" / WEIGHTS).write_bytes(b"no weights")
    assert "odd: its weights do not fit its model (" in _refused(copy)


def test_a_run_of_another_data_set_is_not_exported(copy: Made, sample_store: Store) -> None:
    said = _refused(copy, "--store", sample_store.url)
    assert "is not the data set of this run: its index has sha256" in said


def test_a_folder_with_content_is_left_alone(copy: Made) -> None:
    (copy.run.parent / "to").mkdir()
    (copy.run.parent / "to" / "mine").touch()
    assert "exists and is not empty; name a new folder" in _refused(copy)


def test_a_format_without_its_libraries_says_what_to_install(
    copy: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tlcluster.export.write_onnx", raising=False)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    needs = "--format onnx: needs tf2onnx, which is not installed here; run: "
    assert _refused(copy, "--format", "onnx") == f"{needs}make env EXPORT=1"
    monkeypatch.setattr(paths, "IN_CHECKOUT", False)
    assert _refused(copy, "--format", "onnx") == f"{needs}pip install 'tlcluster[onnx]'"


def test_an_export_that_fails_half_way_leaves_nothing(
    copy: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise UserError("no")

    monkeypatch.setattr("tlcluster.export.suite.answers", broken)
    assert _refused(copy) == "no"


def test_the_facts_lie_where_other_programs_find_them(exported: Path) -> None:
    for name in ("model.keras", "model.tflite"):
        with zipfile.ZipFile(exported / name) as archive:
            assert Facts.model_validate_json(archive.read(MEMBER)).experiment == "odd"
