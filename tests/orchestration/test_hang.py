"""What is said of workers that hang, from where each of them stands."""

from typing import Any

import pytest

from tlcluster.orchestration.hang import explanation
from tlcluster.records import RankRecord

STACK = (
    "ray/train/v2/_internal/util.py:90 train_fn",
    "tlcluster/training/train.py:230 _run",
    "threading.py:629 wait",
)
READER = ("tlcluster/training/features.py:190 load", "threading.py:320 wait")


def rank(number: int, *, inside: bool = False, **fields: Any) -> RankRecord:
    """A worker that is inside of the second epoch's first steps, or still in the first epoch."""
    values: dict[str, Any] = {
        "rank": number,
        "host": f"node{number}",
        "pid": 100 + number,
        "process": "sleeping",
        "cores": 0.01,
        "doing": "steps 1 to 8 of epoch 2" if inside else "report of epoch 1",
        "seconds": 74.9,
        "exchange": "steps 1 to 8 of epoch 2" if inside else "validation of epoch 1",
        "inside": inside,
        "exchanges": 13 if inside else 12,
        "stack": STACK,
        **fields,
    }
    return RankRecord(**values)


LOST = {
    "process": "unknown: its node was lost",
    **dict.fromkeys(("cores", "seconds", "inside", "exchanges")),
    **dict.fromkeys(("doing", "exchange"), ""),
    "stack": (),
}
"""What is known of a worker if its node does not answer."""

WAITS = "rank 0 on node0 waits in the steps 1 to 8 of epoch 2"
ELSEWHERE = "in the report of epoch 1 for 75 s (tlcluster/training/train.py:230 _run)"
INSIDE = "in the steps 1 to 8 of epoch 2 for 75 s (tlcluster/training/train.py:230 _run)"


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([], "its workers have not said where they are"),
        (
            [rank(0, inside=True), rank(1, process="stopped by a signal")],
            (
                "rank 1 on node1 (process 101) is stopped by a signal in the report of epoch 1; "
                f"{WAITS}"
            ),
        ),
        (
            [rank(0, inside=True), rank(1, **LOST)],
            f"rank 1 on node1 (process 101) is unknown: its node was lost; {WAITS}",
        ),
        (
            [rank(0, inside=True), rank(1)],
            f"{WAITS} for rank 1 on node1, {ELSEWHERE}",
        ),
        (
            [rank(0, inside=True), rank(1, inside=True, exchanges=12, doing="report of epoch 1")],
            f"{WAITS} for rank 1 on node1, {ELSEWHERE}",
        ),
        (
            [rank(0, inside=True), rank(1, exchanges=13)],
            f"rank 0 on node0, {INSIDE}, rank 1 on node1, {ELSEWHERE}",
        ),
        (
            [rank(n, inside=n != 3) for n in range(6)],
            (
                "rank 0 on node0, rank 1 on node1, rank 2 on node2 and 2 more wait in the steps 1 "
                f"to 8 of epoch 2 for rank 3 on node3, {ELSEWHERE}"
            ),
        ),
        (
            [rank(0, inside=True), rank(1, inside=True, other_stacks=(READER,))],
            (
                f"rank 1 on node1, {INSIDE}, reading its input "
                f"(tlcluster/training/features.py:190 load); {WAITS}"
            ),
        ),
        (
            [rank(0, inside=True), rank(1, inside=True, cores=0.98)],
            f"rank 1 on node1, {INSIDE}, computing; {WAITS}",
        ),
        (
            [rank(0, inside=True), rank(1, inside=True)],
            (
                "rank 0 on node0 and rank 1 on node1 wait in the steps 1 to 8 of epoch 2; see "
                "whether the network between their nodes works"
            ),
        ),
        ([rank(0, inside=True)], f"rank 0 on node0, {INSIDE}"),
        ([rank(0), rank(1)], f"rank 0 on node0, {ELSEWHERE}, rank 1 on node1, {ELSEWHERE}"),
    ],
    ids=[
        "nobody",
        "stopped",
        "lost",
        "elsewhere",
        "in an earlier exchange",
        "ahead",
        "many",
        "starving",
        "computing",
        "all inside",
        "alone",
        "none inside",
    ],
)
def test_a_hang_is_explained_by_rank_and_host(ranks: list[RankRecord], said: str) -> None:
    assert explanation(ranks) == said
