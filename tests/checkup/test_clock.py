"""Clocks of nodes beside the driver's."""

from hypothesis import given
from hypothesis import strategies as st

from tlcluster.checkup.clock import MOST_SECONDS, Reading, clock_finding


def test_a_clock_that_goes_right_is_no_fault() -> None:
    assert clock_finding([Reading(100.0, 100.002, 100.004)]) == ("clock", "as the driver's", "", "")
    assert (
        clock_finding([Reading(100.0, 100.252, 100.004)]).found == "0.248 s ahead of the driver's"
    )
    assert clock_finding([Reading(100.0, 95.0, 100.0)]).found == "5 s behind the driver's"


def test_a_clock_that_is_far_off_is_a_fault() -> None:
    assert clock_finding([Reading(1000.0, 880.0, 1000.0)]).fault == (
        "the clock is 120 s behind the driver's, and 30 s are allowed; set the clocks of all "
        "nodes, for example with NTP"
    )


def test_the_fastest_answer_counts() -> None:
    slow, fast = Reading(100.0, 100.0, 140.0), Reading(200.0, 200.001, 200.002)
    assert clock_finding([slow, fast]) == clock_finding([fast])


@given(
    st.floats(0, 3600), st.floats(0, 100), st.floats(0, 100), st.floats(-MOST_SECONDS, MOST_SECONDS)
)
def test_a_slow_network_never_makes_a_fault_of_a_clock_within_bounds(
    asked: float, there: float, back: float, ahead: float
) -> None:
    reading = Reading(asked, asked + there + ahead, asked + there + back)
    assert clock_finding([reading]).fault == ""
