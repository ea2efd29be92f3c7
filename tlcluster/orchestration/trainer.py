"""Ray Train's TensorflowTrainer with as few processes as an experiment needs.

Every process of Ray's costs 2 seconds of a core to start and 200 MB, and Ray
Train starts helpers whether they are used or not: six processes for one worker.
Here it is three: the controller, the meeting point of the workers, the worker.
"""

import ray
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    RayTrainCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from tlcluster.orchestration.ray_internals import leave_tensorflow_out

leave_tensorflow_out()
from ray.train.tensorflow import TensorflowTrainer  # noqa: E402

UNUSED = (
    # Hands out Ray Datasets; ours are streamed by the workers themselves.
    DatasetsCallback,
    # Watches the controller, to free what the workers had reserved should it die; see `_Tell`.
    PlacementGroupCleanerCallback,
)


class LeanTrainer(TensorflowTrainer):  # type: ignore[misc]
    """Takes `board`, an actor that is told who and what belongs to `experiment`."""

    def __init__(
        self, *arguments: object, board: "ray.actor.ActorHandle", experiment: str, **named: object
    ) -> None:
        super().__init__(*arguments, **named)
        self._tell = _Tell(board, experiment)

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [*(one for one in callbacks if not isinstance(one, UNUSED)), self._tell]


class _Tell(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Tells the board who the controller is, and which placement group the workers have.

    Ray frees a placement group when the controller ends the workers, or when the job ends. A
    controller that dies does neither; then the driver frees it, for the next attempt to have room.
    """

    def __init__(self, board: "ray.actor.ActorHandle", experiment: str) -> None:
        self._board, self._experiment = board, experiment

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:  # noqa: ARG002
        me = ray.get_runtime_context().current_actor
        self._board.controlled.remote(self._experiment, me)

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        ray.get(self._board.reserved.remote(self._experiment, group))
