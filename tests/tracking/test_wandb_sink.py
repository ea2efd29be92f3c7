"""A run in Weights & Biases: what its library is told, and what it writes without a server."""

import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_run import (
    epoch_records,
    experiment_result,
    manifest,
    write_config,
    write_epochs,
    write_replicate,
    write_result,
    write_run,
)

from tlcluster.records import REPORT
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking.entry import Entry
from tlcluster.tracking.view import View

ROOT = Path(__file__).parents[2]
PATHS = list(filter(None, [os.environ.get("PYTHONPATH")]))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A run with one seed: `frozen` has finished, `augmented` was interrupted after 3 epochs."""
    store = DirectoryStore(tmp_path / "first")
    dataset = manifest().dataset
    of = manifest(
        status="interrupted",
        experiments=("frozen", "augmented"),
        dataset=dataset.model_copy(update={"splits": {**dataset.splits, "test": 200}}),
        settings={"profile": "paper", "frozen.learning_rate": 1e-3},
    )
    write_run(store, of, finished=[])
    write_replicate(store, of, "frozen", 524)
    write_epochs(store, "frozen", epoch_records("frozen", 4))
    write_config(store, "augmented")
    write_epochs(store, "augmented", epoch_records("augmented", 3))
    write_result(store, "augmented", experiment_result("augmented", status="interrupted"))
    store.put(f"{REPORT}/index.html", b"page")
    return store


class FakeRun:
    """Takes what the library's run takes."""

    def __init__(self, step: int, settings: dict[str, Any]) -> None:
        self.settings, self.step, self.resumed = settings, step, step > 0
        self.url, self.logged, self.ended = "https://host/run", list[int](), list[object]()
        self.config = SimpleNamespace(update=lambda *_, **__: None)
        self.summary = dict[str, object]()

    def log(self, metrics: dict[str, float], *, step: int, commit: bool) -> None:
        assert commit
        assert metrics["epoch"] == step
        self.logged.append(step)

    def mark_preempting(self) -> None:
        self.ended.append("preempted")

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


class FakeLibrary(SimpleNamespace):
    """The library; its server has so many steps of each run."""

    def __init__(self, steps: int) -> None:
        super().__init__(Settings=lambda **settings: settings)
        self.steps, self.runs = steps, list[FakeRun]()

    def init(self, **settings: Any) -> FakeRun:
        self.runs.append(FakeRun(self.steps, settings))
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibrary]:
    found = FakeLibrary(0)
    name = "tlcluster.tracking.to_wandb"
    monkeypatch.setitem(sys.modules, "wandb", found)
    sys.modules.pop(name, None)
    yield found
    sys.modules.pop(name, None)


def new_sink() -> Any:
    return importlib.import_module("tlcluster.tracking.to_wandb").Sink()


def entries(store: DirectoryStore) -> dict[str, Entry]:
    return {entry.name: entry for entry in View(store, None).entries(last=True)}


def test_a_replicate_is_a_run_of_the_group_that_ends_as_it_ended(
    store: DirectoryStore, fake: FakeLibrary
) -> None:
    sink = new_sink()
    for entry in entries(store).values():
        sink.send(entry)
    frozen, augmented = fake.runs
    assert frozen.settings["id"] == entries(store)["frozen"].id
    assert (frozen.settings["group"], frozen.settings["name"]) == (manifest().name, "frozen")
    assert frozen.settings["config"]["learning_rate"] == 1e-3
    assert (frozen.logged, augmented.logged) == ([1, 2, 3, 4], [1, 2, 3])
    assert frozen.summary["test_accuracy"] == entries(store)["frozen"].scores["test_accuracy"]
    assert (frozen.ended, augmented.ended) == ([0], ["preempted", 130])


def test_while_a_replicate_trains_its_run_is_open_and_gets_the_new_epochs(
    store: DirectoryStore, fake: FakeLibrary
) -> None:
    sink = new_sink()
    whole = entries(store)["augmented"]
    for count in (1, 3, 3):
        some = {epoch: of for epoch, of in whole.epochs.items() if epoch <= count}
        sink.send(whole._replace(epochs=some, status="running"))
    (run,) = fake.runs
    assert (run.logged, run.ended) == ([1, 2, 3], [])


def test_a_run_that_goes_on_logs_only_what_the_server_does_not_have(
    store: DirectoryStore, fake: FakeLibrary
) -> None:
    fake.steps = 3  # the step that comes next: two epochs are there
    new_sink().send(entries(store)["augmented"])
    (run,) = fake.runs
    assert run.logged == [3]
    assert (run.settings["resume"], run.settings["reinit"]) == ("allow", "create_new")


def records(path: Path) -> Iterator[Any]:
    """What the library has written: a log of records, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - takes a second

    data, position, whole = path.read_bytes(), 7, b""
    while position < len(data):
        room = 2**15 - position % 2**15
        if room < 7:
            position += room
            continue
        size, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_without_a_server_everything_is_written_beside_the_records(
    store: DirectoryStore, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs/track.py", "--run", store.url],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *PATHS]),
            "WANDB_MODE": "offline",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    folder = Path(store.url, "wandb")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Weights & Biases: written to {folder}, for `wandb sync`\n"
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    found: dict[str, dict[str, list[Any]]] = {}
    for path in folder.glob("offline-run-*/run-*.wandb"):
        kinds: dict[str, list[Any]] = {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            kinds.setdefault(kind, []).append(getattr(record, kind))
        (run,) = kinds["run"]
        assert (run.run_group, run.project) == (manifest().name, "tlcluster")
        found[run.display_name] = kinds
    assert found.keys() == {manifest().name, "frozen", "augmented"}
    exits = {name: kinds["exit"][0].exit_code for name, kinds in found.items()}
    assert exits == {manifest().name: 130, "frozen": 0, "augmented": 130}
    history = [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in row.item}
        for row in found["augmented"]["history"]
    ]
    assert [(row["epoch"], row["_step"], row["val_loss"]) for row in history] == [
        (one.epoch, one.epoch, one.val_loss) for one in epoch_records("augmented", 3)
    ]
    (artifact,) = found[manifest().name]["artifact"]
    assert (artifact.type, [one.path for one in artifact.manifest.contents]) == (
        "report",
        ["index.html"],
    )
