"""Asks nodes where hanging workers stand, without waiting for the answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tlcluster.records import RankRecord
from tlcluster.training.diary import Pages
from tlcluster.training.witness import seen, unknown

ANSWER_SECONDS = 60.0
"""Time for the nodes. Ray may have to start a process there, and the node may be overloaded."""


class _Asked(NamedTuple):
    """One question to one node."""

    answer: Any
    """Ray's reference to a list of RankRecord."""
    workers: Sequence[Pages]
    until: float


class Questions:
    """The questions about the latest attempt of each experiment, and their answers."""

    def __init__(self) -> None:
        self._asked: dict[str, list[_Asked]] = {}
        self._answers: dict[str, tuple[RankRecord, ...]] = {}

    def ask(self, name: str, diaries: Sequence[tuple[str, Pages]], now: float) -> None:
        """Ask the nodes of an experiment; an earlier answer is forgotten.

        Args:
            name: of the experiment.
            diaries: the node, by its id, and the diary of each worker.
            now: in seconds of `time.monotonic`.
        """
        by_node = defaultdict(list)
        for node, pages in diaries:
            by_node[node].append(pages)
        self._answers.pop(name, None)
        self._asked[name] = [
            _Asked(_witness(node).remote(workers), workers, now + ANSWER_SECONDS)
            for node, workers in by_node.items()
        ]

    def answers(self, now: float) -> Mapping[str, tuple[RankRecord, ...]]:
        """Experiment → all its workers by rank, if all its nodes have answered or their time is
        over."""
        for name, asked in list(self._asked.items()):
            answers = [one.answer for one in asked]
            done = ray.wait(answers, num_returns=len(answers), timeout=0)[0] if answers else []
            if len(done) == len(answers) or now > asked[0].until:
                del self._asked[name]
                ranks = [rank for one in asked for rank in _said(one, one.answer in done)]
                self._answers[name] = tuple(sorted(ranks, key=lambda one: one.rank))
        return self._answers


def _witness(node: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(seen).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)


def _said(one: _Asked, answered: bool) -> list[RankRecord]:
    if not answered:
        ray.cancel(one.answer, force=True)
        silent = f"unknown: its node did not answer in {ANSWER_SECONDS:g} s"
        return [unknown(worker, silent) for worker in one.workers]
    try:
        found: list[RankRecord] = ray.get(one.answer)
    except ray.exceptions.RayError:
        return [unknown(worker, "unknown: its node was lost") for worker in one.workers]
    return found
