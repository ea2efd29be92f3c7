"""What the dry run of a search says about workers."""

from pathlib import Path
from typing import Any

import pytest

from tlcluster.errors import UserError
from tlcluster.orchestration import ready
from tlcluster.records import NodeRecord
from tlcluster.settings import TuneSettings
from tlcluster.storage.protocol import Store
from tlcluster.tuning import suite
from tlcluster.tuning.suite import run_tuning


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with eight cores and two GPUs each."""
    nodes = (NodeRecord(host="here", cpus=8, gpus=2, memory_bytes=1),) * 2
    monkeypatch.setattr(ready, "local_nodes", lambda: nodes)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # It traces a model, in a process that imports TensorFlow.
    monkeypatch.setattr(suite, "trial_seconds", lambda _: {"frozen": 61.0})


def planned(store: Store, folder: Path, **flags: Any) -> None:
    given: dict[str, Any] = {"store": store.url, "output": str(folder), "weights": ("none",)}
    settings = TuneSettings(experiments="frozen", dry_run=True, **given, **flags)
    assert run_tuning(settings, "tune", 0.0) == 0


@pytest.mark.parametrize(
    ("flags", "at_once"),
    [
        ({"gpus_per_worker": 0}, "16 of 20, each with 1 worker of 1 CPUs and 0 GPUs"),
        ({"gpus_per_worker": 0, "workers": "2"}, "8 of 20, each with 2 workers of 1 CPUs and 0"),
        ({"workers": "2"}, "8 of 20, each with 2 workers of 1 CPUs and 0.25 GPUs"),
        ({"workers": "1:8", "trials": 2}, "2 of 2, each with 2 workers of 1 CPUs and 1 GPUs"),
    ],
)
def test_it_says_how_many_trials_run_at_once_and_what_their_workers_reserve(
    sample_store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: dict[str, Any],
    at_once: str,
) -> None:
    planned(sample_store, tmp_path / "runs", **flags)
    said = capsys.readouterr().out
    assert "cluster    2 nodes, 16 CPUs, 4 GPUs\n" in said
    assert f"at once    {at_once}" in said
    assert "frozen: " in said
    assert "at most 12 epochs, the first about 1:01, in\n" in said
    assert not (tmp_path / "runs").exists()


def test_workers_for_which_there_is_no_room_are_refused(
    sample_store: Store, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--workers 9: a worker reserves 2 CPUs"):
        planned(sample_store, tmp_path, workers="9", cpus_per_worker=2, gpus_per_worker=0)
