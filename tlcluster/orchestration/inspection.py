"""One inspector on every node that a run would use, and their answers."""

import contextlib
import secrets
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tlcluster.checkup.clock import Reading, clock_finding
from tlcluster.checkup.disk import NCCL_BYTES, Memory, shards
from tlcluster.checkup.finding import Finding, Nodes
from tlcluster.checkup.link import SECRET_BYTES, peers
from tlcluster.checkup.stores import is_directory, marked, new_mark, smallest_shard
from tlcluster.checkup.versions import versions
from tlcluster.errors import UserError
from tlcluster.orchestration.admission import workers_that_fit
from tlcluster.orchestration.attempt import reason
from tlcluster.orchestration.cluster import Place, places
from tlcluster.orchestration.inspector import AT_ONCE, Arrival, Brief, Inspector
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.verdict import ARRIVE_SHARE, Answers, node_findings
from tlcluster.storage.protocol import Store

CLOCK_SHARE = 0.8
"""Of the time for all checks: when the clocks of all nodes must be read."""
CLOCK_READINGS = 3
FETCH_SECONDS = 5.0
"""For an answer that is there already; it may be lost with its node."""

Key = TypeVar("Key", bound=Hashable)
Show = Callable[[int, int], None]
"""Called with the number of answers that have come and the number that will."""


def used_places(ready: Ready) -> list[Place]:
    """The nodes that a worker fits on."""
    cpus, gpus = ready.admission.cpus_per_worker, ready.admission.gpus_per_worker
    return [place for place in places() if workers_that_fit([place.record], cpus, gpus)]


def inspected(
    ready: Ready, output: Store, used: Sequence[Place], show: Show, seconds: float
) -> Nodes:
    """Name of a node → what was found on it.

    Args:
        ready: what a run needs.
        output: the folder of all runs.
        used: the nodes to look at.
        show: see `Show`.
        seconds: for all checks together, from now on.

    Raises:
        UserError: the cluster was lost, or the output cannot be written.
        StoreUnavailable: storage does not answer the driver.
    """
    names = labels([place.record.host for place in used])
    brief = new_brief(ready, output)
    began = time.monotonic()
    try:
        with marked(output, brief.mark, len(used)), started(ready, brief, used) as actors:
            answers = asked(actors, began, show, seconds, connects=brief.connects)
    except ray.exceptions.RayError as failure:
        raise UserError(
            f"the Ray cluster was lost during the check ({reason(failure)}); see that its head "
            "runs, and check again"
        ) from None
    hosts = {
        one.arrival.place: name
        for name, one in zip(names, answers, strict=True)
        if isinstance(one.arrival, Arrival) and one.arrival.place
    }
    drivers = versions()
    return {
        name: node_findings(one, drivers, hosts, seconds, connects=brief.connects)
        for name, one in zip(names, answers, strict=True)
    }


def labels(hosts: Sequence[str]) -> list[str]:
    """Names for nodes, each another: nodes of one machine are numbered."""
    return [
        f"{host}#{hosts[: number + 1].count(host)}" if hosts.count(host) > 1 else host
        for number, host in enumerate(hosts)
    ]


def new_brief(ready: Ready, output: Store) -> Brief:
    """What the inspectors are told."""
    settings, admission = ready.settings, ready.admission
    return Brief(
        store=ready.store.url,
        index_sha256=ready.index_sha256,
        shard=smallest_shard(ready.index),
        output=output.url,
        mark=new_mark(),
        cache=settings.cache,
        cache_bytes=int(settings.cache_gib * 2**30),
        cached=() if is_directory(ready.store) else shards(ready.index),
        threads=admission.threads,
        gpus=admission.gpus_per_worker,
        connects=admission.workers > 1,
        secret=secrets.token_bytes(SECRET_BYTES),
    )


