"""Connections between nodes: who connects to whom, what is measured, and who is not let in."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.checkup.link import (
    MOST_PAIRS,
    SECRET_BYTES,
    Link,
    Listener,
    Place,
    links,
    network_finding,
    peers,
    port_range,
)

SECRET = bytes(range(SECRET_BYTES))
A, B = Place("10.0.0.1", 40000), Place("10.0.0.2", 40001)
NAMES = {A: "ray1", B: "ray2"}


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener("127.0.0.1", SECRET)
    yield listener
    listener.close()


@given(st.integers(1, 40))
def test_every_node_connects_and_is_connected_to_in_both_directions_if_they_are_few(
    count: int,
) -> None:
    pairs = {(rank, peer) for rank in range(count) for peer in peers(count, rank)}
    assert {rank for rank, _ in pairs} == {peer for _, peer in pairs} == set(range(count))
    if count == 1:
        assert pairs == {(0, 0)}
    elif count <= MOST_PAIRS:
        assert pairs == {(a, b) for a in range(count) for b in range(count) if a != b}
    else:
        assert len(pairs) == count
        assert all(a != b for a, b in pairs)


def test_a_connection_has_a_rate(listener: Listener) -> None:
    first, second = links([listener.place, listener.place], SECRET)
    assert (first.to, first.error) == (listener.place, "")
    assert min(first.rate, second.rate) > 2**20


def test_a_port_on_which_nobody_listens_is_named(listener: Listener) -> None:
    listener.close()
    (link,) = links([listener.place], SECRET)
    assert link == Link(listener.place, 0.0, "connection refused")


def test_a_stranger_who_does_not_know_the_secret_is_shut_out(listener: Listener) -> None:
    with socket.create_connection(listener.place) as stranger:
        stranger.sendall(bytes(SECRET_BYTES))
        assert stranger.recv(1) == b""
    (link,) = links([listener.place], bytes(SECRET_BYTES))
    assert link.error
    assert links([listener.place], SECRET)[0].error == ""


def test_the_port_is_one_that_the_kernel_hands_out_as_tensorflow_s_is(listener: Listener) -> None:
    first, last = map(int, port_range().split("-"))
    assert first <= listener.place.port <= last
    assert Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split() == [
        str(first), str(last),
    ]  # fmt: skip


def test_the_slowest_connection_is_shown() -> None:
    assert network_finding([Link(B, 1.2e9)], NAMES, "1-2").found == "to ray2, 1.2 GB/s"
    found = network_finding([Link(B, 1.2e9), Link(A, 9e6)], NAMES, "1-2")
    assert found == ("network", "2 nodes; slowest ray1, 9 MB/s", "", "")


def test_a_port_that_a_firewall_closes_is_a_fault_with_the_range_to_open() -> None:
    found = network_finding([Link(B, 1e9), Link(A, 0.0, "timed out")], NAMES, "32768-60999")
    assert found.found == "1 of 2 connections failed"
    assert found.fault == (
        "no connection to ray1 (10.0.0.1:40000: timed out); open TCP ports 32768-60999 between the "
        "nodes, or train with --workers 1"
    )
