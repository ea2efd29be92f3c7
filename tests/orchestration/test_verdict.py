"""What answers mean, or their absence. No cluster is needed for it."""

import ray.exceptions

from tlcluster.checkup.finding import Finding
from tlcluster.checkup.link import Link, Place
from tlcluster.orchestration.inspector import AT_ONCE, Arrival, Inspector
from tlcluster.orchestration.verdict import WAY_OUT, Answers, absent, judged, node_findings

DRIVER = {"python": "3.11.9", "tensorflow": "2.21.0", "ray": "2.60.0", "tlcluster": "0.1.0"}
ME, OTHER = Place("10.0.0.1", 40000), Place("10.0.0.2", 40001)
NAMES = {ME: "ray1", OTHER: "ray2"}
WELL = Answers(
    Arrival(DRIVER, ME, "", "32768-60999"),
    Finding("clock", "as the driver's"),
    {check: Finding(check, "fine") for check in AT_ONCE},
    [Link(OTHER, 1e9)],
)


def faults(answers: Answers, *, connects: bool = True) -> dict[str, str]:
    found = node_findings(answers, DRIVER, NAMES, 50, connects=connects)
    return {one.check: one.fault for one in found if one.fault}


def test_a_node_that_answers_well_has_no_fault() -> None:
    assert faults(WELL) == {}
    found = node_findings(WELL, DRIVER, NAMES, 50, connects=True)
    assert [one.check for one in found] == ["versions", "clock", *AT_ONCE, "network"]


def test_an_answer_that_does_not_come_is_a_fault_with_what_to_do() -> None:
    silent = WELL._replace(clock=None, checks={}, links=None)
    checks = ("clock", *AT_ONCE, "network")
    assert faults(silent) == {
        check: f"{check}: no answer in 50 s; {WAY_OUT[check]}, or give it more --seconds"
        for check in checks
    }


def test_a_check_that_breaks_is_a_fault_with_its_reason() -> None:
    assert judged("disk", ray.exceptions.RayError("ValueError: no disk"), 50).fault == (
        f"disk: ValueError: no disk; {WAY_OUT['disk']}"
    )


def test_a_node_on_which_no_worker_starts_is_one_fault() -> None:
    (found,) = node_findings(Answers(None), DRIVER, NAMES, 50, connects=True)
    assert found == absent(None, 50)
    assert found.fault == (
        "no worker started within 30 s; see with `ray status` that nothing else holds the node's "
        "CPUs and GPUs, and that the node is not overloaded, or give it more --seconds"
    )
    died = ray.exceptions.RayError("ModuleNotFoundError: No module named 'tlcluster'")
    assert faults(Answers(died)) == {
        "worker": "a worker cannot start: ModuleNotFoundError: No module named 'tlcluster'; see "
        "that tlcluster and its dependencies are installed there, for the Python that Ray runs with"
    }


def test_a_node_with_other_versions_is_a_fault() -> None:
    other = Arrival({**DRIVER, "tensorflow": "2.20.0"}, ME, "", "")
    assert faults(WELL._replace(arrival=other))["versions"].startswith("tensorflow is 2.20.0, and")


def test_workers_that_are_alone_in_their_training_need_no_connection() -> None:
    alone = WELL._replace(arrival=Arrival(DRIVER, None, "", ""), links=None)
    assert faults(alone, connects=False) == {}


def test_a_node_that_cannot_listen_is_a_fault() -> None:
    deaf = WELL._replace(arrival=Arrival(DRIVER, None, "10.0.0.9: cannot assign address", ""))
    assert faults(deaf) == {
        "network": "10.0.0.9: cannot assign address; start Ray on this node with an address of "
        "its own (ray start --node-ip-address), or train with --workers 1"
    }


def test_every_check_is_a_method_of_the_inspector() -> None:
    assert all(callable(getattr(Inspector, check)) for check in AT_ONCE)
