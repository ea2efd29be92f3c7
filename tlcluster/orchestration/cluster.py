"""The Ray cluster a run lives in: the one it was started in, or one started on this machine."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import ray

from tlcluster.cli import TERMINATED
from tlcluster.errors import UserError
from tlcluster.machine import local_cpus, processor
from tlcluster.orchestration.environment import worker_environment
from tlcluster.orchestration.ray_internals import leave_tensorflow_out
from tlcluster.records import NodeRecord

CONNECT_SECONDS = 10.0
"""Ray itself would try for minutes, without a word."""


def given_address(flag: str | None) -> str | None:
    """The address of the cluster to run in, or None to start one.

    Raises:
        UserError: it is no address, or nobody answers there.
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
    except (OSError, OverflowError) as error:
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
    if address is None:
        # Four trainers are some twenty small processes; Ray expects one a core and warns.
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
    else:
        # How often Ray asks what listens there, about half a minute each time.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
    # A process an experiment that only tells workers what we do not ask.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # A worker's report waits until the controller looks again, by default after 2 seconds. That is
    # three times an epoch on features.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            # A cluster that we join has its own resources; one of ours has this process's cores.
            num_cpus=None if address else local_cpus(),
            include_dashboard=None if address else False,
            runtime_env={
                "env_vars": worker_environment(),
                "worker_process_setup_hook": f"{leave_tensorflow_out.__module__}"
                f".{leave_tensorflow_out.__name__}",
            },
            logging_level=logging.ERROR,
            # Workers' logs stay in Ray's log folder; what matters comes back as records.
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--address {address}: no Ray cluster answers ({reason}); check the address and that "
            "RAY_AUTH_MODE and its token are the cluster's, or leave it out to start Ray here"
        ) from None
    except SystemExit:
        # Ray takes SIGTERM over and ends with other numbers.
        raise SystemExit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield nodes()
    finally:
        ray.shutdown()


def nodes() -> tuple[NodeRecord, ...]:
    """The live nodes, the driver's own first."""
    here = socket.gethostname()
    records = [
        NodeRecord(
            host=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            memory_bytes=int(node["Resources"].get("memory", 0)),
            processor=processor() if node["NodeManagerHostname"] == here else "",
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return tuple(sorted(records, key=lambda record: (record.host != here, record.host)))


def local_nodes() -> tuple[NodeRecord, ...]:
    """What a cluster started on this machine would consist of."""
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
