"""How many workers an attempt gets once nodes may have been lost."""

from types import SimpleNamespace
from typing import Any

import pytest

from tlcluster.orchestration import trainer
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.trainer import workers_now
from tlcluster.records import NodeRecord
from tlcluster.settings import RunSettings


@pytest.mark.parametrize(
    ("cpus", "others", "settings", "workers"),
    [
        (8, 0, {"workers": "1:4"}, 4),
        (8, 1, {"workers": "1:4"}, 4),
        # Two CPUs were lost: what the other experiment has is not free.
        (6, 1, {"workers": "1:4"}, 2),
        (3, 0, {"workers": "1:4"}, 3),
        (3, 0, {"workers": "4:4"}, 4),
        (2, 1, {"workers": "1:4"}, 1),
        (3, 0, {"workers": "1:4", "scale_batch": True}, 4),
    ],
)
def test_an_attempt_has_the_workers_that_still_fit(
    cpus: int,
    others: int,
    settings: dict[str, Any],
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = NodeRecord(host="a", cpus=cpus, gpus=0, memory_bytes=1)
    monkeypatch.setattr(trainer, "nodes", lambda: (node,))
    ready = SimpleNamespace(
        settings=RunSettings(**settings), admission=Admission(4, 1.0, 0.0, 2, 1)
    )
    assert workers_now(ready, others) == workers  # type: ignore[arg-type]
