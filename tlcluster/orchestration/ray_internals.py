"""Ray Train's TensorflowTrainer, without TensorFlow in the processes that never use it.

`ray.train.tensorflow` imports TensorFlow wherever it is mentioned: in the driver
and in the controller that Ray starts for every experiment. Each takes seconds of
a core and hundreds of MB for nothing. What a trainer needs of that package needs
no TensorFlow; only the workers do, and they import it themselves.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

PACKAGE = "ray.train.tensorflow"


class _WithoutTensorflow(MetaPathFinder, Loader):
    """Finds `ray.train.tensorflow` and runs this instead of its `__init__`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        from ray.train.tensorflow.config import TensorflowConfig  # noqa: PLC0415
        from ray.train.v2.tensorflow.tensorflow_trainer import (  # noqa: PLC0415
            TensorflowTrainer,
        )

        vars(module).update(TensorflowConfig=TensorflowConfig, TensorflowTrainer=TensorflowTrainer)


def leave_tensorflow_out() -> None:
    """Let `ray.train.tensorflow` come without TensorFlow in this process.

    To be called before anything imports that package: by the driver, and by every process of Ray's
    as it starts (`worker_process_setup_hook`).
    """
    if not any(isinstance(finder, _WithoutTensorflow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutTensorflow())
