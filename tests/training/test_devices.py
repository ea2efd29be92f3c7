"""What a worker may compute on, decided from what it reserved and what it sees.

No GPU is needed: the GPUs here are values with names of fakes.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.training.devices import (
    BFLOAT16,
    FLOAT32,
    Cuda,
    Gpu,
    around_proxy,
    collective_implementation,
    device_fault,
    kernel_cache,
    possible_precisions,
    precision_on,
)

ALL_THERE = Cuda(tensorflow=True, driver=True, libraries=True, visible="0")
FAKE_7_0 = Gpu("Fake V100", (7, 0))
FAKE_9_0 = Gpu("Fake H100", (9, 0))
FAKE_10_0 = Gpu("Fake B200", (10, 0))
FAKE_5_2 = Gpu("Fake M40", (5, 2))

shares = st.sampled_from([0.01, 0.25, 0.5, 0.51, 1.0])


@given(
    seen=st.lists(st.sampled_from([FAKE_5_2, FAKE_7_0, FAKE_9_0, FAKE_10_0])),
    cuda=st.builds(Cuda, st.booleans(), st.booleans(), st.booleans(), st.none()),
)
def test_a_worker_that_reserved_no_gpu_needs_none(seen: list[Gpu], cuda: Cuda) -> None:
    assert device_fault(0, seen, cuda) is None


@given(share=shares, gpu=st.sampled_from([FAKE_7_0, FAKE_9_0, Gpu("Fake", None)]))
def test_one_usable_gpu_is_all_that_a_worker_needs(share: float, gpu: Gpu) -> None:
    assert device_fault(share, [gpu], ALL_THERE) is None


@pytest.mark.parametrize(
    ("cuda", "words"),
    [
        (ALL_THERE._replace(tensorflow=False, libraries=False), "built without CUDA"),
        (ALL_THERE._replace(driver=False), "LD_LIBRARY_PATH (GKE: /usr/local/nvidia/lib64)"),
        (ALL_THERE._replace(libraries=False), "run `make env GPU=1`"),
        (ALL_THERE._replace(visible=""), "CUDA_VISIBLE_DEVICES is ''"),
        (ALL_THERE._replace(visible=None), "CUDA_VISIBLE_DEVICES is not set"),
    ],
)
def test_a_reserved_gpu_that_is_not_seen_is_one_line_with_the_cause(cuda: Cuda, words: str) -> None:
    fault = device_fault(0.25, [], cuda)
    assert fault is not None
    assert fault.startswith("reserved 0.25 GPU, TensorFlow sees none: ")
    assert words in fault
    assert fault.endswith("train on CPUs with --gpus-per-worker 0")
    assert "\n" not in fault


def test_several_visible_gpus_are_refused() -> None:
    fault = device_fault(1, [FAKE_9_0, FAKE_9_0], ALL_THERE._replace(visible="0,1"))
    assert fault is not None
    assert "sees 2, and a worker uses one" in fault
    assert "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES" in fault


@pytest.mark.parametrize(("gpu", "version"), [(FAKE_10_0, "10.0"), (FAKE_5_2, "5.2")])
def test_a_gpu_that_tensorflow_cannot_use_is_refused(gpu: Gpu, version: str) -> None:
    fault = device_fault(1, [gpu], ALL_THERE)
    assert fault is not None
    assert f"{gpu.name} of compute capability {version}" in fault
    assert "works on 6.0 up to below 10.0" in fault


def test_a_base_computes_in_bfloat16_from_compute_capability_8_on() -> None:
    assert precision_on(None) == FLOAT32
    assert precision_on(Gpu("Fake", None)) == FLOAT32
    assert precision_on(FAKE_7_0) == FLOAT32
    assert precision_on(Gpu("Fake A100", (8, 0))) == BFLOAT16
    assert precision_on(FAKE_9_0) == BFLOAT16


@given(share=shares, gpu=st.sampled_from([FAKE_7_0, FAKE_9_0]))
def test_the_precision_of_a_worker_is_one_that_the_driver_expects(share: float, gpu: Gpu) -> None:
    assert possible_precisions(0) == (FLOAT32,) == (precision_on(None),)
    assert precision_on(gpu) in possible_precisions(share)


@given(share=shares)
def test_workers_that_can_meet_on_one_gpu_do_not_use_nccl(share: float) -> None:
    assert (collective_implementation(share) == "NCCL") == (2 * share > 1)
    assert collective_implementation(0) == "RING"


def test_workers_are_reached_around_a_proxy() -> None:
    workers = ["10.0.0.1:4000", "[fd00::1]:4001", "10.0.0.1:4002"]
    assert around_proxy({}, workers) == {"no_grpc_proxy": "10.0.0.1,fd00::1"}


def test_hosts_that_are_already_reached_around_a_proxy_stay_so() -> None:
    environment = {"no_proxy": "localhost,.site.example"}
    assert around_proxy(environment, ["a:1"]) == {"no_grpc_proxy": "localhost,.site.example,a"}
    environment["no_grpc_proxy"] = "a,b"
    assert around_proxy(environment, ["a:1"]) == {"no_grpc_proxy": "a,b"}


def test_compiled_kernels_are_kept_in_the_cache_unless_the_user_says_where() -> None:
    folder = Path("/scratch")
    assert kernel_cache({}, folder) == {"CUDA_CACHE_PATH": "/scratch/cuda-kernels"}
    assert kernel_cache({"CUDA_CACHE_PATH": "/mine"}, folder) == {}
    assert kernel_cache({"CUDA_CACHE_DISABLE": "1"}, folder) == {}
