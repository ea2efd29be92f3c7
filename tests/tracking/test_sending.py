"""A run never waits long for a tracker, whatever that does."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked_run import LONG, some, until

from tlcluster import commands
from tlcluster.errors import UserError
from tlcluster.orchestration.state import Stop
from tlcluster.orchestration.stopping import SIGNALS, StopRequests
from tlcluster.orchestration.suite import patience
from tlcluster.storage.directory import DirectoryStore
from tlcluster.tracking import process as processes
from tlcluster.tracking import trackers
from tlcluster.tracking.process import sending
from tlcluster.tracking.trackers import MLFLOW, Tracker

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
