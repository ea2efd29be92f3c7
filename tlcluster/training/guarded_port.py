"""Keep TensorFlow's server to the workers of its own training.

Several workers of one training reach each other through a gRPC server that TensorFlow starts in
each of them. It listens on all interfaces and has no authentication: whoever connects reads and
writes files as the account of the run. TensorFlow has no setting for either. So, on Linux, a
thread of the worker does three things with the server's sockets:

- A listening socket on all interfaces is exchanged for one that listens on the worker's own
  address only, which is loopback on one machine. The new socket takes over the file descriptor,
  and its place in the epoll set of gRPC.
- The new socket carries a filter that drops what holds data. Connections inherit it. So a peer can
  connect, and nothing that it sends is read before we know who it is.
- A connection is let through when its other end belongs to this account, if that is on this
  machine, or else when it comes from the host of another worker. Any other one is shut down.

Linux lets a process do this to its own sockets without any privilege. The server is open from its
start until the thread has seen it, for some milliseconds to half a second; `docs/security.md` says
so. Who connects in that time is shut down as well.
"""

import contextlib
import ctypes
import ipaddress
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STARTING_SECONDS = 0.005
"""Between two looks until the server is guarded."""
CONNECTING_SECONDS = 0.05
"""Between two looks while the workers connect; a new connection waits as long."""
CONNECTING_FOR_SECONDS = 60.0
SETTLED_SECONDS = 1.0
"""Between two looks later on, when a connection is new only if one has broken."""

SUPPORTED = sys.platform == "linux"

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_EPOLL_CTL_ADD = 1
_ESTABLISHED, _LISTENING = "01", "0A"

_Program = list[tuple[int, int, int, int]]
# Classic BPF, one instruction a line: code, jump if true, jump if false, constant.
_PASS, _DROP = (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)
_WITHOUT_DATA = [
    (0x30, 0, 0, 12),  # A = byte 12 of the TCP header, whose upper half is its length in words
    (0x74, 0, 0, 4),  # A >>= 4
    (0x64, 0, 0, 2),  # A <<= 2: its length in bytes
    (0x07, 0, 0, 0),  # X = A
    (0x80, 0, 0, 0),  # A = length of the packet, header included
    (0x1D, 0, 1, 0),  # unless A == X, skip one
    _PASS,
    _DROP,
]


class _Connection(NamedTuple):
    """A line of /proc/net/tcp or tcp6."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    uid: int
    inode: int


class GuardedPort:
    """Guards the port of a worker's server while the block runs; see the module.

    TensorFlow's server must be started inside the block, with `TF_GRPC_REUSE_PORT=1`.
    """

    def __init__(self, workers: Sequence[str], index: int) -> None:
        """
        Args:
            workers: `host:port` of every worker of the training, by rank, as in TF_CONFIG.
            index: this worker's rank.
        """
        places = [_address(worker) for worker in workers]
        self.host, self.port = places[index]
        self.error: OSError | None = None
        """Why the port cannot be guarded."""
        self._hosts = {host for host, _ in places}
        self._known: set[int] = set()
        """Inodes of sockets that need no more looks."""
        self.guarded = threading.Event()
        """Set when the server listens on the guarded port."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="guarded-port", daemon=True)

    def __enter__(self) -> "GuardedPort":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while True:
            try:
                self._look()
            except OSError as error:
                self.error = error
                self.guarded.set()
                return
            if self._ended.wait(self._pause(time.monotonic() - began)):
                return

    def _pause(self, running: float) -> float:
        if not self.guarded.is_set():
            return STARTING_SECONDS
        return CONNECTING_SECONDS if running < CONNECTING_FOR_SECONDS else SETTLED_SECONDS

    def _look(self) -> None:
        """Guard new listening sockets, and decide on new connections."""
        here = [one for one in _connections(self.port) if one.local[1] == self.port]
        new = [one for one in here if one.inode and one.inode not in self._known]
        descriptors = _descriptors() if new else {}
        for one in new:
            descriptor = descriptors.get(one.inode)
            if descriptor is None:
                continue  # Another process's, on another address.
            if one.state == _LISTENING:
                self._replace(descriptor)
            elif one.state == _ESTABLISHED:
                self._decide(one, descriptor)

    def _replace(self, descriptor: int) -> None:
        """Put a guarded socket in the place of a listening one."""
        with _guarded_socket(self.host, self.port) as guarded:
            registered = list(_registrations(descriptor))
            os.dup2(guarded.fileno(), descriptor, inheritable=False)
            for poll, events, data in registered:
                _register(poll, descriptor, events, data)
            self._known.add(os.fstat(descriptor).st_ino)
        self.guarded.set()

    def _decide(self, connection: _Connection, descriptor: int) -> None:
        """Let a connection through, or shut it down."""
        with socket.socket(fileno=os.dup(descriptor)) as peer, contextlib.suppress(OSError):
            if self._is_a_workers(connection):
                peer.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            else:
                peer.shutdown(socket.SHUT_RDWR)
        self._known.add(connection.inode)

    def _is_a_workers(self, connection: _Connection) -> bool:
        host, _ = connection.remote
        if host == connection.local[0]:
            # Its other end is on this machine, so it is in the same table.
            return any(
                other.uid == os.getuid()
                for other in _connections(self.port)
                if other.local == connection.remote and other.remote == connection.local
            )
        return host in self._hosts


def _guarded_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there, and whose connections take no data yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        _attach(made, _SO_ATTACH_FILTER, _WITHOUT_DATA)
        made.listen(socket.SOMAXCONN)
    except OSError:
        made.close()
        raise
    return made


def _attach(to: socket.socket, option: int, program: _Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    to.setsockopt(
        socket.SOL_SOCKET, option, struct.pack("HP", len(program), ctypes.addressof(code))
    )


def _address(worker: str) -> tuple[str, int]:
    """`host:port` → numeric address and port."""
    host, _, port = worker.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return str(found[0][4][0]), int(port)


def _connections(port: int) -> Iterator[_Connection]:
    """Those that have the port at either end."""
    there = f":{port:04X} "
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/self/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            if there not in line:
                continue
            fields = line.split()
            yield _Connection(
                _place(fields[1]), _place(fields[2]), fields[3], int(fields[7]), int(fields[9])
            )


def _place(text: str) -> tuple[str, int]:
    """`0100007F:1F90` → (`127.0.0.1`, 8080). IPv4 inside IPv6 is given as IPv4."""
    address, port = text.split(":")
    # The kernel prints each word of four bytes as a number of this machine.
    words = struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address))
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), int(port, 16)


def _descriptors() -> dict[int, int]:
    """Inode → file descriptor of this process's sockets."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
            if target.startswith("socket:["):
                found[int(target[8:-1])] = int(entry)
    return found


_REGISTERED = re.compile(r"tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)")


def _registrations(descriptor: int) -> Iterator[tuple[int, int, int]]:
    """Where a descriptor is waited for: the epoll set, the events, and gRPC's own word for it."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{entry}") == "anon_inode:[eventpoll]":  # noqa: PTH115
                text = Path(f"/proc/self/fdinfo/{entry}").read_text()
                for number, events, data in _REGISTERED.findall(text):
                    if int(number) == descriptor:
                        yield int(entry), int(events, 16), int(data, 16)


def _register(poll: int, descriptor: int, events: int, data: int) -> None:
    # Python's own epoll cannot set the data.
    packed = "=IQ" if os.uname().machine in ("x86_64", "i686") else "@IQ"
    event = ctypes.create_string_buffer(struct.pack(packed, events, data))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.epoll_ctl(poll, _EPOLL_CTL_ADD, descriptor, event):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
