"""Between Ray Train and training: what Ray starts on a node, and what it is given."""

import socket
from collections.abc import Mapping
from typing import NamedTuple

import ray
import ray.train

from tlcluster.checkup.versions import difference, versions
from tlcluster.errors import UserError
from tlcluster.records import EpochRecord
from tlcluster.training.diary import opened
from tlcluster.training.progress import Progress, now_and_then
from tlcluster.training.task import Task


class Order(NamedTuple):
    """What the driver hands to every worker of an experiment."""

    task: Task
    weights: "list[ray.ObjectRef]"
    """One reference to the bytes of the ImageNet weights, or to None. Ray moves the bytes to a node
    once; inside a list they arrive as a reference, not as a copy in every message."""
    board: "ray.actor.ActorHandle"
    versions: Mapping[str, str]
    """Those of the driver, which every worker must have."""


def run_worker(order: dict[str, Order]) -> None:
    """The training function of an experiment's TensorflowTrainer.

    Raises:
        UserError: a person must change something. The board learns it first.
        StoreUnavailable: storage did not answer for `Task.storage_wait` seconds.
    """
    told = order["order"]
    name = told.task.folder
    told.board.hello.remote(name, ray.get_runtime_context().current_actor)
    try:
        refuse_other_versions(told.versions)
        _train(told)
    except UserError as error:
        # Ray turns exceptions into text. The driver needs this one as it is.
        ray.get(told.board.fail.remote(name, str(error)))
        raise


def refuse_other_versions(drivers: Mapping[str, str]) -> None:
    """Raises UserError if libraries of this node have other versions than those of the driver."""
    if wrong := difference(versions(), drivers):
        raise UserError(f"{socket.gethostname()}: {wrong}")


def _train(order: Order) -> None:
    task, board = order.task, order.board
    context = ray.train.get_context()
    name, rank = task.folder, context.get_world_rank()
    diary, pages = opened(rank)
    board.keeps.remote(name, ray.get_runtime_context().get_node_id(), pages)
    diary.does("import of TensorFlow")
    # The driver and Ray's controllers import this module too, and need no TensorFlow.
    from tlcluster.training.train import Place, train  # noqa: PLC0415

    def report(record: EpochRecord) -> None:
        ray.train.report(record.model_dump())

    def progress(now: Progress) -> bool:
        return bool(ray.get(board.post.remote(name, now)))

    def away(seconds: float, why: str) -> None:
        # Without waiting for an answer: it may be called by any thread.
        board.away.remote(name, rank, seconds, why)

    place = Place(
        rank=rank,
        world_size=context.get_world_size(),
        report=report,
        progress=now_and_then(progress),
        away=away,
        diary=diary,
    )
    train(task, place, ray.get(order.weights[0]))
