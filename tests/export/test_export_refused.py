"""What cannot be exported, and that nothing is left of the attempt."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from export_lab import Made, run_to_export

from jobs.export import main as export
from tlcluster import paths
from tlcluster.errors import UserError
from tlcluster.records import PREDICTIONS, RESULT, WEIGHTS
from tlcluster.storage.protocol import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with run_to_export(tmp_path_factory.mktemp("export")) as made:
        yield made


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    """A run to damage."""
    shutil.copytree(made.run, tmp_path / "run")
    return Made(tmp_path / "run", made.photos)


def _refused(made: Made, *changes: str) -> str:
    to = made.run.parent / "to"
    before = set(made.run.parent.iterdir())
    with pytest.raises(UserError) as caught:
        export([*made.arguments(to), "--format", "keras", *changes])
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
