"""How many workers an experiment gets, what they reserve, and how many experiments run at once."""

import contextlib
import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tlcluster.cost import Forward, flop, longest_first
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration.admission import Admission, admit
from tlcluster.records import NodeRecord


def cluster(*nodes: tuple[float, float]) -> list[NodeRecord]:
    """Nodes from their (CPUs, GPUs)."""
    return [
        NodeRecord(host=f"node{number}", cpus=cpus, gpus=gpus, memory_bytes=2**34)
        for number, (cpus, gpus) in enumerate(nodes)
    ]


@pytest.mark.parametrize(
    ("nodes", "experiments", "workers", "admission"),
    [
        # On two cores all four run at once; on one, two take turns and two wait.
        ([(2, 0)], 4, (1, 1), Admission(1, 0.5, 0, at_once=4, threads=2)),
        ([(1, 0)], 4, (1, 1), Admission(1, 0.5, 0, at_once=2, threads=1)),
        ([(2, 0)], 1, (1, 1), Admission(1, 2, 0, at_once=1, threads=2)),
        ([(3, 0)], 4, (1, 1), Admission(1, 0.5, 0, at_once=4, threads=3)),
        ([(16, 0)], 4, (1, 1), Admission(1, 4, 0, at_once=4, threads=16)),
        ([(2, 0)], 4, (2, 2), Admission(2, 0.5, 0, at_once=2, threads=1)),
        # MIN:MAX takes the most that fit, a core each, and the least where none do.
        ([(16, 0)], 4, (1, 8), Admission(4, 1, 0, at_once=4, threads=16)),
        ([(16, 0)], 1, (1, 8), Admission(8, 2, 0, at_once=1, threads=16)),
        ([(2, 0)], 4, (1, 8), Admission(1, 0.5, 0, at_once=4, threads=2)),
        ([(2, 0)], 4, (3, 8), Admission(3, 0.5, 0, at_once=1, threads=1)),
        # A worker's CPUs are of one node.
        ([(8, 0), (8, 0)], 1, (1, 1), Admission(1, 8, 0, at_once=1, threads=8)),
        ([(3, 0), (5, 0)], 4, (1, 1), Admission(1, 1, 0, at_once=4, threads=5)),
        ([(0, 0), (4, 0)], 4, (1, 1), Admission(1, 1, 0, at_once=4, threads=4)),
        # GPUs are shared where there are fewer than workers, and never more than one is taken.
        ([(8, 1)], 4, (1, 1), Admission(1, 2, 0.25, at_once=4, threads=8)),
        ([(64, 8)], 4, (1, 1), Admission(1, 16, 1, at_once=4, threads=64)),
        ([(64, 8)], 4, (1, 4), Admission(2, 8, 1, at_once=4, threads=64)),
        ([(8, 3)], 4, (1, 1), Admission(1, 2, 0.5, at_once=4, threads=8)),
        ([(2, 8)], 4, (1, 1), Admission(1, 0.5, 1, at_once=4, threads=2)),
        # Nodes without GPUs lend a worker on a GPU nothing.
        ([(4, 0), (8, 1), (8, 1)], 4, (1, 1), Admission(1, 4, 0.5, at_once=4, threads=8)),
        ([(56, 0), (8, 4)], 4, (1, 1), Admission(1, 2, 1, at_once=4, threads=56)),
    ],
)
def test_a_cluster_is_shared_out_so_that_as_many_as_possible_run_at_once(
    nodes: Sequence[tuple[float, float]],
    experiments: int,
    workers: tuple[int, int],
    admission: Admission,
) -> None:
    assert admit(cluster(*nodes), experiments, workers) == admission


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers", "admission"),
    [
        ([(2, 0)], 1.0, None, (1, 1), Admission(1, 1, 0, at_once=2, threads=1)),
        ([(2, 0)], 2.0, None, (1, 1), Admission(1, 2, 0, at_once=1, threads=2)),
        ([(4, 0)], 0.5, None, (1, 8), Admission(2, 0.5, 0, at_once=4, threads=4)),
        ([(8, 1)], None, 0.5, (1, 1), Admission(1, 2, 0.5, at_once=2, threads=8)),
        ([(8, 1)], None, 0.0, (1, 1), Admission(1, 2, 0, at_once=4, threads=8)),
        ([(32, 4)], None, 0.5, (1, 8), Admission(2, 4, 0.5, at_once=4, threads=32)),
        ([(8, 1)], 4.0, None, (1, 1), Admission(1, 4, 0.5, at_once=2, threads=4)),
    ],
)
def test_what_a_worker_shall_reserve_is_taken_as_given(
    nodes: Sequence[tuple[float, float]],
    cpus: float | None,
    gpus: float | None,
    workers: tuple[int, int],
    admission: Admission,
) -> None:
    assert admit(cluster(*nodes), 4, workers, cpus, gpus) == admission


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "reserves", "there_is", "held"),
    [
        ([(2, 0)], 5, None, None, "0.5 CPUs and 0 GPUs", "2 CPUs and 0 GPUs on 1 node", 4),
        ([(2, 0)] * 2, 1, 3.0, None, "3 CPUs and 0 GPUs", "4 CPUs and 0 GPUs on 2 nodes", 0),
        ([(2, 0)], 1, None, 1.0, "1 CPUs and 1 GPUs", "2 CPUs and 0 GPUs on 1 node", 0),
        (
            [(8, 1)],
            10**6,
            None,
            None,
            "0.0769 CPUs and 0.01 GPUs",
            "8 CPUs and 1 GPUs on 1 node",
            100,
        ),
    ],
)
def test_more_workers_than_the_cluster_can_ever_hold_are_refused(
    nodes: Sequence[tuple[float, float]],
    workers: int,
    cpus: float | None,
    gpus: float | None,
    reserves: str,
    there_is: str,
    held: int,
) -> None:
    with pytest.raises(UserError) as caught:
        admit(cluster(*nodes), 4, (workers, workers), cpus, gpus)
    assert str(caught.value) == (
        f"--workers {workers}: a worker reserves {reserves}, of which this cluster of {there_is} "
        f"can hold {held}; ask for fewer workers, for less with --cpus-per-worker or "
        "--gpus-per-worker, or use a larger cluster"
    )


