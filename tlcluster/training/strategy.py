"""MultiWorkerMirroredStrategy with no port that is open to others."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator

import tensorflow as tf

from tlcluster.errors import UserError
from tlcluster.training.devices import around_proxy, collective_implementation
from tlcluster.training.guarded_port import SUPPORTED, GuardedPort

GRADIENT_PACK_BYTES = 8 * 2**20
"""Gradients are summed over the workers in packs of this size, each as soon as it is complete, so
that the last layers' travel while the first layers' are computed."""

OPEN = "TLCLUSTER_OPEN_PORTS"
"""Set to 1 where the port of TensorFlow's server cannot be guarded, and others are kept out
otherwise."""

_GUARD_SECONDS = 30.0
_LOOK_SECONDS = 0.05


@contextlib.contextmanager
def made_strategy(world_size: int, gpus: float = 0.0) -> Iterator[tf.distribute.Strategy]:
    """The strategy of a worker, for as long as the block runs. All workers call it together.

    One worker needs no server, so it has none. The servers of several workers
    are guarded on Linux; see `tlcluster.training.guarded_port`.

    Args:
        world_size: how many workers there are.
        gpus: GPUs that each of them reserved.

    Raises:
        UserError: the port of the server cannot be guarded.
    """
    if world_size == 1:
        # With TF_CONFIG, which Ray sets for one worker too, TensorFlow starts a server.
        os.environ.pop("TF_CONFIG", None)
        yield _strategy(gpus)
        return
    config = json.loads(os.environ["TF_CONFIG"])
    workers, rank = config["cluster"]["worker"], config["task"]["index"]
    os.environ.update(around_proxy(os.environ, workers))
    if rank > 0:
        # TensorFlow waits for the first worker with Python's lock in its hand; a server that is
        # not guarded yet would stay so for as long.
        _wait_for(workers[0])
    if not SUPPORTED or os.environ.get(OPEN) == "1":
        yield _strategy(gpus)
        return
    os.environ["TF_GRPC_REUSE_PORT"] = "1"
    with GuardedPort(workers, rank) as port:
        strategy = _strategy(gpus)
        if not port.guarded.wait(_GUARD_SECONDS) or port.error:
            raise UserError(
                f"port {port.port} of {port.host}: TensorFlow's server cannot be closed to others "
                f"({port.error or 'it was not found'}); train with --workers 1, or see "
                f"docs/security.md and set {OPEN}=1"
            )
        yield strategy


def _strategy(gpus: float) -> tf.distribute.Strategy:
    experimental = tf.distribute.experimental
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=experimental.CommunicationOptions(
            implementation=experimental.CommunicationImplementation(
                collective_implementation(gpus)
            ),
            # No timeout: TensorFlow keeps a sleeping thread for every collective until it would be
            # over, and short steps reach the limit of threads. A worker that hangs is the driver's
            # to notice (--stall); one that dies breaks the connection.
            bytes_per_pack=GRADIENT_PACK_BYTES,
        )
    )


def _wait_for(worker: str) -> None:
    """Until a worker's server takes connections."""
    host, _, port = worker.rpartition(":")
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            time.sleep(_LOOK_SECONDS)
        else:
            return
