"""What trackers are sent of a run, once each; and that a run never waits for one that is away."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_run import epoch_records as epochs
from fake_run import (
    experiment_result,
    manifest,
    write_config,
    write_epochs,
    write_replicate,
    write_result,
    write_run,
)

from tlcluster import commands
from tlcluster.errors import UserError
from tlcluster.orchestration.state import Stop
from tlcluster.orchestration.stopping import SIGNALS, StopRequests
from tlcluster.orchestration.suite import patience
from tlcluster.records import MANIFEST, REPORT, RunManifest
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking import courier as couriers
from tlcluster.tracking import process as processes
from tlcluster.tracking import sender as senders
from tlcluster.tracking import trackers
from tlcluster.tracking.courier import Courier
from tlcluster.tracking.entry import Entry, whole
from tlcluster.tracking.messages import Note, Order
from tlcluster.tracking.process import sending
from tlcluster.tracking.sender import follow
from tlcluster.tracking.trackers import MLFLOW, WANDB, Tracker, asked, lacking
from tlcluster.tracking.view import View

LONG = 60.0


# --- which trackers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"MLFLOW_TRACKING_URI": ""}, {}),
        ({"MLFLOW_EXPERIMENT_NAME": "x"}, {}),
        ({"MLFLOW_TRACKING_URI": "http://h"}, {MLFLOW: "MLFLOW_TRACKING_URI"}),
        ({"WANDB_PROJECT": "p", "WANDB_API_KEY": "k"}, {WANDB: "WANDB_API_KEY"}),
        ({"WANDB_MODE": "offline"}, {WANDB: "WANDB_MODE"}),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, {}),
        ({"WANDB_DISABLED": "true", "WANDB_API_KEY": "k"}, {}),
        ({"WANDB_DISABLED": "false", "WANDB_API_KEY": "k"}, {WANDB: "WANDB_API_KEY"}),
        ({"WANDBOX": "k", "WANDB_API_KEY": ""}, {}),
    ],
)
def test_variables_ask_for_trackers(
    environment: dict[str, str], expected: dict[Tracker, str]
) -> None:
    assert asked(environment) == expected


def test_a_library_that_is_missing_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = MLFLOW._replace(library="no_such_library")
    assert lacking(absent, "MLFLOW_TRACKING_URI") == (
        "MLFLOW_TRACKING_URI is set, but no_such_library is not installed, so nothing is sent to "
        "MLflow: make env TRACK=1, or unset MLFLOW_TRACKING_URI"
    )
    monkeypatch.setattr(trackers, "IN_CHECKOUT", False)
    assert ": pip install 'tlcluster[mlflow]', or " in str(lacking(absent, "MLFLOW_TRACKING_URI"))
    assert lacking(MLFLOW._replace(library="json"), "MLFLOW_TRACKING_URI") is None
    # The folder that Weights & Biases leaves in the working directory is no library.
    (tmp_path / "folder_of_results").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert lacking(WANDB._replace(library="folder_of_results"), "WANDB_MODE") is not None


# --- what is sent of a run ---------------------------------------------------------------------


SETTINGS = {
    "profile": "paper",
    "seed": 524,
    "views": None,
    "threads": 8,
    "frozen.base": "vgg16",
    "frozen.learning_rate": 1e-3,
    "augmented.base": "vgg16",
    "augmented.learning_rate": 1e-4,
}
DATASET = manifest().dataset.model_copy(update={"splits": {"train": 90, "valid": 90, "test": 200}})


def some(**changes: object) -> RunManifest:
    values = {
        "status": "running",
        "settings": SETTINGS,
        "seeds": (524, 7),
        "experiments": ("frozen", "augmented"),
        "dataset": DATASET,
        **changes,
    }
    return manifest(**values)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A run of two experiments with two seeds: one finished, one trains, two are queued."""
    store = DirectoryStore(tmp_path)
    write_run(store, some(), finished=[])
    write_replicate(store, some(), "frozen", 524)
    write_config(store, "augmented")
    write_epochs(store, "augmented", epochs("augmented", 2))
    write_result(store, "augmented", experiment_result("augmented", status="running"))
    return store


