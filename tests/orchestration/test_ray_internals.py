"""Ray Train without TensorFlow: where it is not needed it must not come, where it is it must."""

import subprocess
import sys
from pathlib import Path

import pytest

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
