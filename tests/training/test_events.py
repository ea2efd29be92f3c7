"""Event files: an open TensorBoard shows every epoch while the run grows, also after a resume."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from tlcluster.records import TENSORBOARD, EpochRecord
from tlcluster.storage.directory import DirectoryStore
from tlcluster.training.events import CURVES, Events, epoch_ends

PLACE = f"frozen/{TENSORBOARD}"


class Bucket(DirectoryStore):
    """Objects under an address that is no path."""

    url = "s3://bucket/run"


@pytest.fixture(params=[DirectoryStore, Bucket])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> DirectoryStore:
    (tmp_path / "run").mkdir()
    made: DirectoryStore = request.param(tmp_path / "run")
    return made


def history(epochs: int) -> list[EpochRecord]:
    return [
        EpochRecord(
            epoch=epoch,
            loss=2.0 / epoch,
            accuracy=0.1 * epoch,
            val_loss=float("nan") if epoch == 2 else 0.5,
            val_accuracy=0.05 * epoch,
            seconds=1.0,
            images_per_second=100.0,
            learning_rate=1e-3,
            workers=1,
        )
        for epoch in range(1, epochs + 1)
    ]


def only(run: DirectoryStore) -> tuple[str, bytes]:
    """The key and content of the only event file."""
    (found,) = run.list(PLACE)
    return found.key, run.get(found.key)


def assert_holds(run: DirectoryStore, epochs: int) -> None:
    """The only event file holds every point once."""
    key, _ = only(run)
    assert_shows(EventAccumulator(str(run._folder / key)).Reload(), epochs)


def assert_shows(open_reader: EventAccumulator, epochs: int) -> None:
    for curve in CURVES:
        points = open_reader.Tensors(curve)
        assert [point.step for point in points] == list(range(1, epochs + 1))
        np.testing.assert_allclose(
            [tf.make_ndarray(point.tensor_proto) for point in points],
            [getattr(record, curve) for record in history(epochs)],
            rtol=1e-6,
        )


def test_the_file_holds_every_point_once(run: DirectoryStore) -> None:
    events = Events(run, "frozen", [])
    for epochs in (1, 2, 4):
        events.write(history(epochs))
        assert_holds(run, epochs)


def test_a_later_attempt_continues_the_file(run: DirectoryStore) -> None:
    Events(run, "frozen", []).write(history(2))
    key, content = only(run)
    Events(run, "frozen", history(2)).write(history(3))
    assert only(run)[0] == key
    assert only(run)[1].startswith(content)
    assert_holds(run, 3)


@pytest.mark.parametrize(
    "tail",
    [b"\x01", b"\x00" * 99, b"torn, and longer than one record" * 9],
    ids=["byte", "zeros", "text"],
)
def test_the_torn_end_of_a_killed_attempt_is_cut_off(run: DirectoryStore, tail: bytes) -> None:
    Events(run, "frozen", []).write(history(2))
    key, content = only(run)
    run.put(key, content + tail)
    Events(run, "frozen", history(2)).write(history(3))
    assert only(run)[0] == key
    assert_holds(run, 3)


def test_epochs_that_are_trained_again_are_written_again(run: DirectoryStore) -> None:
    Events(run, "frozen", []).write(history(5))
    events = Events(run, "frozen", history(2))
    events.write(history(3))
    assert_holds(run, 3)
    events.write(history(4))
    assert_holds(run, 4)


@pytest.mark.parametrize("epochs", [0, 3])
def test_a_file_without_the_history_is_replaced(run: DirectoryStore, epochs: int) -> None:
    Events(run, "frozen", []).write(history(2))
    key, _ = only(run)
    Events(run, "frozen", history(epochs)).write(history(4))
    assert only(run)[0] != key
    assert_holds(run, 4)


def test_several_files_are_replaced_by_one(run: DirectoryStore) -> None:
    for name in "ab":
        Events(run, name, []).write(history(1))
        (found,) = run.list(f"{name}/")
        run.put(found.key.replace(f"{name}/", "frozen/", 1), run.get(found.key))
    Events(run, "frozen", history(1)).write(history(2))
    assert_holds(run, 2)


def test_a_file_that_disappears_is_written_again(run: DirectoryStore) -> None:
    events = Events(run, "frozen", [])
    events.write(history(1))
    run.delete(only(run)[0])
    events.write(history(2))
    assert_holds(run, 2)


def test_an_open_tensorboard_shows_every_epoch_in_a_directory(tmp_path: Path) -> None:
    run = DirectoryStore(tmp_path)
    events = Events(run, "frozen", [])
    events.write(history(1))
    open_reader = EventAccumulator(str(tmp_path / PLACE))
    for epochs in range(1, 4):
        events.write(history(epochs))
        assert_shows(open_reader.Reload(), epochs)
    for epochs in range(4, 6):
        Events(run, "frozen", history(epochs - 1)).write(history(epochs))
        assert_shows(open_reader.Reload(), epochs)


def test_an_open_tensorboard_misses_what_is_in_a_file_that_was_replaced(tmp_path: Path) -> None:
    """The reason to append. If it fails, TensorBoard has learned it, and the file may be put."""
    run = Bucket(tmp_path)
    events = Events(run, "frozen", [])
    events.write(history(1))
    open_reader = EventAccumulator(str(tmp_path / PLACE)).Reload()
    events.write(history(2))
    assert [point.step for point in open_reader.Reload().Tensors("loss")] == [1]


def test_the_end_of_an_epoch_is_that_of_its_last_point(run: DirectoryStore) -> None:
    events = Events(run, "frozen", [])
    sizes = {}
    for epochs in (1, 2, 3):
        events.write(history(epochs))
        sizes[epochs] = len(only(run)[1])
    content = only(run)[1]
    assert epoch_ends(content) == sizes
    assert epoch_ends(content[:-1]) == {1: sizes[1], 2: sizes[2]}
    assert epoch_ends(content[: sizes[1] + 40]) == {1: sizes[1]}
    assert epoch_ends(b"") == epoch_ends(b"no event file") == {}


def test_records_that_are_no_events_are_not_continued(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        writer.write(b"\xff\xff no event")
    assert epoch_ends((tmp_path / "records").read_bytes()) == {}