nodes_of_any_kind = st.lists(
    st.tuples(st.integers(0, 130), st.integers(0, 9)), min_size=1, max_size=6
).filter(lambda nodes: any(cpus for cpus, _ in nodes))


@settings(deadline=None)
@given(
    nodes=nodes_of_any_kind,
    experiments=st.integers(1, 4),
    least=st.integers(1, 9),
    more=st.integers(0, 9),
    cpus=st.none() | st.floats(0.01, 20),
    gpus=st.none() | st.floats(0.01, 1) | st.just(0.0),
)
@example(nodes=[(8, 0), (8, 0)], experiments=1, least=1, more=0, cpus=None, gpus=None)
@example(nodes=[(56, 0), (8, 4)], experiments=4, least=1, more=0, cpus=None, gpus=None)
@example(nodes=[(7, 1)], experiments=1, least=7, more=0, cpus=None, gpus=None)
def test_what_is_admitted_can_be_placed_or_the_user_is_told(
    nodes: list[tuple[float, float]],
    experiments: int,
    least: int,
    more: int,
    cpus: float | None,
    gpus: float | None,
) -> None:
    """Every worker of every experiment at once finds a node with what it reserves."""
    try:
        admitted = admit(cluster(*nodes), experiments, (least, least + more), cpus, gpus)
    except UserError:
        return
    assert least <= admitted.workers <= least + more
    assert 1 <= admitted.at_once <= experiments
    assert admitted.threads >= 1
    assert admitted.cpus_per_worker > 0
    assert 0 <= admitted.gpus_per_worker <= 1
    to_place = admitted.at_once * admitted.workers
    # As Ray counts: in ten-thousandths, whole workers on a node.
    cpu, gpu = (round(1e4 * share) for share in admitted[1:3])
    for node_cpus, node_gpus in nodes:
        by_cpu = 10_000 * node_cpus // max(cpu, 1)
        to_place -= min(by_cpu, 10_000 * node_gpus // gpu) if gpu else by_cpu
    assert to_place <= 0


@settings(deadline=None)
@given(nodes=nodes_of_any_kind, experiments=st.integers(1, 4))
def test_with_one_worker_each_something_always_runs(
    nodes: list[tuple[float, float]], experiments: int
) -> None:
    """Unless every GPU is on a node without a CPU, when it can be said."""
    on_gpus = any(gpus for _, gpus in nodes)
    if on_gpus and not any(cpus and gpus for cpus, gpus in nodes):
        with pytest.raises(UserError):
            admit(cluster(*nodes), experiments, (1, 1))
        return
    assert admit(cluster(*nodes), experiments, (1, 1)).at_once >= 1


@settings(deadline=None)
@given(
    nodes=nodes_of_any_kind,
    least=st.integers(1, 3),
    cpus=st.none() | st.floats(0.01, 20),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 40)),
)
def test_threads_do_not_depend_on_how_many_experiments_or_seeds_there_are(
    nodes: list[tuple[float, float]], least: int, cpus: float | None, counts: tuple[int, int]
) -> None:
    """Or the same seed would give other results beside others than alone."""
    threads = set()
    for count in counts:
        with contextlib.suppress(UserError):
            threads.add(admit(cluster(*nodes), count, (least, least), cpus).threads)
    assert len(threads) <= 1


