"""A real Ray cluster of several nodes on this machine, with token authentication and the Jobs API.

Each node is a raylet with a network, a host name, processes and shared memory of its own; they meet
on a bridge that no address of this machine but one reaches. All of it ends with the processes that
hold it, and they with the tests', however those end.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from real_run import PATIENCE, gone, started_by, title

BIN = Path(sys.executable).parent
_NETWORK = f"198.{18 + os.getpid() // 250 % 2}.{os.getpid() % 250}"
"""Another one for every process that tests; from RFC 2544, so that it is nobody's."""
_HERE, _HEAD = f"{_NETWORK}.254", f"{_NETWORK}.1"
_RAY = "/tmp/ray"  # noqa: S108
"""Where Ray keeps what belongs to a node."""

TRIES = 3
"""A node whose processes take half a minute to start gives up; a busy machine may be as slow."""

_NODE = f"""
hostname "$1"
mount -t tmpfs tmpfs /dev/shm
mkdir -p {_RAY}
mount -t tmpfs tmpfs {_RAY}
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip address add "$2" dev eth0
ip link set lo up
ip link set eth0 up
shift 2
"$@" &
wait
"""
"""Ray is not the first process of its node, which has to see to orphans."""


class Node(NamedTuple):
    """One node of the cluster."""

    name: str
    holder: "subprocess.Popen[bytes]"
    """Its process outside; the node ends with it."""
    log: Path

    def titles(self) -> dict[int, str]:
        """The processes that run on the node: number → how it calls itself."""
        return {one.pid: title(one) for one in started_by(self.holder.pid)}

    def raylet(self) -> int:
        """The number of the raylet's process."""
        (pid,) = (
            pid
            for pid, said in self.titles().items()
            if said.partition("\0")[0].endswith("/raylet")
        )
        return pid


class RayLab(NamedTuple):
    """The cluster, as one that submits jobs to it sees it."""

    nodes: tuple[Node, ...]
    """The head, which trains nothing, and the workers of one CPU each."""
    environment: Mapping[str, str]
    """What a command on this machine needs to talk to it."""
    token: str
    endpoint: str
    """The S3 server, as the nodes reach it."""
    folder: Path
    """What the nodes print is here."""
    switch: int
    """The process that holds what the nodes are plugged into."""
    inside: Mapping[str, str]
    """The environment of the nodes."""

    def alive(self) -> int:
        """How many nodes the head takes for alive."""
        nodes = self.api("/nodes?view=summary")["data"]["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    @property
    def head(self) -> str:
        """The address of the head node."""
        return _HEAD

    def api(self, path: str) -> Any:
        """What the head's HTTP server answers to a GET."""
        request = urllib.request.Request(
            f"http://{_HEAD}:8265{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        # A proxy for the world outside is no way to this network.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def jobs(self) -> dict[str, Any]:
        """What the Jobs API tells of every job: submission → job."""
        return {job["submission_id"]: job for job in self.api("/api/jobs/")}

    def left(self) -> list[str]:
        """The actors, placement groups and training processes that there are."""
        found = []
        for kind, name in (("actors", "class_name"), ("placement_groups", "name")):
            listed = self.api(f"/api/v0/{kind}?detail=0&limit=1000")["data"]["result"]["result"]
            ended = {"DEAD", "REMOVED"}
            found += [f"{kind}: {one[name]}" for one in listed if one["state"] not in ended]
        for node in self.nodes:
            running = [said for said in node.titles().values() if said.startswith("ray::")]
            found += [f"{node.name}: {said}" for said in running if "RayTrainWorker" in said]
        return found


@contextlib.contextmanager
def ray_lab(
    folder: Path, workers: int, endpoint: str, environment: Mapping[str, str]
) -> Iterator[RayLab]:
    """Start a head and some workers of one CPU each; end them with the block.

    Args:
        folder: for the token and what the nodes print.
        workers: how many nodes beside the head.
        endpoint: an S3 server on this machine's loopback, which the nodes reach by another address.
        environment: what the nodes' processes have in their environment, beside that address.
    """
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(20))
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    path = f"{BIN}:{os.environ['PATH']}"
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_switch())
        s3 = stack.enter_context(_relay(endpoint))
        inside = {
            **environment,
            **authentication,
            "AWS_ENDPOINT_URL": s3,
            "AWS_ENDPOINT_URL_S3": s3,
            # How long Ray Train waits for resources before the driver counts the nodes again.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
            # A head without CPUs would start the controllers of the experiments one by one.
            "RAY_worker_maximum_startup_concurrency": "16",
            "PATH": path,
            "XDG_CACHE_HOME": f"{_RAY}/cache",
        }
        roles = [("--head", "--port=6379", "--num-cpus=0", f"--dashboard-host={_HEAD}")]
        roles += [(f"--address={_HEAD}:6379", "--num-cpus=1")] * workers
        outside = {**authentication, "PATH": path, "NO_PROXY": _HEAD, "no_proxy": _HEAD}
        lab = RayLab((), outside, token.read_text(), s3, folder, switch, inside)
        # One by one: a worker gives up if the head is not there after some tries.
        for number, role in enumerate(roles, 1):
            before = lab.nodes
            for _ in range(TRIES):
                node = stack.enter_context(_node(folder, switch, number, inside, role))
                lab = lab._replace(nodes=(*before, node))
                if _joined(lab):
                    break
            else:
                raise AssertionError(lab.nodes[-1].log.read_text())
        yield lab


