"""The table and the lines that `check` prints of its findings."""

import socket

import pytest

from tlcluster.checkup.finding import CHECKS, Finding, explained, faults, notes, rows, size
from tlcluster.errors import StoreUnavailable, UserError

FOUND = {
    "ray1": [Finding("disk", "9 GB free"), Finding("versions", "python 3.11")],
    "ray2": [Finding("disk", "0 bytes free", "/cache: full; free some space", "a note")],
}


def test_a_node_is_named_once_above_its_checks_in_the_order_of_all_tables() -> None:
    assert rows(FOUND) == [
        ("ray1", "versions", "ok", "python 3.11"),
        ("", "disk", "ok", "9 GB free"),
        ("ray2", "disk", "FAULT", "0 bytes free"),
    ]


def test_each_fault_and_each_note_is_one_line_that_names_the_node() -> None:
    assert faults(FOUND) == ["ray2: /cache: full; free some space"]
    assert notes(FOUND) == ["ray2: a note"]


def test_a_fault_of_many_nodes_is_one_line() -> None:
    def said(count: int) -> list[str]:
        return faults({f"n{number}": [Finding("data", "", "away")] for number in range(count)})

    assert said(0) == []
    assert said(2) == ["n0, n1: away"]
    assert said(3) == ["n0, n1, n2: away"]
    assert said(64) == ["n0, n1, n2 and 61 more: away"]


@pytest.mark.parametrize(
    "error",
    [UserError("full"), StoreUnavailable("full"), UserError(f"{socket.gethostname()}: full")],
)
def test_what_a_run_would_end_with_is_a_fault(error: Exception) -> None:
    def probe() -> Finding:
        raise error

    assert explained("disk", probe) == Finding("disk", "failed", "full")
    assert faults({"ray1": [explained("disk", probe)]}) == ["ray1: full"]
    assert explained("disk", lambda: FOUND["ray1"][0]) is FOUND["ray1"][0]


def test_every_check_has_its_place_in_the_table() -> None:
    assert len(set(CHECKS)) == len(CHECKS)


def test_sizes_are_given_in_the_unit_that_suits_them() -> None:
    assert [size(count) for count in (0, 999, 1500, 6.1e6, 1.23e9, 4e12)] == [
        *("0 bytes", "999 bytes", "1.5 kB", "6.1 MB", "1.23 GB", "4 TB")
    ]