@contextlib.contextmanager
def started(ready: Ready, brief: Brief, used: Sequence[Place]) -> Iterator[list[Any]]:
    """One inspector on each node, with the resources of a worker; they end with the block."""
    admission = ready.admission
    weights = sum(len(found.content or b"") for found in ready.weights.values())
    nccl = NCCL_BYTES if admission.gpus_per_worker and admission.workers > 1 else 0
    actors = [
        ray.remote(Inspector)
        .options(
            num_cpus=admission.cpus_per_worker,
            num_gpus=admission.gpus_per_worker,
            # A check that hangs keeps no other from its turn.
            max_concurrency=16,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=False),
        )
        .remote(brief, rank, Memory(place.object_store_bytes, weights, nccl))
        for rank, place in enumerate(used)
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)


def asked(
    actors: Sequence[Any], began: float, show: Show, seconds: float, *, connects: bool
) -> list[Answers]:
    """What the inspectors answer in time.

    Args:
        actors: the inspectors.
        began: when the time began, as `time.monotonic` counts.
        show: see `Show`.
        seconds: for all answers, counted from then.
        connects: whether workers connect with each other.
    """
    ranks = range(len(actors))
    total = len(ranks) * (len(AT_ONCE) + connects)
    # All that needs no other node begins at once: TensorFlow takes seconds to import.
    pending = {
        (rank, check): getattr(actors[rank], check).remote() for rank in ranks for check in AT_ONCE
    }
    arrivals = collected(
        {rank: actors[rank].arrive.remote() for rank in ranks},
        began + ARRIVE_SHARE * seconds,
        lambda _: show(0, total),
    )
    here = {rank: one for rank, one in arrivals.items() if isinstance(one, Arrival)}
    clocks = clocks_of({rank: actors[rank] for rank in here}, began + CLOCK_SHARE * seconds)
    listening = [(rank, one.place) for rank, one in here.items() if one.place]
    for number, (rank, _) in enumerate(listening):
        to = [listening[peer][1] for peer in peers(len(listening), number)]
        pending[rank, "links"] = actors[rank].links.remote(to)
    known = collected(
        {key: reference for key, reference in pending.items() if key[0] in here},
        began + seconds,
        lambda done: show(done, total),
    )
    return [
        Answers(
            arrivals[rank],
            clocks.get(rank),
            {check: known.get((rank, check)) for check in AT_ONCE},
            known.get((rank, "links")),
        )
        for rank in ranks
    ]


def clocks_of(actors: Mapping[int, Any], until: float) -> dict[int, Finding]:
    """Compare the clocks of all nodes with the driver's: rank → finding, if it answered.

    They are asked at the same time, so that none that is slow or lost keeps others from answering.

    Args:
        actors: rank → inspector.
        until: when to give up, as `time.monotonic` counts.
    """
    readings: dict[int, list[Reading]] = {rank: [] for rank in actors}
    waiting = {actors[rank].clock.remote(): (rank, time.time()) for rank in actors}
    while waiting and (left := until - time.monotonic()) > 0:
        for ref in ray.wait(list(waiting), timeout=left)[0]:
            rank, asked = waiting.pop(ref)
            answered = time.time()
            with contextlib.suppress(ray.exceptions.RayError):
                remote = ray.get(ref, timeout=FETCH_SECONDS)
                readings[rank].append(Reading(asked, remote, answered))
                if len(readings[rank]) < CLOCK_READINGS:
                    waiting[actors[rank].clock.remote()] = rank, time.time()
    return {rank: clock_finding(read) for rank, read in readings.items() if read}


def collected(
    pending: Mapping[Key, Any], until: float, show: Callable[[int], None]
) -> dict[Key, Any]:
    """Key → the answer, the exception instead of one, or None if none came in time.

    Args:
        pending: key → reference to the answer.
        until: when to give up, as `time.monotonic` counts.
        show: called with the number of answers.
    """
    found: dict[Key, Any] = dict.fromkeys(pending)
    waiting = {ref: key for key, ref in pending.items()}
    while waiting and (left := until - time.monotonic()) > 0:
        for ref in ray.wait(list(waiting), timeout=min(left, 0.5))[0]:
            key = waiting.pop(ref)
            try:
                found[key] = ray.get(ref, timeout=FETCH_SECONDS)
            except ray.exceptions.RayError as error:
                found[key] = error
        show(len(pending) - len(waiting))
    return found
