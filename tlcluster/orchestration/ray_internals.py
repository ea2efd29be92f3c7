"""Every name that is private to Ray, with what happens where a version of Ray lacks it.

Ray Train starts six processes for an experiment with one worker. Each takes
two CPU-seconds and 200 MB, and the driver and the controllers import TensorFlow
without using it. Three processes are enough: the controller, the meeting point
of the workers, and the worker. Ray has no public way to say so.

If a name is missing, the plain `TensorflowTrainer` runs with its default
callbacks: the same results, from more processes.

This module imports Ray only inside functions. Ray imports it in each of its
processes, for `leave_tensorflow_out`.
"""

import contextlib
import functools
import importlib.machinery
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

from tlcluster.paths import CHECKOUT, IN_CHECKOUT

PACKAGE = "ray.train.tensorflow"

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which Ray tells the driver of a submitted job about its `runtime_env`."""


class _WithoutTensorflow(MetaPathFinder, Loader):
    """Finds `ray.train.tensorflow` and gives it two names instead of running its `__init__`."""

    def __init__(self) -> None:
        self._original: Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None:
            self._original, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        try:
            from ray.train.tensorflow.config import TensorflowConfig  # noqa: PLC0415
            from ray.train.v2.tensorflow.tensorflow_trainer import (  # noqa: PLC0415
                TensorflowTrainer,
            )
        except ImportError:
            if self._original is None:
                raise
            self._original.exec_module(module)
        else:
            vars(module).update(
                TensorflowConfig=TensorflowConfig, TensorflowTrainer=TensorflowTrainer
            )


def leave_tensorflow_out() -> None:
    """Let this process import `ray.train.tensorflow` without TensorFlow.

    Call it before anything imports that package. The driver calls it, and every process of Ray's
    as it starts (`worker_process_setup_hook`). The workers import TensorFlow themselves.
    """
    if not any(isinstance(finder, _WithoutTensorflow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutTensorflow())


LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For `on_loopback`; Ray's own processes read it."""


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started inside the block listens on loopback, as it always does on macOS.

    `LOOPBACK` must be set in the environment. If the name is missing, Ray listens on all
    interfaces; its token keeps others out.
    """
    try:
        from ray._private import ray_constants  # noqa: PLC0415

        before = ray_constants.ENABLE_RAY_CLUSTER
    except (ImportError, AttributeError):
        yield
        return
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def forget_token() -> None:
    """Let this process read its token again. Ray keeps the first one that it has read."""
    with contextlib.suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # noqa: PLC0415

        AuthenticationTokenLoader.instance().reset_cache()


def job_runtime_env() -> Mapping[str, Any]:
    """The `runtime_env` of the submitted job that this process drives; empty outside of a job.

    Ray refuses a key that is both there and in `ray.init`, even with the same value.
    """
    try:
        config = json.loads(os.environ.get(JOB_CONFIG, "{}"))
        return dict(config.get("runtime_env") or {})
    except (ValueError, AttributeError, TypeError):
        return {}


class _Only(list[str]):
    """Paths that nothing is added to."""

    def extend(self, _: object) -> None:
        pass


def job_config() -> Any:
    """How workers of this driver find modules: for `ray.init(job_config=…)`.

    Ray puts the driver's working directory first on the path of every worker, in which a module
    of the user's own, such as `random.py`, would be imported instead of the one that is meant. Only
    the folder around this package is added here. If the name is missing, Ray does as it does.
    """
    from ray.job_config import JobConfig  # noqa: PLC0415

    config = JobConfig()
    if hasattr(config, "_py_driver_sys_path"):
        config._py_driver_sys_path = _Only(
            # Ray gives the workers of a submitted job the folder that was submitted.
            [str(CHECKOUT)] if IN_CHECKOUT and JOB_CONFIG not in os.environ else []
        )
    return config


def new_trainer(board: object, experiment: str, *arguments: object, **named: object) -> Any:
    """A `TensorflowTrainer` that starts no process without a use and reports to the board.

    Args:
        board: the actor of `tlcluster.orchestration.board.Board`.
        experiment: the name that the board knows.
        arguments, named: what `TensorflowTrainer` takes.
    """
    leave_tensorflow_out()
    from ray.train.tensorflow import TensorflowTrainer  # noqa: PLC0415

    try:
        lean = _lean_trainer()
    except ImportError:
        return TensorflowTrainer(*arguments, **named)
    trainer = lean(*arguments, **named)
    trainer.reporter = _reporter()(board, experiment)
    return trainer


@functools.cache
def _lean_trainer() -> Any:
    """The class of `new_trainer`. Raises ImportError if a private name of Ray's is missing."""
    from ray.train.tensorflow import TensorflowTrainer  # noqa: PLC0415
    from ray.train.v2._internal.callbacks import DatasetsCallback  # noqa: PLC0415
    from ray.train.v2._internal.callbacks.placement_group_callback import (  # noqa: PLC0415
        PlacementGroupCleanerCallback,
    )

    _reporter()
    unused = (
        # Hands out Ray Datasets. Our workers stream the data themselves.
        DatasetsCallback,
        # Watches the controller and frees the workers' resources if it dies. The driver does that
        # with what the reporter tells the board.
        PlacementGroupCleanerCallback,
    )

    class LeanTrainer(TensorflowTrainer):  # type: ignore[misc]
        reporter: object

        def _create_default_callbacks(self) -> list[object]:
            callbacks = super()._create_default_callbacks()
            return [*(one for one in callbacks if not isinstance(one, unused)), self.reporter]

    return LeanTrainer


@functools.cache
def _reporter() -> Any:
    """The class of the callback that tells the board about an attempt.

    It reports the controller and the placement group. Ray frees a placement group when the
    controller ends the workers or when the job ends. If the controller dies, the driver has to free
    it, or the next attempt has no room.
    """
    import ray  # noqa: PLC0415
    from ray.train.v2._internal.execution.callback import (  # noqa: PLC0415
        ControllerCallback,
        WorkerGroupCallback,
    )

    class Reporter(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
        def __init__(self, board: Any, experiment: str) -> None:
            self._board, self._experiment = board, experiment

        def after_controller_start(self, train_run_context: object) -> None:  # noqa: ARG002
            me = ray.get_runtime_context().current_actor
            self._board.controlled.remote(self._experiment, me)

        def after_worker_group_start(self, worker_group: Any) -> None:
            with contextlib.suppress(AttributeError):
                state = worker_group.get_worker_group_state()
                group = state.placement_group_handle.placement_group
                ray.get(self._board.reserved.remote(self._experiment, group))

    return Reporter


def never_placed(failure: Exception) -> bool:
    """Whether Ray Train gave up waiting for the resources of an attempt's workers."""
    try:
        from ray.train.v2._internal.exceptions import (  # noqa: PLC0415
            WorkerGroupStartupTimeoutError,
        )
    except ImportError:
        return False
    cause = getattr(failure, "controller_failure", None)
    return isinstance(cause, WorkerGroupStartupTimeoutError)


def worker_failures(failure: Exception) -> Mapping[int, Exception]:
    """Rank → exception, if an attempt failed because of its workers; otherwise 0 → `failure`."""
    return getattr(failure, "worker_failures", None) or {0: failure}


def noticed(error: Exception) -> Exception:
    """What the health check noticed, if the exception of a worker is that the check failed."""
    found: Exception = getattr(error, "health_check_failure", error)
    return found
