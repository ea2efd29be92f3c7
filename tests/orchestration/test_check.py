"""The command `check`: what it prints, and that it waits for nobody for ever."""

import io
import time
from typing import Any

import pytest
import ray
from rich.console import Console

from tlcluster.checkup.finding import Finding
from tlcluster.cli import OK, USAGE, parse
from tlcluster.errors import UserError
from tlcluster.orchestration import inspection
from tlcluster.orchestration.check import show
from tlcluster.orchestration.inspection import clocks_of, collected, labels
from tlcluster.settings import CheckSettings, RunSettings

WELL = {"ray1": [Finding("device", "CPU [all] threads"), Finding("disk", "9 GB free")]}


def shown(found: dict[str, list[Finding]]) -> tuple[int, str]:
    output = io.StringIO()
    status = show(Console(file=output, width=80), found)
    return status, output.getvalue()


def test_without_a_fault_the_status_is_0_and_the_last_line_says_so() -> None:
    status, said = shown(WELL)
    assert status == OK
    assert "CPU [all] threads" in said
    assert said.splitlines()[-1] == "A run can start on 1 node."


def test_with_a_fault_the_status_is_2_and_each_fault_is_one_line() -> None:
    wrong = Finding("data", "failed", f"s3://b/\x1b[31m: refused{', and so on' * 20}; change it")
    status, said = shown({**WELL, "ray2": [wrong, Finding("disk", "x", note="slow")]})
    assert status == USAGE
    *_, note, last = said.splitlines()
    assert note == "note: ray2: slow"
    assert last.startswith("error: ray2: s3://b/\\x1b[31m: refused, and so on")
    assert last.endswith("; change it")


def test_the_table_is_no_wider_than_80_columns() -> None:
    _, said = shown({"a-rather-long-host-name.cluster.example.org": [
        Finding("versions", "python 3.11.9, tensorflow 2.21.0, ray 2.60.0, tlcluster 0.1.0"),
    ]})  # fmt: skip
    assert max(map(len, said.splitlines())) <= 80


def test_nodes_of_one_machine_have_names_of_their_own() -> None:
    assert labels(["a", "b", "a"]) == ["a#1", "b", "a#2"]


def test_check_takes_the_flags_of_a_run_but_for_those_that_start_nothing() -> None:
    line = ("--store", "s3://b/d", "--workers", "2:4", "--experiments", "frozen", "--address", "x")
    run = parse(RunSettings, "run", "", line)
    given = parse(CheckSettings, "check", "", (*line, "--seconds", "90"))
    assert given.seconds == 90
    assert given.suite() == run
    for flag in ("--dry-run", "--list-experiments"):
        with pytest.raises(UserError, match=f"unrecognized arguments: {flag}"):
            parse(CheckSettings, "check", "", [flag])


def test_an_answer_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeRay:
        exceptions = ray.exceptions

        @staticmethod
        def wait(references: list[str], timeout: float) -> tuple[list[str], list[str]]:
            if not (ready := [one for one in references if one != "never"]):
                time.sleep(timeout)
            return ready[:1], references[1:]

        @staticmethod
        def get(reference: str, timeout: float) -> str:  # noqa: ARG004
            if reference == "broken":
                raise ray.exceptions.RayError(reference)
            return reference

    monkeypatch.setattr(inspection, "ray", FakeRay)
    counts: list[int] = []
    pending = {"a": "soon", "b": "never", "c": "broken"}
    found: dict[str, Any] = collected(pending, time.monotonic() + 0.1, counts.append)
    assert (found["a"], found["b"], str(found["c"])) == ("soon", None, "broken")
    assert max(counts) == 2


def test_a_slow_clock_is_read_and_a_lost_one_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fake actors: one answers at once, one with every third question, one never."""
    waits = {"fast": 0, "slow": 2, "lost": 99}

    class FakeRay:
        exceptions = ray.exceptions

        @staticmethod
        def wait(
            references: list["Question"], timeout: float
        ) -> tuple[list["Question"], list[Any]]:
            if ready := [one for one in references if one.left == 0]:
                return ready[:1], []
            for one in references:
                one.left -= 1
            time.sleep(min(timeout, 0.01))
            return [], references

        @staticmethod
        def get(reference: "Question", timeout: float) -> float:  # noqa: ARG004
            return time.time() + reference.ahead

    class Question:
        def __init__(self, actor: str) -> None:
            self.left, self.ahead = waits[actor], {"slow": 100.0}.get(actor, 0.0)

    class Actor:
        def __init__(self, name: str) -> None:
            self.clock = self
            self.remote = lambda: Question(name)

    monkeypatch.setattr(inspection, "ray", FakeRay)
    actors = {rank: Actor(name) for rank, name in enumerate(waits)}
    found = clocks_of(actors, time.monotonic() + 0.3)
    assert {rank: bool(one.fault) for rank, one in found.items()} == {0: False, 1: True}