def test_the_number_of_threads_is_taken_as_given() -> None:
    assert admit(cluster((2, 0)), 4, (1, 1), threads=7).threads == 7


@settings(deadline=None)
@given(
    cpus=st.integers(2, 256),
    nodes=st.integers(1, 4),
    gpus=st.integers(0, 8),
)
def test_two_cores_a_node_are_enough_for_all_four_at_once(cpus: int, nodes: int, gpus: int) -> None:
    assert admit(cluster(*[(cpus, gpus)] * nodes), 4, (1, 1)).at_once == 4


ROWS = {"train": 1000, "valid": 100, "test": 10}


@pytest.mark.parametrize(
    ("name", "views", "features", "images"),
    [
        # Each image once.
        ("frozen", None, True, 1000 + 100 + 10),
        # A view an epoch.
        ("augmented", None, True, 55 * 1000 + 100 + 10),
        ("augmented", 5, True, 5 * 1000 + 100 + 10),
        ("augmented", 99, True, 55 * 1000 + 100 + 10),
        # Anew in every epoch.
        ("frozen", None, False, 55 * 1100 + 10),
        # Forward and, twice as long, backward.
        ("finetuned", None, True, 200 * (3 * 1000 + 100) + 10),
        ("finetuned", 5, True, 200 * (3 * 1000 + 100) + 10),
    ],
)
def test_the_work_of_an_experiment_is_counted_in_passes_of_the_base(
    name: str, views: int | None, features: bool, images: int
) -> None:
    found = flop(EXPERIMENTS[name], Forward(0.5e9), ROWS, views, features)
    assert math.isclose(found, 0.5e9 * images)


def test_a_backward_pass_takes_twice_the_forward_pass_of_what_is_trained() -> None:
    rows = {"train": 100, "valid": 10, "test": 10}
    one_epoch = EXPERIMENTS["finetuned"].model_copy(update={"epochs": 1})
    assert flop(one_epoch, Forward(1.0, trained=0.25), rows) == 100 * 1.5 + 10 + 10


