"""A server's port is left to the workers of its own training."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlcluster.training.guarded_port import SUPPORTED, GuardedPort

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="only Linux lets a process guard its ports")

PATIENCE_SECONDS = 30

ASK = """
import encodings.idna, os, socket, sys
address, port, account = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if account:
    os.setuid(account)
with socket.create_connection((address, port), timeout=20) as connection:
    try:
        connection.sendall(b"let me in")
        print(connection.recv(100).decode())
    except ConnectionError:
        print("")
"""


class EchoServer:
    """Listens on all interfaces and waits with epoll, as gRPC does; repeats what it is sent."""

    def __init__(self) -> None:
        self.listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.setblocking(False)
        self.listener.bind(("::", 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.poll = select.epoll()
        # Only changes are reported, as gRPC wants it.
        self.poll.register(self.listener, select.EPOLLIN | select.EPOLLET)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        peers: dict[int, socket.socket] = {}
        while not self.ended.is_set():
            for descriptor, _ in self.poll.poll(0.05):
                if descriptor == self.listener.fileno():
                    (
                        accepted,
                        _,
                    ) = os_accept(self.listener)
                    if accepted is not None:
                        peers[accepted.fileno()] = accepted
                        self.poll.register(accepted, select.EPOLLIN)
                elif data := received(peers[descriptor]):
                    self.heard.append(data)
                    peers[descriptor].sendall(data)
                else:
                    self.poll.unregister(descriptor)
                    peers.pop(descriptor).close()
        for peer in peers.values():
            peer.close()

    def close(self) -> None:
        self.ended.set()
        self.thread.join()
        self.poll.close()
        self.listener.close()


def os_accept(listener: socket.socket) -> tuple[socket.socket | None, object]:
    # The descriptor has another family now than the socket object was made with.
    with socket.socket(fileno=os.dup(listener.fileno())) as now:
        try:
            return now.accept()
        except BlockingIOError:
            return None, None


def received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(100)
    except ConnectionError:
        return b""


@pytest.fixture
def server() -> Iterator[EchoServer]:
    made = EchoServer()
    yield made
    made.close()


def listening(port: int) -> set[str]:
    """The addresses on which somebody listens there, as the kernel shows them."""
    return {place for place, state in sockets(port) if state == "0A"}


def sockets(port: int) -> Iterator[tuple[str, str]]:
    """Local address and state of every socket that has the port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if int(local.split(":")[1], 16) == port:
                yield local.split(":")[0], state


def ask(address: str, port: int, account: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK, address, str(port), str(account)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    return done.stdout.strip()


def test_the_server_listens_on_the_workers_address_alone(server: EchoServer) -> None:
    assert listening(server.port) == {32 * "0"}
    with GuardedPort([f"127.0.0.1:{server.port}", "127.0.0.1:1"], 0) as port:
        assert port.guarded.wait(PATIENCE_SECONDS)
        assert port.error is None
        assert listening(server.port) == {"0100007F"}


def test_a_worker_of_this_account_is_served(server: EchoServer) -> None:
    with GuardedPort([f"127.0.0.1:{server.port}"], 0) as port:
        assert port.guarded.wait(PATIENCE_SECONDS)
        assert ask("127.0.0.1", server.port) == "let me in"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_is_not_heard(server: EchoServer) -> None:
    with GuardedPort([f"127.0.0.1:{server.port}"], 0) as port:
        assert port.guarded.wait(PATIENCE_SECONDS)
        assert ask("127.0.0.1", server.port, account=65534) == ""
        assert ask("127.0.0.1", server.port) == "let me in"
    assert server.heard == [b"let me in"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_that_came_before_the_guard_is_shut_out(server: EchoServer) -> None:
    code = ASK.replace('connection.sendall(b"let me in")', "")
    early = subprocess.Popen(
        [sys.executable, "-c", code, "127.0.0.1", str(server.port), "65534"],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not connected(server.port) and time.monotonic() < deadline:
        time.sleep(0.01)
    with GuardedPort([f"127.0.0.1:{server.port}"], 0):
        assert early.communicate(timeout=PATIENCE_SECONDS)[0].strip() == ""
    assert server.heard == []


def connected(port: int) -> bool:
    return any(state == "01" for _, state in sockets(port))
