"""Wait until Ray runs on all nodes of a job: python slurm/wait_for_nodes.py ADDRESS NODES SECONDS.

A driver that started earlier would see fewer nodes than the job has, and use only those.
"""

import contextlib
import logging
import socket
import sys
import time

import ray


def main(address: str, wanted: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    there = 0
    while there < wanted and time.monotonic() < deadline:
        if ray.is_initialized():
            there = sum(node["Alive"] for node in ray.nodes())
        elif answers(address):
            # The head answers before it is ready.
            with contextlib.suppress(ConnectionError, RuntimeError, ValueError):
                ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
                continue
        time.sleep(0.2)
    if there < wanted:
        print(
            f"error: after {seconds:g} seconds Ray runs on {there} of {wanted} nodes; if they are "
            "only slow, set TLCLUSTER_PATIENCE to more seconds",
            file=sys.stderr,
        )
        return 1
    return 0


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
