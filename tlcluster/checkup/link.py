"""Connections between the nodes, on ports like those of TensorFlow's servers.

Ray Train gives each worker a free port of its node's address, from those that the kernel hands out.
So does this. The other end must show the secret of the check before anything else is read.
"""

import contextlib
import hmac
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tlcluster.checkup.finding import Finding, size
from tlcluster.errors import reason

SECRET_BYTES = 32
CONNECT_SECONDS = 3.0
SEND_SECONDS = 0.3
"""For how long a connection is measured."""
ANSWER_SECONDS = 5.0
MOST_PAIRS = 8
"""Up to so many nodes each is connected with every other, of more nodes only with the next."""
_BLOCK = bytes(2**20)
_COUNT = struct.Struct("!Q")


class Place(NamedTuple):
    """Where a node listens."""

    host: str
    """A numeric address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Link(NamedTuple):
    """A connection that was tried."""

    to: Place
    rate: float
    """Bytes per second."""
    error: str = ""
    """Why there is none."""


def peers(count: int, rank: int) -> list[int]:
    """The nodes that a node connects to, by number: itself if it is alone."""
    if count == 1:
        return [rank]
    steps = range(1, count) if count <= MOST_PAIRS else (1,)
    return [(rank + step) % count for step in steps]


class Listener:
    """Takes connections on a free port of an address and counts the bytes that come."""

    def __init__(self, host: str, secret: bytes) -> None:
        """
        Args:
            host: this node's address.
            secret: what the other end shows first.

        Raises:
            OSError: nothing can listen there.
        """
        self._secret = secret
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = socket.create_server((host, 0), family=family)
        self.place = Place(host, self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # shutdown() ends an accept() that waits in the thread; close() alone does not.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                threading.Thread(target=self._count, args=(peer,), daemon=True).start()

    def _count(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.settimeout(ANSWER_SECONDS)
            shown = b""
            while len(shown) < SECRET_BYTES:
                if not (part := peer.recv(SECRET_BYTES - len(shown))):
                    return
                shown += part
            if not hmac.compare_digest(shown, self._secret):
                return
            count, buffer = 0, bytearray(len(_BLOCK))
            while got := peer.recv_into(buffer):
                count += got
            peer.sendall(_COUNT.pack(count))


def links(places: Sequence[Place], secret: bytes) -> list[Link]:
    """Connect to all places at once, then measure one connection after the other."""
    with ThreadPoolExecutor(max(1, len(places))) as pool:
        connected = list(pool.map(_connected, places))
    return [
        Link(place, 0.0, one) if isinstance(one, str) else _measured(place, one, secret)
        for place, one in zip(places, connected, strict=True)
    ]


def _connected(place: Place) -> socket.socket | str:
    try:
        return socket.create_connection(place, timeout=CONNECT_SECONDS)
    except OSError as error:
        return reason(error)


def _measured(place: Place, connection: socket.socket, secret: bytes) -> Link:
    with connection:
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(secret)
            began = time.perf_counter()
            while time.perf_counter() - began < SEND_SECONDS:
                connection.sendall(_BLOCK)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(_COUNT.size, socket.MSG_WAITALL)
            seconds = time.perf_counter() - began
        except OSError as error:
            return Link(place, 0.0, reason(error))
    if len(answer) < _COUNT.size:
        return Link(place, 0.0, "the connection was closed")
    return Link(place, _COUNT.unpack(answer)[0] / seconds)


def port_range() -> str:
    """The ports that this kernel hands out, as a firewall's rule takes them."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return "49152-65535"
    return f"{first}-{last}"


def network_finding(found: Sequence[Link], names: Mapping[Place, str], ports: str) -> Finding:
    """Judge the connections of a node.

    Args:
        found: its connections.
        names: place → name of the node.
        ports: where servers of workers listen.
    """
    broken = [one for one in found if one.error]
    if broken:
        to = ", ".join(f"{names[one.to]} ({one.to}: {one.error})" for one in broken)
        return Finding(
            "network",
            f"{len(broken)} of {len(found)} connections failed",
            f"no connection to {to}; open TCP ports {ports} between the nodes, or train with "
            "--workers 1",
        )
    slowest = min(found, key=lambda one: one.rate)
    to = names[slowest.to]
    if len(found) > 1:
        return Finding("network", f"{len(found)} nodes; slowest {to}, {size(slowest.rate)}/s")
    return Finding("network", f"to {to}, {size(slowest.rate)}/s")
