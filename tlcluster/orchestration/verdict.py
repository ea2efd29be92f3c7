"""What the answers of the inspectors mean, or their absence: pure functions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.checkup.finding import Finding
from tlcluster.checkup.link import Link, Place, network_finding
from tlcluster.checkup.versions import versions_finding
from tlcluster.orchestration.attempt import reason
from tlcluster.orchestration.inspector import AT_ONCE, Arrival

ARRIVE_SHARE = 0.6
"""Of the time for all checks: for a worker's process to start."""

WAY_OUT = {
    "clock": "see whether the node is overloaded",
    "device": "see whether TensorFlow can be imported and use the device there in that time: "
    "python -c 'import tensorflow'",
    "data": "check AWS_ENDPOINT_URL, the network, the proxy settings and the mounts of the node",
    "output": "check AWS_ENDPOINT_URL, the network, the proxy settings and the mounts of the node",
    "disk": "check the disk of the folder that --cache names",
    "network": "see whether the node is overloaded or its network is broken",
}
"""Check → what to do if it does not answer."""

Answer = Finding | Exception | None
"""Of a check; None if it did not answer in time."""


class Answers(NamedTuple):
    """What came from the inspector of one node."""

    arrival: Arrival | Exception | None
    clock: Finding | None = None
    checks: Mapping[str, Answer] = {}
    """One of `AT_ONCE` → its answer."""
    links: Sequence[Link] | Exception | None = None


def node_findings(
    answers: Answers,
    drivers: Mapping[str, str],
    names: Mapping[Place, str],
    seconds: float,
    *,
    connects: bool,
) -> list[Finding]:
    """The findings of one node.

    Args:
        answers: of its inspector.
        drivers: the versions at the driver.
        names: where an inspector listens → name of its node.
        seconds: for all answers.
        connects: whether workers connect with each other.
    """
    arrival = answers.arrival
    if not isinstance(arrival, Arrival):
        return [absent(arrival, seconds)]
    if not connects:
        network = Finding("network", "not used: one worker per experiment")
    elif arrival.place is None:
        network = Finding(
            "network",
            "cannot listen",
            f"{arrival.error}; start Ray on this node with an address of its own "
            "(ray start --node-ip-address), or train with --workers 1",
        )
    elif answers.links is None or isinstance(answers.links, Exception):
        network = judged("network", answers.links, seconds)
    else:
        network = network_finding(answers.links, names, arrival.ports)
    return [
        versions_finding(arrival.versions, drivers),
        judged("clock", answers.clock, seconds),
        *(judged(check, answers.checks.get(check), seconds) for check in AT_ONCE),
        network,
    ]


def judged(check: str, answer: Finding | Exception | None, seconds: float) -> Finding:
    """The finding of an answer, also of one that did not come."""
    if isinstance(answer, Finding):
        return answer
    if answer is None:
        fault = f"{check}: no answer in {seconds:g} s; {WAY_OUT[check]}, or give it more --seconds"
        return Finding(check, "no answer", fault)
    return Finding(check, "failed", f"{check}: {reason(answer)}; {WAY_OUT[check]}")


def absent(answer: Exception | None, seconds: float) -> Finding:
    """The finding of a node on which no worker came up."""
    if answer is None:
        return Finding(
            "worker",
            "did not start",
            f"no worker started within {ARRIVE_SHARE * seconds:g} s; see with `ray status` that "
            "nothing else holds the node's CPUs and GPUs, and that the node is not overloaded, or "
            "give it more --seconds",
        )
    return Finding(
        "worker",
        "ended",
        f"a worker cannot start: {reason(answer)}; see that tlcluster and its dependencies are "
        "installed there, for the Python that Ray runs with",
    )
