"""The Ray cluster that a run uses: an existing one, or one started on this machine."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ray

from tlcluster.cli import TERMINATED
from tlcluster.errors import UserError
from tlcluster.machine import local_cpus, processor
from tlcluster.orchestration.environment import defaults, replaced, runtime_env
from tlcluster.orchestration.local_ray import private_ray
from tlcluster.orchestration.ray_internals import LOOPBACK, forget_token, job_config, on_loopback
from tlcluster.records import NodeRecord

CONNECT_SECONDS = 10.0
"""Ray itself would try for minutes and print nothing."""

RAY_TRAIN = {
    # Every experiment would have a process that only passes on warnings of preemption.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A worker's report waits until the controller looks again, by default after 2 seconds. On
    # features, that is three times as long as an epoch.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # After 10 minutes Ray Train would end an attempt with a worker that hangs, and say no more of
    # it. The driver waits for `--stall`, and explains it.
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "1e9",
}
NEW_CLUSTER = {
    # Four trainers are some twenty small processes; Ray expects one for each core and warns.
    "RAY_worker_maximum_startup_concurrency": "16",
}
JOINED_CLUSTER = {
    # How often Ray asks what listens at the address. It takes half a minute each time.
    "RAY_gcs_server_port_wait_time_s": "2",
}

TRIES = 3
"""Ray gives up a process that needs more than 15 seconds to import its modules, as one may after
an installation or on a busy machine. The next try finds them in memory."""


def given_address(flag: str | None) -> str | None:
    """The address of the cluster to run in, or None to start one.

    Raises:
        UserError: it is not an address, or nothing answers there.
    """
    name, address = ("--address", flag) if flag else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"))
    if not address or address == "local":
        return None
    if address == "auto":
        return address
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise UserError(
            f"{name} {address}: give HOST:PORT of the head node, usually port 6379, `auto` on a "
            "node of the cluster, or `local`; from outside: ray job submit --address http://…"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    # A name that no host can have, such as one with an empty part, is a UnicodeError.
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"{name} {address}: no Ray cluster answers ({str(error).lower()}); check the address, "
            "or leave it out to start Ray on this machine"
        ) from None
    return address


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[tuple[NodeRecord, ...]]:
    """Connect to a cluster, or start one on this machine; disconnect or stop it at the end.

    Yields:
        Its nodes that are alive.

    Raises:
        UserError: there is no cluster at the address.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(defaults(RAY_TRAIN | (JOINED_CLUSTER if address else NEW_CLUSTER)))
        folder = None
        if address is None:
            local = stack.enter_context(private_ray())
            stack.callback(forget_token)
            stack.enter_context(replaced({**local.environment, **LOOPBACK}))
            stack.enter_context(on_loopback())
            forget_token()
            folder = str(local.folder)
        stack.callback(ray.shutdown)
        _connect(address, folder)
        yield nodes()


def _connect(address: str | None, folder: str | None) -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _init(address, folder)
    except Exception as error:
        if type(error) is not Exception and (
            address is None or not isinstance(error, ConnectionError | ValueError | RuntimeError)
        ):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if address is None:
            raise UserError(
                f"Ray did not start on this machine ({reason}); see whether it is overloaded or "
                "out of memory, and try again"
            ) from None
        raise UserError(
            f"--address {address}: no Ray cluster answers ({reason}); check the address and that "
            "RAY_AUTH_MODE and its token are the cluster's, or leave it out to start Ray here"
        ) from None
    except SystemExit:
        # Ray handles SIGTERM itself and exits with another status.
        raise SystemExit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)


def _init(address: str | None, folder: str | None) -> None:
    for left in reversed(range(1 if address else TRIES)):
        before = children()
        try:
            ray.init(
                address=address or "local",
                # A cluster that we join has its own resources. A new one has this process's cores.
                num_cpus=None if address else local_cpus(),
                include_dashboard=None if address else False,
                _node_ip_address=None if address else "127.0.0.1",
                _temp_dir=folder,
                runtime_env=runtime_env(here=address is None),
                job_config=job_config(),
                logging_level=logging.ERROR,
                # Workers' logs stay in Ray's log folder; what matters comes back as records.
                log_to_driver=False,
            )
        except Exception as error:
            # Ray raises a plain Exception if a process of it starts too slowly.
            if type(error) is not Exception or not left:
                raise
            ray.shutdown()
            # Ray would end what it started with this process only.
            for process in children() - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        else:
            return


def children() -> frozenset[int]:
    """Numbers of the processes that this one started, on Linux; elsewhere they are not known."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= set(map(int, thread.read_text().split()))
    return frozenset(found)


class Place(NamedTuple):
    """A node of the cluster, as Ray knows it."""

    node_id: str
    record: NodeRecord
    object_store_bytes: int


def places() -> tuple[Place, ...]:
    """The live nodes, the driver's own first."""
    here = socket.gethostname()
    found = [
        Place(
            node["NodeID"],
            NodeRecord(
                host=node["NodeManagerHostname"],
                cpus=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
                memory_bytes=int(node["Resources"].get("memory", 0)),
                processor=processor() if node["NodeManagerHostname"] == here else "",
            ),
            int(node["Resources"].get("object_store_memory", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return tuple(sorted(found, key=lambda place: (place.record.host != here, place.record.host)))


def nodes() -> tuple[NodeRecord, ...]:
    """The records of the live nodes, the driver's own first."""
    return tuple(place.record for place in places())


def local_nodes() -> tuple[NodeRecord, ...]:
    """The nodes of a cluster that would be started on this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        NodeRecord(
            host=socket.gethostname(),
            cpus=local_cpus(),
            gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
            memory_bytes=memory,
            processor=processor(),
        ),
    )