def by_name(store: DirectoryStore, *keys: str, last: bool = False) -> dict[str, Entry]:
    view = View(store, frozenset(keys) if keys else None)
    return {entry.name: entry for entry in view.entries(last=last)}


def test_the_run_comes_first_and_then_each_replicate_that_has_started(
    store: DirectoryStore,
) -> None:
    found = by_name(store)
    assert list(found) == [some().name, "frozen, seed 524", "augmented, seed 524"]
    run, frozen, augmented = found.values()
    assert (run.parent, frozen.parent, augmented.parent) == (None, run.id, run.id)
    assert [one.status for one in found.values()] == ["running", "finished", "running"]
    assert {one.group for one in found.values()} == {some().name}


def test_parameters_are_the_recipe_the_seed_the_data_and_the_weights(
    store: DirectoryStore,
) -> None:
    params = by_name(store)["frozen, seed 524"].params
    assert params == {
        "profile": "paper",
        "seed": 524,
        "threads": 8,
        "dataset": "cinic-10",
        "experiment": "frozen",
        "base": "vgg16",
        "learning_rate": 1e-3,
        "weights": "imagenet",
        "weights_sha256": some().weights.sha256,
        "trainable_params": 267_786,
        "total_params": params["total_params"],
    }


def test_tags_say_what_may_change_when_a_run_goes_on(store: DirectoryStore) -> None:
    write_result(
        store, "augmented", experiment_result("augmented", status="failed", error="no memory")
    )
    run, frozen, failed = by_name(store).values()
    shared = {
        "run": some().name,
        "tlcluster": "1.0.0",
        "index_sha256": DATASET.index_sha256,
        "git_commit": str(some().git_commit),
    }
    assert frozen.tags == {
        **shared, "experiment": "frozen", "seed": "524", "status": "finished"
    }  # fmt: skip
    assert failed.tags == {
        **shared, "experiment": "augmented", "seed": "524", "status": "failed", "error": "no memory"
    }  # fmt: skip
    assert run.tags == {
        **shared, "experiments": "frozen, augmented", "seeds": "524, 7", "status": "running"
    }  # fmt: skip


def test_every_epoch_has_its_metrics_and_the_end_has_those_of_the_test(
    store: DirectoryStore,
) -> None:
    found = by_name(store)
    running, finished = found["augmented, seed 524"], found["frozen, seed 524"]
    assert list(running.epochs) == [1, 2]
    first = epochs("augmented", 2)[0]
    assert running.epochs[1] == {
        "loss": first.loss,
        "accuracy": first.accuracy,
        "val_loss": first.val_loss,
        "val_accuracy": first.val_accuracy,
        "learning_rate": 1e-3,
        "images_per_second": first.images_per_second,
        "epoch_seconds": first.seconds,
        "workers": 2.0,
    }
    assert running.scores == {}
    assert list(finished.scores) == [
        "wall_seconds", "best_epoch", "test_accuracy", "test_loss", "test_precision_macro",
        "test_recall_macro", "test_f1_macro",
    ]  # fmt: skip
    assert finished.scores["best_epoch"] == 14
    assert 0.3 < finished.scores["test_accuracy"] < 0.7


def test_an_id_is_that_of_the_replicate_however_far_the_run_is(store: DirectoryStore) -> None:
    before = [one.id for one in by_name(store).values()]
    assert len(set(before)) == 3
    later = some(status="finished", seeds=(524, 7, 8), wall_seconds=1.0, git_commit=None)
    store.put(MANIFEST, later.model_dump_json().encode())
    assert [one.id for one in by_name(store).values()] == before
    assert whole(some(name="other")).id != before[0]
    assert whole(some(started="2026-04-12T07:15:01Z")).id != before[0]


