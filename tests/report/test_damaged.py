"""Damaged records: a report or one line that names the file, never a traceback."""

import functools
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlcluster.errors import UserError
from tlcluster.report.page import render_page
from tlcluster.report.runs import read_run
from tlcluster.report.tables import results_json, summary_csv
from tlcluster.report.write import write_report
from tlcluster.storage.directory import DirectoryStore

CLASSES = ("cat", "dog")


@functools.cache
def records_of_a_run() -> dict[str, bytes]:
    """Key → content of a small run without damage."""
    written: dict[str, bytes] = {}

    class Memory(DirectoryStore):
        def put(self, key: str, data: bytes | Path) -> None:
            assert isinstance(data, bytes)
            written[key] = data

    dataset = {
        **fake_run.manifest().dataset.model_dump(),
        "classes": CLASSES,
        "splits": {"test": 40},
    }
    manifest = fake_run.manifest(experiments=("frozen",), dataset=dataset)
    fake_run.write_run(Memory(Path("nowhere")), manifest)
    return written


def damage(folder: Path, key: str, content: bytes) -> DirectoryStore:
    store = DirectoryStore(folder)
    for name, data in {**records_of_a_run(), key: content}.items():
        store.put(name, data)
    return store


def one_line(error: UserError) -> None:
    message = str(error)
    assert "damaged record" in message
    assert message.isprintable()
    assert len(message) < 700


FIGURES = fake_run.blank_figures("frozen")


def read_all(store: DirectoryStore) -> None:
    """Everything but the figures, which take seconds."""
    run = read_run(store)
    summary_csv(run), results_json(run), render_page(run, FIGURES)


JSON = ("manifest.json", "frozen/config.json", "frozen/result.json", "frozen/epochs.jsonl")


