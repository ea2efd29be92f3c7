"""What nodes answer that are asked about hanging workers, or that they do not. Ray is played."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from tlcluster.orchestration import questions
from tlcluster.orchestration.questions import ANSWER_SECONDS, Questions
from tlcluster.records import RankRecord
from tlcluster.training.diary import Pages
from tlcluster.training.witness import unknown


class Ray:
    """Nodes that answer when a test says so."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.ready: dict[str, Any] = {}
        """Node → its answer."""
        self.asked: list[tuple[str, list[Pages]]] = []
        self.cancelled: list[str] = []

    def witness(self, node: str) -> Any:
        return SimpleNamespace(remote=lambda workers: self.asked.append((node, workers)) or node)

    def wait(self, answers: list[str], **_: object) -> tuple[list[str], list[str]]:
        return [a for a in answers if a in self.ready], [a for a in answers if a not in self.ready]

    def get(self, answer: str) -> Any:
        if isinstance(self.ready[answer], Exception):
            raise self.ready[answer]
        return self.ready[answer]

    def cancel(self, answer: str, *, force: bool) -> None:
        assert force
        self.cancelled.append(answer)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Ray:
    played = Ray()
    monkeypatch.setattr(questions, "ray", played)
    monkeypatch.setattr(questions, "_witness", played.witness)
    return played


WORKERS = [Pages(rank, f"host{rank % 2}", 100 + rank, "1", 3, 4, 5) for rank in range(3)]
DIARIES = [(f"node{one.rank % 2}", one) for one in WORKERS]
STANDS = [unknown(one, "sleeping") for one in WORKERS]


def processes(ranks: tuple[RankRecord, ...]) -> list[str]:
    return [one.process for one in ranks]


def test_each_node_is_asked_once_and_the_answers_come_by_rank(nodes: Ray) -> None:
    asking = Questions()
    asking.ask("frozen", DIARIES, now=0.0)
    assert nodes.asked == [("node0", [WORKERS[0], WORKERS[2]]), ("node1", [WORKERS[1]])]
    assert asking.answers(1.0) == {}
    nodes.ready["node0"] = [STANDS[0], STANDS[2]]
    assert asking.answers(2.0) == {}
    nodes.ready["node1"] = [STANDS[1]]
    assert asking.answers(3.0) == {"frozen": tuple(STANDS)}
    assert nodes.cancelled == []
    asking.ask("frozen", [("node2", WORKERS[0])], now=4.0)
    assert asking.answers(5.0) == {}


def test_a_node_that_is_lost_or_does_not_answer_is_said_of_its_workers(nodes: Ray) -> None:
    asking = Questions()
    asking.ask("frozen", DIARIES, now=0.0)
    nodes.ready["node0"] = ray.exceptions.RayError("it is gone")
    assert asking.answers(ANSWER_SECONDS) == {}
    found = asking.answers(ANSWER_SECONDS + 1.0)["frozen"]
    lost, silent = "unknown: its node was lost", "unknown: its node did not answer in 60 s"
    assert processes(found) == [lost, silent, lost]
    assert nodes.cancelled == ["node1"]


def test_workers_that_have_not_said_where_they_are_are_known_at_once_to_be_unknown(
    nodes: Ray,
) -> None:
    asking = Questions()
    asking.ask("frozen", [], now=0.0)
    assert nodes.asked == []
    assert asking.answers(0.1) == {"frozen": ()}