def test_what_a_driver_leaves_running_was_interrupted_and_what_others_train_was_not(
    store: DirectoryStore,
) -> None:
    write_config(store, "augmented/seeds/7", seed=7)
    write_result(store, "augmented/seeds/7", experiment_result("augmented", status="running"))
    ours = by_name(store, "augmented", last=True)
    assert [(name, one.status) for name, one in ours.items()] == [
        (some().name, "running"), ("augmented, seed 524", "interrupted")
    ]  # fmt: skip
    assert ours["augmented, seed 524"].tags["status"] == "interrupted"
    alone = by_name(store, *some().folders, last=True)
    assert [one.status for one in alone.values()] == [
        "interrupted", "finished", "interrupted", "interrupted"
    ]  # fmt: skip
    # Sent by hand while drivers train: nobody knows better than the records.
    assert by_name(store, last=True)["augmented, seed 524"].status == "running"


def test_a_replicate_is_read_again_only_when_its_records_have_changed(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(store, frozenset(some().folders))
    before = view.entries(last=False)
    monkeypatch.setattr("tlcluster.tracking.view.read_replicate", lambda *_: pytest.fail("read"))
    assert view.entries(last=False) == before
    monkeypatch.undo()
    write_epochs(store, "augmented", epochs("augmented", 3))
    assert [len(one.epochs) for one in view.entries(last=False)] == [0, 24, 3]


def test_a_damaged_record_keeps_what_was_seen_and_is_named(store: DirectoryStore) -> None:
    view = View(store, None)
    before = view.entries(last=False)
    store.put("augmented/epochs.jsonl", b"{torn\n")
    assert view.entries(last=False) == before
    assert list(view.damaged) == ["augmented"]
    assert "augmented/epochs.jsonl, line 1: damaged record" in view.damaged["augmented"]
    write_epochs(store, "augmented", epochs("augmented", 2))
    assert view.entries(last=False) == before
    assert view.damaged == {}


# --- what is sent again, and what is not -------------------------------------------------------


class FakeSink:
    """Remembers what it is sent; fails for the names that it is told."""

    place = "the place"

    def __init__(self, *failing: str) -> None:
        self.failing, self.sent, self.reports = set(failing), list[str](), list[list[str]]()

    def send(self, entry: Entry) -> None:
        if entry.name in self.failing:
            raise RuntimeError(f"{entry.name} is refused by https://user:secret@host")
        self.sent.append(entry.name)

    def send_report(self, entry: Entry, folder: Path) -> None:
        assert entry.parent is None
        self.reports.append(sorted(path.name for path in folder.iterdir()))


def an_entry(name: str, **changes: object) -> Entry:
    run = whole(some())
    parent = None if name == "run" else run.id
    return run._replace(id=name, name=name, parent=parent, **changes)  # type: ignore[arg-type]


ENTRIES = [an_entry(name) for name in ("run", "a", "b", "c")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The courier's clock; a test moves it."""
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(couriers.time, "monotonic", lambda: found.now)
    return found


def a_courier(sink: FakeSink, said: list[str] | None = None) -> Courier:
    return Courier(lambda: sink, (said if said is not None else []).append)


def test_what_has_changed_is_sent_once() -> None:
    sink = FakeSink()
    courier = a_courier(sink)
    courier.bring(ENTRIES)
    courier.bring(ENTRIES)
    assert sink.sent == ["run", "a", "b", "c"]
    more = an_entry("b", epochs={1: {"loss": 1.0}})
    courier.bring([*ENTRIES[:2], more, ENTRIES[3]])
    assert sink.sent[4:] == ["b"]
    # Another driver may have made the run as a whole at the same time.
    courier.bring([*ENTRIES[:2], more, ENTRIES[3]], last=True)
    assert sink.sent[5:] == ["run"]
    assert (courier.why, courier.place) == (None, "the place")


def test_after_a_failure_there_is_a_pause_that_grows_and_the_end_does_not_wait_for_it(
    clock: SimpleNamespace,
) -> None:
    sink, said = FakeSink("run"), list[str]()
    courier = a_courier(sink, said)
    tries = []
    sink.send = lambda entry: tries.append(clock.now) or FakeSink.send(sink, entry)  # type: ignore[method-assign,func-returns-value]
    for _ in range(40):
        courier.bring(ENTRIES)
        clock.now += 5
    assert [b - a for a, b in pairwise(tries)] == [15, 30, 60]
    courier.bring(ENTRIES, last=True)
    assert len(tries) == 5
    # Once, and without the password.
    assert said == ["run is refused by https://…@host"]
    assert courier.why == said[0]
    sink.failing.clear()
    courier.bring(ENTRIES, last=True)
    assert sink.sent == ["run", "a", "b", "c"]
    assert courier.why is None


def test_one_replicate_that_is_refused_keeps_no_other_from_being_sent(
    clock: SimpleNamespace,
) -> None:
    sink = FakeSink("a", "b")
    courier = a_courier(sink)
    courier.bring(ENTRIES)
    assert sink.sent == ["run"]
    clock.now += LONG
    courier.bring(ENTRIES)
    assert sink.sent == ["run", "c"]
    assert "a is refused" in str(courier.why)


def test_a_library_that_cannot_be_imported_is_a_failure_like_another() -> None:
    said: list[str] = []

    def broken() -> FakeSink:
        raise ImportError("no module named protobuf\nsecond line")

    courier = Courier(broken, said.append)
    courier.bring(ENTRIES)
    assert said == ["no module named protobuf second line"]
    assert courier.place == ""


# --- from the records to the tracker -----------------------------------------------------------


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> FakeSink:
    found = FakeSink()
    monkeypatch.setitem(sys.modules, "fake_sink", SimpleNamespace(Sink=lambda: found))
    monkeypatch.setattr(senders, "POLL_SECONDS", 0.01)
    return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_followed_until_it_ends_and_then_its_report_is_sent(
    store: DirectoryStore, sink: FakeSink
) -> None:
    ended, notes = threading.Event(), list[Note]()
    order = Order(module="fake_sink", run=store.url, keys=frozenset(some().folders))
    thread = threading.Thread(target=lambda: notes.append(follow(order, ended, notes.append)))
    thread.start()
    until(lambda: len(sink.sent) == 3)
    write_epochs(store, "augmented", epochs("augmented", 3))
    until(lambda: len(sink.sent) == 4)
    write_result(store, "augmented", experiment_result("augmented"))
    store.put(MANIFEST, some(status="finished").model_dump_json().encode())
    for name in ("results.json", "curves.svg", "index.html"):
        store.put(f"{REPORT}/{name}", b"x")
    ended.set()
    thread.join(LONG)
    assert sink.sent[:4] == [*by_name(store), "augmented, seed 524"]
    assert set(sink.sent[4:]) == {some().name, "augmented, seed 524"}
    assert sink.reports == [["curves.svg", "index.html", "results.json"]]
    assert notes == [Note(text="the place", last=True, sent=True)]


def test_a_report_that_is_not_whole_is_not_sent(store: DirectoryStore, sink: FakeSink) -> None:
    store.put(f"{REPORT}/results.json", b"x")
    ended = threading.Event()
    ended.set()
    assert follow(Order(module="fake_sink", run=store.url, keys=None), ended, print).sent
    assert sink.reports == []


def test_the_last_note_says_why_something_is_not_there(
    store: DirectoryStore, sink: FakeSink
) -> None:
    ended, notes = threading.Event(), list[Note]()
    ended.set()
    order = Order(module="fake_sink", run=store.url, keys=None)
    sink.failing.add("augmented, seed 524")
    last = follow(order, ended, notes.append)
    assert (last.sent, last.text) == (
        False, "augmented, seed 524 is refused by https://…@host"
    )  # fmt: skip
    sink.failing.clear()
    store.put("augmented/result.json", b"{torn")
    assert "augmented/result.json: damaged record" in follow(order, ended, notes.append).text
    store.delete(MANIFEST)
    assert "no run here" in follow(order, ended, notes.append).text
    # It is in the last note, so it need not be said before.
    assert notes == []


# --- processes ---------------------------------------------------------------------------------


SINKS = {
    "good": "place = 'here'\n    send = send_report = lambda *_: None",
    "hanging": "place = ''\n    send = lambda *_: __import__('time').sleep(1000)",
    "refusing": "place = ''\n    def send(self, entry): raise RuntimeError('401 at http://u:p@h')",
    "dying": "place = ''\n    send = lambda *_: __import__('os')._exit(3)",
    "talking": "place = 'there'\n    send = send_report = lambda *_: print('{}') or"
    " __import__('os').system('echo noise; echo noise >&2')",
}
"""Name of a module → its sink."""


@pytest.fixture
def fake_trackers(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The environment of a run that is sent to all of them."""
    folder = tmp_path_factory.mktemp("modules")
    for name, body in SINKS.items():
        (folder / f"{name}_sink.py").write_text(f"class Sink:\n    {body}\n")
    found = {
        Tracker(name, "json", "", f"{name}_sink", ""): "A" for name in SINKS
    }  # fmt: skip
    monkeypatch.setattr(processes, "asked", lambda _: found)
    return {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}  # type: ignore[return-value]


def test_a_run_waits_for_no_tracker_longer_than_it_is_told(
    store: DirectoryStore, fake_trackers: dict[str, str]
) -> None:
    said: list[str] = []
    began = time.monotonic()
    with sending(store.url, frozenset(some().folders), fake_trackers, said.append) as trackers:
        assert time.monotonic() - began < 2
        busy = [one for one in trackers._processes if one.tracker.name != "hanging"]
        until(lambda: any("401" in line for line in said))
        ended = time.monotonic()
        assert not trackers.finish(
            "RUN", lambda: math.inf if not all(one.ended() for one in busy) else 0.0
        )
        assert time.monotonic() - ended < LONG
        pids = [one._popen.pid for one in trackers._processes]
    assert said[0] == ("refusing: 401 at http://…@h; the run goes on, and it is tried again later")
    rest = "; `python jobs/track.py --run RUN` sends the rest"
    assert dict(line.split(": ", 1) for line in said[1:]) == {
        "good": "here",
        "hanging": f"not everything was sent (it took too long){rest}",
        "refusing": f"not everything was sent (401 at http://…@h){rest}",
        "dying": f"not everything was sent (the process that sends has died){rest}",
        "talking": "there",
    }
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_tracker_that_cannot_be_asked_costs_a_line(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    absent = MLFLOW._replace(library="no_such_library")
    monkeypatch.setattr(processes, "asked", lambda _: {absent: "MLFLOW_TRACKING_URI"})
    with sending(store.url, None, {}, said.append) as trackers:
        assert trackers.finish(store.url, lambda: 0.0)
    assert len(said) == 1
    assert said[0].startswith("MLFLOW_TRACKING_URI is set, but no_such_library is not installed")


def test_the_command_says_what_to_set_and_what_is_no_run(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no tracker is named: set MLFLOW_TRACKING_URI for MLflow"):
        commands.track(["--run", store.url], "track")
    with pytest.raises(UserError, match="no such directory"):
        commands.track(["--run", str(tmp_path / "absent")], "track")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="mlflow is not installed"):
        commands.track(["--run", store.url], "track")


def test_a_run_that_was_asked_to_stop_waits_less() -> None:
    stopping = StopRequests()
    wait = patience(stopping, ended=100.0)
    assert wait() == 100.0 + processes.FINISH_SECONDS
    stopping.first = Stop(SIGNALS[0], 130.0)
    assert wait() == 130.0 + processes.STOPPED_SECONDS
    stopping.first = Stop(SIGNALS[0], 40.0)
    assert wait() == 100.0 + processes.STOPPED_SECONDS
