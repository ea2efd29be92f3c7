"""Names private to Ray: what they give, and that a run does without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlcluster.orchestration.ray_internals import noticed, worker_failures

ROOT = Path(__file__).parents[2]
LOADED = "import sys; print(sorted({'tensorflow', 'tf_keras', 'keras'} & sys.modules.keys()))"


def printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def test_the_driver_does_not_import_tensorflow() -> None:
    assert printed(f"import tlcluster.orchestration.suite; {LOADED}") == "[]"


def test_ray_s_own_way_would_import_it() -> None:
    """Or this project could do without the detour."""
    assert "tensorflow" in printed(f"from ray.train.tensorflow import TensorflowTrainer; {LOADED}")


@pytest.mark.parametrize("first", ["ray", "ray.train", "ray.train.v2"])
def test_the_configuration_of_a_trainer_is_read_without_it(first: str) -> None:
    """As Ray's controllers do, after the hook with which their processes start."""
    code = (
        "from tlcluster.orchestration.ray_internals import leave_tensorflow_out; "
        "leave_tensorflow_out(); "
        f"import {first}; from ray import cloudpickle; "
        "from ray.train.tensorflow import TensorflowConfig; "
        "cloudpickle.loads(cloudpickle.dumps(TensorflowConfig())); "
    )
    assert printed(code + LOADED) == "[]"


def test_asked_twice_it_is_in_the_way_once() -> None:
    code = (
        "import sys; from tlcluster.orchestration.ray_internals import leave_tensorflow_out; "
        "before = len(sys.meta_path); leave_tensorflow_out(); leave_tensorflow_out(); "
        "print(len(sys.meta_path) - before)"
    )
    assert printed(code) == "1"


TRAINER = """
import sys
from ray.train import ScalingConfig
from tlcluster.orchestration.ray_internals import new_trainer

trainer = new_trainer(None, "frozen", print, scaling_config=ScalingConfig(num_workers=1))
plain = sys.modules["ray.train.tensorflow"].TensorflowTrainer
print(type(trainer).__name__, isinstance(trainer, plain))
print(*sorted(type(one).__name__ for one in trainer._create_default_callbacks()))
"""

PRIVATE = {
    "ray.train.v2._internal.callbacks": "DatasetsCallback",
    "ray.train.v2._internal.callbacks.placement_group_callback": "PlacementGroupCleanerCallback",
    "ray.train.v2._internal.execution.callback": "WorkerGroupCallback",
}


def without(module: str, name: str) -> str:
    """Python that takes a name away from a module, after Ray itself has used it."""
    return (
        "from tlcluster.orchestration.ray_internals import leave_tensorflow_out\n"
        "leave_tensorflow_out()\n"
        f"import importlib, ray.train.tensorflow\n"
        f"delattr(importlib.import_module({module!r}), {name!r})\n"
    )


def test_a_trainer_leaves_out_what_nobody_uses_and_reports_to_the_board() -> None:
    kind, callbacks = printed(TRAINER).splitlines()
    assert kind == "LeanTrainer True"
    assert "Reporter" in callbacks.split()
    assert not {"DatasetsCallback", "PlacementGroupCleanerCallback"} & set(callbacks.split())


@pytest.mark.parametrize(("module", "name"), PRIVATE.items())
def test_if_a_private_name_is_missing_the_plain_trainer_has_its_default_callbacks(
    module: str, name: str
) -> None:
    kind, callbacks = printed(without(module, name) + TRAINER).splitlines()
    assert kind == "TensorflowTrainer True"
    assert {"DatasetsCallback", "PlacementGroupCleanerCallback"} <= set(callbacks.split())
    assert "Reporter" not in callbacks


def test_if_ray_s_inner_layout_is_another_its_package_is_imported_as_it_is() -> None:
    code = (
        "import sys; sys.modules['ray.train.v2.tensorflow.tensorflow_trainer'] = None; "
        "from tlcluster.orchestration.ray_internals import leave_tensorflow_out; "
        "leave_tensorflow_out(); "
        "\ntry:\n    import ray.train.tensorflow\nexcept ImportError as error:\n    print(error)\n"
    )
    # Ray's own `__init__` has run, and met the missing module itself.
    said = printed(code + LOADED).splitlines()
    assert "ray.train.v2.tensorflow.tensorflow_trainer" in said[0]
    assert "tensorflow" in said[1]


def test_if_the_name_of_the_exception_is_missing_no_failure_is_one_of_placement() -> None:
    code = """
from types import SimpleNamespace
from ray.train.v2._internal import exceptions
from tlcluster.orchestration.ray_internals import never_placed

failure = SimpleNamespace(controller_failure=exceptions.WorkerGroupStartupTimeoutError(1))
print(never_placed(failure), never_placed(SimpleNamespace()))
del exceptions.WorkerGroupStartupTimeoutError
print(never_placed(failure))
"""
    assert printed(code) == "True False\nFalse"


def test_a_failure_without_private_attributes_is_told_by_itself() -> None:
    failure = ValueError("no")
    assert worker_failures(failure) == {0: failure}
    assert noticed(failure) is failure


PLAIN = """
import pathlib, sys, tempfile
import ray
from ray.train import RunConfig, ScalingConfig
from tlcluster.orchestration.cluster import ray_cluster
from tlcluster.orchestration.ray_internals import new_trainer

folder = pathlib.Path(sys.argv[1])

def train():
    (folder / str(ray.train.get_context().get_world_rank())).touch()

with ray_cluster(None):
    new_trainer(
        None, "frozen", train,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.1}),
        run_config=RunConfig(storage_path=str(folder / "ray")),
    ).fit()
"""


@pytest.mark.cluster
def test_the_plain_trainer_trains(tmp_path: Path) -> None:
    code = without("ray.train.v2._internal.callbacks", "DatasetsCallback") + PLAIN
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").exists()
