"""Exports of one experiment in every format, and what they answer about pictures."""

import csv
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

import numpy as np
import photos
import pytest
import tf_keras as keras
from export_lab import Made, run_to_export

from jobs.export import main as export
from jobs.predict import main as predict
from tlcluster.dataset.shards import read_index
from tlcluster.errors import UserError
from tlcluster.export import score
from tlcluster.export.card import CARD
from tlcluster.export.facts import MEMBER, Facts
from tlcluster.export.formats import FORMATS
from tlcluster.export.opened import open_model
from tlcluster.export.predict import Classifier
from tlcluster.records import (
    PREDICTIONS,
    RESULT,
    WEIGHTS,
)
from tlcluster.settings import EXPORT_FORMATS
from tlcluster.storage.open import open_store

ROOT = Path(__file__).parents[2]

FLOAT32 = ("keras", "saved-model", "onnx", "litert")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with run_to_export(tmp_path_factory.mktemp("export")) as made:
        yield made


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats of the experiment. Not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "odd"
    assert export([*made.arguments(folder), "--format", ",".join(EXPORT_FORMATS)]) == 0
    return folder


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


def test_the_facts_lie_where_other_programs_find_them(exported: Path) -> None:
    for name in ("model.keras", "model.tflite"):
        with zipfile.ZipFile(exported / name) as archive:
            assert Facts.model_validate_json(archive.read(MEMBER)).experiment == "odd"