@contextlib.contextmanager
def one_more(lab: RayLab, environment: Mapping[str, str]) -> Iterator[Node]:
    """One more worker with some other environment; it leaves the cluster with the block."""
    before, number = lab.alive(), len(lab.nodes) + 1
    inside = {**lab.inside, **environment}
    role = (f"--address={_HEAD}:6379", "--num-cpus=1")
    with _node(lab.folder, lab.switch, number, inside, role) as node:
        _until(lambda: lab.alive() == before + 1, node)
        yield node
        # Told to end, it tells the head. Of one that is killed the head learns after a minute.
        os.kill(node.raylet(), signal.SIGTERM)
        _until(lambda: lab.alive() == before, node)


def forbid(node: Node, to: int) -> None:
    """Let a node send nothing to another one, which it counts from 1, as a firewall does."""
    _run(f"{_within(node.holder.pid)} ip route add prohibit {_NETWORK}.{to}/32")


def _until(condition: Callable[[], bool], node: Node) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, node.log.read_text()
        time.sleep(0.2)


@contextlib.contextmanager
def _switch() -> Iterator[int]:
    """What nodes and this machine are plugged into; yields the process that holds it."""
    bridge = "ip link add bridge type bridge && ip link set bridge up && echo up && sleep infinity"
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    with _ending([*unshare, "sh", "-c", bridge]) as held:
        assert held.stdout
        assert held.stdout.readline() == b"up\n"
        port = f"ray{os.getpid()}"
        _run(f"ip link add here netns {held.pid} type veth peer name {port}")
        _run(f"{_within(held.pid)} ip link set here master bridge up")
        _run(f"ip address add {_HERE}/24 dev {port}")
        _run(f"ip link set {port} up")
        yield held.pid


@contextlib.contextmanager
def _node(
    folder: Path, switch: int, number: int, environment: Mapping[str, str], role: tuple[str, ...]
) -> Iterator[Node]:
    name, address, log = f"ray{number}", f"{_NETWORK}.{number}", folder / f"ray{number}.log"
    start = [
        *("ray", "start", "--block", f"--node-ip-address={address}"),
        *("--disable-usage-stats", "--object-store-memory=100000000", *role),
    ]
    spaces = ["--net", "--uts", "--ipc", "--mount", "--pid", "--mount-proc"]
    unshare = ["unshare", *spaces, "--fork", "--kill-child"]
    command = [*unshare, "sh", "-euc", _NODE, "sh", name, f"{address}/24", *start]
    with log.open("wb") as output, _ending(command, environment, output) as holder:
        here, there = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        while there.readlink() == here.readlink():
            time.sleep(0.01)
        _run(f"ip link add {name} netns {switch} type veth peer name eth0 netns {holder.pid}")
        _run(f"{_within(switch)} ip link set {name} master bridge up")
        yield Node(name, holder, log)


@contextlib.contextmanager
def _ending(
    command: list[str], environment: Mapping[str, str] | None = None, output: Any = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with the block, or with this process."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        started = started_by(process.pid)
        process.kill()
        process.communicate()
        assert gone(started)


def _within(pid: int) -> str:
    return f"nsenter --net=/proc/{pid}/ns/net"


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextlib.contextmanager
def _relay(endpoint: str) -> Iterator[str]:
    """Another address of a server that listens on loopback, for those who are not there."""
    target = urllib.parse.urlsplit(endpoint)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((target.hostname, target.port)) as server:
                back = threading.Thread(target=_pump, args=(server, self.request), daemon=True)
                back.start()
                _pump(self.request, server)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server((_HERE, 0), Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{_HERE}:{server.server_address[1]}"
        server.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Hand on what one side sends, until it has nothing more to send."""
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _joined(lab: RayLab) -> bool:
    """Wait until all nodes have joined and the Jobs API answers; False if the last one ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if lab.nodes[-1].holder.poll() is not None:
            return False
        with contextlib.suppress(OSError):
            if lab.alive() == len(lab.nodes) and lab.jobs() == {}:
                return True
        time.sleep(0.2)
    raise AssertionError([node.log.read_text() for node in lab.nodes])
