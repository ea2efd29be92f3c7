"""The workers of a trial: what is reserved for them, and how a group ends. Ray is played."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from tlcluster.errors import UserError
from tlcluster.orchestration.admission import Admission
from tlcluster.tuning import workers
from tlcluster.tuning.ray_tune import reservation
from tlcluster.tuning.records import Planned
from tlcluster.tuning.workers import Group, WorkerDied, free_address

PLANNED = Planned(0, "recipe", 0, 1, {})


def admission(count: int, gpus: float = 0.0) -> Admission:
    return Admission(count, cpus_per_worker=2.0, gpus_per_worker=gpus, at_once=1, threads=2)


def test_one_worker_is_the_process_that_tune_starts_and_several_have_a_bundle_each() -> None:
    alone = reservation(admission(1))
    assert alone.bundles == [{"CPU": 2.0}]
    assert not alone.head_bundle_is_empty
    group = reservation(admission(3, gpus=0.5))
    assert group.bundles == [{"CPU": 2.0, "GPU": 0.5}] * 3
    assert group.head_bundle_is_empty


def test_an_address_is_a_port_of_the_host_that_nobody_has() -> None:
    host, _, port = free_address("127.0.0.1").rpartition(":")
    assert host == "127.0.0.1"
    with socket.create_server((host, int(port))):
        pass


class Played:
    """Ray for one group, whose workers answer at once, with a value or an exception."""

    exceptions = workers.ray.exceptions
    util = workers.ray.util

    def __init__(self, **answers: list[object]) -> None:
        """Method → what each worker answers, by rank; a method that is missing answers None."""
        self.answers = answers
        self.told: list[tuple[int, str, tuple[object, ...]]] = []
        self.killed: list[int] = []

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._worker))

    def _worker(self, _: object, rank: int, count: int) -> Any:
        assert count == 2

        def method(name: str) -> Any:
            def call(*arguments: object) -> object:
                self.told.append((rank, name, arguments))
                return self.answers.get(name, [None, None])[rank]

            return SimpleNamespace(remote=call)

        names = ("start", "meet", "begin", "epoch")
        return SimpleNamespace(rank=rank, **{name: method(name) for name in names})

    def kill(self, worker: Any) -> None:
        self.killed.append(worker.rank)

    def wait(self, answers: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return [answers[0]], answers[1:]

    def get(self, answer: Any, **_: object) -> Any:
        if isinstance(answer, list):
            return answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def played(monkeypatch: pytest.MonkeyPatch, **answers: list[object]) -> tuple[Played, Group]:
    ray = Played(**answers)
    monkeypatch.setattr(workers, "ray", ray)
    bundles: Any = SimpleNamespace(bundle_specs=[{"CPU": 1.0}, {"CPU": 1.0}])
    order: Any = None
    return ray, Group(order, bundles)


def test_a_group_starts_once_and_the_look_of_the_first_worker_is_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray, group = played(monkeypatch, start=["a:1", "b:2"], epoch=["first", "second"])
    group.begin(PLANNED)
    group.begin(PLANNED)
    assert [name for rank, name, _ in ray.told if rank == 1] == ["start", "meet", "begin", "begin"]
    assert (1, "meet", (["a:1", "b:2"],)) in ray.told
    assert group.epoch() == "first"
    group.leave()
    assert ray.killed == [0, 1]


def test_the_death_of_a_process_counts_not_what_the_others_say_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = RayTaskError("epoch", "…", RuntimeError("connection reset"))
    ray, group = played(monkeypatch, epoch=[broken, ActorDiedError()])
    group.begin(PLANNED)
    with pytest.raises(WorkerDied, match="the process of worker 1 died"):
        group.epoch()
    assert ray.killed == [0, 1]
    group.begin(PLANNED)  # with new ones
    assert sum(name == "start" for _, name, _ in ray.told) == 4


def test_an_error_of_a_worker_is_raised_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    error = UserError("node-b: tlcluster is 0.1.0, and 0.2.0 at the driver")
    ray, group = played(monkeypatch, start=["a:1", RayTaskError("start", "…", error)])
    with pytest.raises(UserError) as caught:
        group.begin(PLANNED)
    assert caught.value is error
    assert ray.killed == [0, 1]