@pytest.mark.parametrize("key", [*JSON, "frozen/predictions.npz"])
def test_a_record_that_was_cut_anywhere_is_named_or_reported(key: str, tmp_path: Path) -> None:
    content = records_of_a_run()[key]
    for end in range(0, len(content), max(1, len(content) // 25)):
        try:
            read_all(damage(tmp_path, key, content[:end]))
        except UserError as error:
            one_line(error)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    nested = [p for k, v in inner if isinstance(v, dict | list) for p in places(v, (*at, k))]
    keys = value if isinstance(value, dict) else range(len(value))
    return [*((*at, key) for key in keys), *nested]


WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e308, 10**400, 2**63, float("nan"), float("inf"), "", "NaN",
    "\x1b]0;pwn\x07\x00", "../..", "a/b", "x" * 10_000, [], {}, [[]] * 3, {"\x1b[2J": {}},
    [1, -1], "frozen", ["frozen", "frozen"], ["../x"], "\u202e\ufffe",
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_wrong_value_anywhere_in_a_record_is_named_or_reported(
    data: st.DataObject, tmp_path: Path
) -> None:
    key = data.draw(st.sampled_from(JSON))
    value = json.loads(records_of_a_run()[key].splitlines()[0])
    *path, last = data.draw(st.sampled_from(places(value)))
    holder = value
    for step in path:
        holder = holder[step]
    holder[last] = data.draw(st.sampled_from(WRONG))
    try:
        read_all(damage(tmp_path, key, json.dumps(value).encode()))
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seed": ' + b"9" * 1_000_000 + b"}",
        b'{"' + b"n" * 1_000_000 + b'": 1}',
        b'{"\\u001b]0;pwn\\u0007": 1, "\\ud800": 2}',
        b"\x00" * 1000,
        b"\xff" * 1000,
    ],
    ids=["lists", "objects", "digits", "name", "escapes", "zeros", "no text"],
)
@pytest.mark.parametrize("key", JSON)
def test_extreme_json_is_named_in_one_short_line(key: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_all(damage(tmp_path, key, content))
    one_line(caught.value)
    assert f"{key}" in str(caught.value)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD: dict[str, np.ndarray] = {
    "source": np.array([f"{i}.png" for i in range(40)]),
    "label": np.arange(40) % 2,
    "probabilities": np.full((40, 2), 0.5, np.float32),
}


def with_header(shape: str) -> bytes:
    """An archive whose third array claims a shape."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }" % shape.encode()
    array = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("source", "label"):
            archive.writestr(f"{name}.npy", npy(GOOD[name]))
        archive.writestr("probabilities.npy", array)
    return buffer.getvalue()


def patched(central: int, local: int, value: int) -> bytes:
    """An archive with one byte changed in every header of a member."""
    content = bytearray(npz(**GOOD))
    for sign, offset in ((b"PK\x01\x02", central), (b"PK\x03\x04", local)):
        place = content.find(sign)
        while place >= 0:
            content[place + offset] = value
            place = content.find(sign, place + 4)
    return bytes(content)


def lzma_with_errors() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in GOOD.items():
            archive.writestr(f"{name}.npy", npy(array))
    content = bytearray(buffer.getvalue())
    content[100] ^= 255
    return bytes(content)


NO_CHARACTERS = np.frombuffer(b"\xff" * 160, "<U1")


@pytest.mark.parametrize(
    "content",
    [
        lambda: npy(GOOD["probabilities"]),
        lambda: patched(8, 6, 1),
        lambda: patched(10, 8, 99),
        lzma_with_errors,
        lambda: with_header("(1000000000000, 10)"),
        lambda: with_header("(1180591620717411303424,)"),
        lambda: with_header("(-5, 2)"),
        lambda: with_header("(40, 10"),
        lambda: with_header("(" * 50),
        lambda: npz(**{**GOOD, "source": NO_CHARACTERS}),
        lambda: npz(**{**GOOD, "label": np.full(40, 2**64 - 1, np.uint64)}),
        lambda: npz(**{**GOOD, "label": np.zeros(40, complex)}),
        lambda: npz(label=GOOD["label"]),
        lambda: b"PK" + b"\x00" * 100,
    ],
    ids=[
        "npy", "encrypted", "method", "lzma", "36 TiB", "overflow", "negative", "open header",
        "nested header", "no characters", "huge labels", "complex labels", "one array", "no zip",
    ],
)  # fmt: skip
def test_damaged_predictions_are_named_in_one_line(
    content: Callable[[], bytes], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read_all(damage(tmp_path, "frozen/predictions.npz", content()))
    one_line(caught.value)
    assert "frozen/predictions.npz" in str(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5)
)
def test_bytes_that_changed_in_the_predictions_are_named_or_reported(
    changes: list[tuple[int, int]], tmp_path: Path
) -> None:
    content = bytearray(npz(**GOOD))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        read_all(damage(tmp_path, "frozen/predictions.npz", bytes(content)))
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize("rate", [1e30, 1e308, 5e-324])
def test_any_rate_of_a_recipe_is_reported(rate: float, tmp_path: Path) -> None:
    for key, place in {
        "manifest.json": ("settings", "frozen.learning_rate"),
        "frozen/config.json": ("experiment", "learning_rate"),
    }.items():
        value = json.loads(records_of_a_run()[key])
        value[place[0]][place[1]] = rate
        read_all(damage(tmp_path, key, json.dumps(value).encode()))


@pytest.mark.parametrize("key", [*JSON, "frozen/predictions.npz"])
@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
def test_what_is_no_plain_file_in_the_place_of_a_record_is_named(
    key: str, kind: str, tmp_path: Path
) -> None:
    store = damage(tmp_path, key, b"")
    path = tmp_path / key
    path.unlink()
    if kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        read_all(store)
    assert str(caught.value).isprintable()


def test_the_record_of_another_experiment_is_refused(tmp_path: Path) -> None:
    content = fake_run.experiment_config(fake_run.EXPERIMENTS["augmented"]).model_dump_json()
    with pytest.raises(UserError, match="it belongs to the experiment 'augmented'"):
        read_run(damage(tmp_path, "frozen/config.json", content.encode()))


def test_an_experiment_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    manifest = json.loads(records_of_a_run()["manifest.json"])
    manifest["experiments"] = ["frozen", "frozen"]
    with pytest.raises(UserError, match="'frozen' is named twice"):
        read_run(damage(tmp_path, "manifest.json", json.dumps(manifest).encode()))


@pytest.mark.filterwarnings("error")
def test_a_loss_that_no_axis_can_show_leaves_a_gap_and_a_report(tmp_path: Path) -> None:
    (epoch,) = fake_run.epoch_records("frozen", 1)
    lines = "".join(
        epoch.model_copy(update={"epoch": n, "loss": loss, "val_loss": -loss}).model_dump_json()
        + "\n"
        for n, loss in enumerate((1.0, 1e308, -1e308, 1e38), 1)
    )
    store = damage(tmp_path, "frozen/epochs.jsonl", lines.encode())
    write_report(store)
    history = json.loads(store.get("report/results.json"))["experiments"][0]["history"]
    assert history["loss"] == [1.0, 1e308, -1e308, 1e38]