@pytest.mark.parametrize(
    ("augment", "views", "features", "shown"),
    [(False, None, True, 1), (True, 2, True, 2), (True, None, True, 8), (False, None, False, 8)],
)
def test_frozen_blocks_below_those_that_are_trained_see_each_view_once(
    augment: bool, views: int | None, features: bool, shown: int
) -> None:
    rows = {"train": 100, "valid": 10, "test": 10}
    upper = EXPERIMENTS["finetuned"].model_copy(update={"epochs": 8, "augment": augment})
    lower = 0.75 * (100 * shown + 10 * (1 if features else 8))
    expected = lower + 0.25 * 8 * (3 * 100 + 10) + 10
    assert flop(upper, Forward(1.0, trained=0.25, kept=0.75), rows, views, features) == expected


def test_each_view_of_a_test_image_is_a_pass() -> None:
    rows = {"train": 100, "valid": 10, "test": 7}
    twice = EXPERIMENTS["frozen"].model_copy(update={"test_views": 2})
    assert flop(twice, Forward(1.0), rows) == 100 + 10 + 2 * 7


@pytest.mark.parametrize(
    ("name", "views", "same_views", "images"),
    [
        # Each image once, whatever the number of seeds.
        ("frozen", None, False, 1000 + 100 + 10),
        ("augmented", None, True, 55 * 1000 + 100 + 10),
        ("augmented", 5, True, 5 * 1000 + 100 + 10),
        # Each seed has views of its own.
        ("augmented", None, False, 3 * 55 * 1000 + 100 + 10),
        # Nothing of a base that is trained is shared.
        ("finetuned", None, True, 3 * (200 * (3 * 1000 + 100) + 10)),
    ],
)
def test_features_that_seeds_share_are_counted_once(
    name: str, views: int | None, same_views: bool, images: int
) -> None:
    found = flop(EXPERIMENTS[name], Forward(0.5e9), ROWS, views, seeds=3, same_views=same_views)
    assert math.isclose(found, 0.5e9 * images)


def test_without_features_every_seed_computes_all() -> None:
    one, three = (
        flop(EXPERIMENTS["frozen"], Forward(0.5e9), ROWS, features=False, seeds=seeds)
        for seeds in (1, 3)
    )
    assert three == 3 * one


def test_seeds_share_the_frozen_lower_blocks_and_no_others() -> None:
    upper = EXPERIMENTS["finetuned"].model_copy(update={"epochs": 8})
    rows = {"train": 100, "valid": 10, "test": 10}
    forward = Forward(1.0, trained=0.25, kept=0.75)
    lower = 0.75 * (100 * 8 + 10 + 10)
    trained = 0.25 * (8 * (3 * 100 + 10) + 10)
    assert flop(upper, forward, rows, seeds=3, same_views=True) == lower + 3 * trained


def test_what_takes_longest_starts_first() -> None:
    order = longest_first(tuple(EXPERIMENTS.values()), dict.fromkeys(EXPERIMENTS, Forward(1.0)))
    assert [experiment.name for experiment in order] == [
        "finetuned",
        "regularized",
        "augmented",
        "frozen",
    ]


def test_an_experiment_with_a_larger_base_starts_before_one_with_a_smaller_base() -> None:
    frozen = EXPERIMENTS["frozen"]
    bases = [
        frozen.model_copy(update={"base": base, "name": base}) for base in ("mobilenet_v2", "vgg19")
    ]
    order = longest_first(bases, {"mobilenet_v2": Forward(12e6), "vgg19": Forward(797e6)})
    assert [experiment.base for experiment in order] == ["vgg19", "mobilenet_v2"]
    # With the same work, the base that computes at a lower rate takes longer.
    order = longest_first(bases[::-1], dict.fromkeys(("mobilenet_v2", "vgg19"), Forward(797e6)))
    assert [experiment.base for experiment in order] == ["mobilenet_v2", "vgg19"]
