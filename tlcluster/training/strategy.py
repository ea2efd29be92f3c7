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
"""Size of the packs in which gradients are summed over the workers. A pack is sent as soon as it is
complete: those of the last layers travel while those of the first layers are computed."""

OPEN = "TLCLUSTER_OPEN_PORTS"
"""Set this to 1 if the port of TensorFlow's server cannot be guarded and a firewall keeps others
out."""

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
        # TensorFlow holds Python's global lock while it waits for the first worker. The guard could
        # not run, and this worker's server would stay open for as long.
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
            # No timeout: TensorFlow keeps a sleeping thread for every collective until its timeout
            # has passed, and short steps reach the limit of threads. The driver notices a worker
            # that hangs (--stall). A worker that dies breaks the connection.
            bytes_per_pack=GRADIENT_PACK_BYTES,
        )
    )


def _wait_for(worker: str) -> None:
    """Wait until a worker's server accepts connections."""
    host, _, port = worker.rpartition(":")
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            time.sleep(_LOOK_SECONDS)
        else:
            return
